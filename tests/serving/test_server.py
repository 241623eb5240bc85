"""The server answers what it should, refuses the rest in JSON, and outlives whatever is sent."""

from __future__ import annotations

import http.client
import io
import json
import random
import socket
import struct
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnet.data import load_dataset
from distnet.serving import server as serving
from distnet.serving.server import MOST_BODY_BYTES, MOST_REQUESTS, Server

PATIENCE = 120.0  # seconds, for an answer on a machine that others load
NUM_ODD = 1000
REFUSALS = {400, 403, 404, 405, 408, 411, 413, 414, 421, 431, 501, 503, 505}


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


SEVEN = npy(load_dataset().test.inputs[0])


def exchange(server: Server, sent: bytes, *, is_whole: bool = True) -> bytes:
    """What comes back for bytes on a connection of their own, b"" if it was closed or reset."""
    with socket.create_connection(server.server_address[:2], timeout=PATIENCE) as connection:
        received = b""
        try:
            connection.sendall(sent)
            if is_whole:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                received += piece
        except OSError as error:
            assert not isinstance(error, TimeoutError)
        return received


def request(
    server: Server,
    body: bytes = b"",
    *,
    method: str = "POST",
    path: str = "/predict",
    **headers: object,
) -> tuple[int, dict[str, str], bytes]:
    """Code, headers and body of the answer to a request as a browser or curl sends it."""
    host, port = server.server_address[:2]
    connection = http.client.HTTPConnection(str(host), int(port), timeout=PATIENCE)
    given = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    connection.request(method, path, body, given)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def error(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    assert answer[1]["Content-Type"] == "application/json"
    return answer[0], json.loads(answer[2])["error"]


def test_the_page_and_the_answers(server):
    code, headers, content = request(server, method="GET", path="/")
    assert (code, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert content.startswith(b"<!doctype html>")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    code, headers, content = request(server, SEVEN)
    assert (code, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(content)["class"] == "7"
    code, _, content = request(server, SEVEN, path="/layers")
    assert (code, len(json.loads(content)["layers"])) == (200, 3)


def test_head_has_no_body(server):
    code, headers, content = request(server, method="HEAD", path="/")
    assert (code, content) == (200, b"")
    assert int(headers["Content-Length"]) == len(server.page)


def test_no_path_is_looked_up(server):
    for path in ("/page.js", "/../server.py", "//etc/passwd", "/%2e%2e/x", "/predict/", "/?x", "*"):
        for method in ("GET", "POST"):
            code, says = error(request(server, b"x", method=method, path=path))
            assert (code, says) == (404, "expected GET / or POST /predict, POST /layers")
    assert error(request(server, method="GET", path="/predict"))[0] == 405
    assert error(request(server, b"x", path="/"))[0] == 405
    assert error(request(server, method="DELETE", path="/"))[0] == 501


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("LOCALHOST.:80", True),
        ("[::1]:8000", True),
        ("[fe80::1%25eth0]:8000", True),
        ("192.168.1.7:8000", True),
        ("mine.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8000", False),
        ("localhost:x", False),
        ("evil.example:127.0.0.1", False),
        ("", False),
        (":8000", False),
        ("[]", False),
    ],
)
def test_the_host_that_a_request_is_for(server, host, is_own):
    assert server.is_own_name(host) == is_own
    if host:
        code = request(server, SEVEN, Host=host)[0]
        assert code == (200 if is_own else 421)


def test_a_name_that_was_asked_for(reader):
    with Server("localhost", 0, "", "", {}) as server:
        assert server.is_loopback
    with Server("0.0.0.0", 0, "", "", {}) as server:
        assert not server.is_loopback
        assert server.is_own_name("127.0.0.1:1") and not server.is_own_name("pc.example")


def test_a_page_of_another_site_gets_no_answer(server):
    port = server.server_port
    own = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}
    assert request(server, SEVEN, **own)[0] == 200
    for origin in (
        "http://evil.example",
        "null",
        "http://localhost:1",
        f"https://localhost:{port}",
    ):
        code, says = error(request(server, SEVEN, **(own | {"Origin": origin})))
        assert code == 403 and origin in says
    assert exchange(server, b"POST /predict HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 421 ")
    twice = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert exchange(server, twice).startswith(b"HTTP/1.0 421 ")


@pytest.mark.parametrize(
    ("length", "code"),
    [
        ("", 411),
        ("Transfer-Encoding: chunked\r\n", 411),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: +5\r\n", 400),
        ("Content-Length: 1_0\r\n", 400),
        ("Content-Length: ٣\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        ("Content-Length: 0\r\n", 400),
        ("Content-Length: 99\r\n", 400),  # more than comes
        (f"Content-Length: {MOST_BODY_BYTES + 1}\r\n", 413),
        (f"Content-Length: {'9' * 5000}\r\n", 413),
    ],
)
def test_lengths(server, length, code):
    sent = f"POST /predict HTTP/1.1\r\nHost: localhost\r\n{length}\r\nabcde".encode()
    head, _, body = exchange(server, sent).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.0 {code} ".encode())
    assert json.loads(body)["error"]


def test_a_refusal_arrives_though_the_body_is_not_wanted(server):
    code, says = error(request(server, bytes(MOST_BODY_BYTES + 1)))
    assert (code, says[:32]) == (413, f"found {MOST_BODY_BYTES + 1} bytes, expected a")


def test_what_is_slow_is_ended(server, monkeypatch):
    monkeypatch.setattr(serving, "SECONDS", 0.2)
    assert exchange(server, b"POST /pre", is_whole=False) == b""
    half = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc"
    assert exchange(server, half, is_whole=False).startswith(b"HTTP/1.0 408 ")


def test_more_than_can_be_served_are_told_so(server):
    """Slow ones have taken all places; when they are gone there is place again."""
    address = server.server_address[:2]
    slow = [socket.create_connection(address, timeout=PATIENCE) for _ in range(MOST_REQUESTS)]
    for connection in slow:
        connection.sendall(b"GET / HT")
    answer = exchange(server, b"")
    assert answer == b"" or answer.startswith(b"HTTP/1.0 503 ")
    slow.pop().close()
    codes = Counter()
    while codes[200] == 0:  # as soon as the server has seen that it is gone
        answer = exchange(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        codes[int(answer[9:12] or 503)] += 1
    assert set(codes) <= {200, 503}
    for connection in slow:
        connection.close()


def test_a_bug_is_shown_and_the_next_question_answered(server, capsys):
    def break_down(body: bytes) -> dict[str, object]:
        raise RuntimeError("a bug")

    server.questions = {**server.questions, "/broken": break_down}
    assert error(request(server, b"x", path="/broken"))[0] == 500
    assert "RuntimeError: a bug" in capsys.readouterr().err
    assert request(server, SEVEN)[0] == 200


@pytest.mark.filterwarnings("ignore")  # as the command does: Pillow warns of what is damaged
def test_a_thousand_odd_requests(server, capsys):
    """Eight clients at a time; each gets a refusal, an answer, or a closed connection."""
    odd = [odd_request(random.Random(seed)) for seed in range(NUM_ODD)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda sent: exchange(server, sent), odd))
    codes = Counter(check(answer) for answer in answers)
    assert codes[0] < NUM_ODD // 4, "most are told what is wrong"
    assert len(codes) > 8, codes
    assert json.loads(request(server, SEVEN)[2])["class"] == "7"
    assert capsys.readouterr().err == ""


def check(answer: bytes) -> int:
    """The code of an answer, which is whole; 0 for a closed connection."""
    if not answer:
        return 0
    head, _, body = answer.partition(b"\r\n\r\n")
    code = int(head[9:12])
    assert code in {200, *REFUSALS}, answer[:300]
    if b"application/json" in head and body:
        assert ("error" in json.loads(body)) == (code != 200)
    return code


def odd_request(rng: random.Random) -> bytes:
    """A request that is wrong in one of many ways, sometimes in none."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.choice([0, 1, 10, 1000, 70_000]))
    method = rng.choice(["POST"] * 12 + ["GET", "HEAD", "PUT", "OPTIONS", "post", "", "G\0T"])
    path = rng.choice(
        ["/predict"] * 6 + ["/layers"] * 6 + ["/", "/x", "/" + "a" * 70_000, "..", ""]
    )
    version = rng.choice(["HTTP/1.1"] * 12 + ["HTTP/1.0", "HTTP/2.0", "HTTP/9", "FTP/1.1", ""])
    host = rng.choice(["localhost"] * 8 + ["127.0.0.1:1", "evil.example", "\xff", ""])
    body = odd_body(rng)
    length = rng.choice([len(body)] * 12 + [0, len(body) - 1, len(body) + 1, -1, 10**30, "x"])
    lines = [f"{method} {path} {version}", f"Host: {host}", f"Content-Length: {length}"]
    lines += rng.choice([[]] * 8 + [["X: y"] * 200, ["X: " + "y" * 70_000], [" folded"], ["\x01"]])
    rng.random() < 0.1 and rng.shuffle(lines)
    ending = rng.choice(["\r\n"] * 8 + ["\n", "\r"])
    whole = ending.join([*lines, "", ""]).encode("latin-1") + body
    return whole[: rng.randrange(len(whole))] if rng.random() < 0.1 else whole


def odd_body(rng: random.Random) -> bytes:
    """A picture, an array, or something near it."""
    whole = rng.choice([SEVEN, png(28, 28), png(200, 100), npy(np.zeros((3, 5), np.uint8))])
    kind = rng.randrange(6)
    if kind == 0:
        return whole
    if kind == 1:
        return whole[: rng.randrange(len(whole))]
    if kind == 2:
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 9)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        return bytes(damaged)
    if kind == 3:
        sizes = [0, 1, 5000, 60_000, 2**31]
        return png(rng.choice(sizes), rng.choice(sizes))
    if kind == 4:
        start = rng.choice(
            [b"GIF89a", b"BM", b"\xff\xd8\xff\xe0", b"II*\0", b"RIFF", b"%!PS", b"P5 "]
        )
        return start + rng.randbytes(rng.randrange(2000))
    return rng.randbytes(rng.choice([0, 1, 10, 1000]))


def png(width: int, height: int) -> bytes:
    """A PNG file that says it is so large, and holds 40 lines of it at most."""
    lines = zlib.compress(bytes(min(width + 1, 10_000)) * min(height, 40))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", header), (b"IDAT", lines), (b"IEND", b""))
    )


def test_any_text_may_be_a_host(server):
    @given(st.text(max_size=40))
    def check_name(text: str) -> None:
        assert server.is_own_name(text) in (True, False)

    check_name()
