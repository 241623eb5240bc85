"""The server of `distnet serve`: which requests are answered, and how much each may cost.

It is Python's own `http.server`, for one reader on the same machine: a page and two questions, of
which nothing is kept. A request has a limit of bytes and of seconds, there is a limit of requests
at a time, and no path in one is ever looked up among files. Whatever comes is answered in JSON, or
the connection is closed, and the next one is served.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from distnet.base.errors import DataError
from distnet.base.output import write_now

MOST_BODY_BYTES = 16 << 20  # a photograph
SECONDS = 20.0  # for a request to arrive, and for an answer to leave
MOST_REQUESTS = 32  # at a time; more are told to come again
UNREAD_BYTES = 64 << 20  # of a body that is refused: read, so that the refusal arrives,
LINGER_SECONDS = 2.0  # for so long
JSON, HTML = "application/json", "text/html; charset=utf-8"

Answering = Callable[[bytes], Mapping[str, Any]]


class Server(ThreadingHTTPServer):
    """Serves a page at `/`, and at each path of `questions` an answer to the body of a POST.

    host, port: where it listens; port 0 is any free one. policy: the page's content security
    policy. Raises OSError for a place that cannot be listened at.
    """

    request_queue_size = 64
    daemon_threads = False  # the end waits for them, after it has ended their connections

    def __init__(
        self, host: str, port: int, page: str, policy: str, questions: Mapping[str, Answering]
    ) -> None:
        self.page, self.policy, self.questions = page.encode(), policy, questions
        self.names = {"localhost", host.lower()}
        self._free = threading.BoundedSemaphore(MOST_REQUESTS)
        self._open: dict[int, socket.socket] = {}
        self._changes = threading.Lock()  # of what is open
        (found, *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.address_family = found[0]
        super().__init__(found[4][:2], Request)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        """As the parent does, which also asks the network for the host's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        return ipaddress.ip_address(str(self.server_address[0])).is_loopback

    def is_own_name(self, host: str) -> bool:
        """Whether a request for `host`, a name with or without a port, is meant for this server.

        A page of another site can give its own name this machine's address, and then read what this
        server says to that name (DNS rebinding). It cannot do so with an address.
        """
        name, _, port = host.rpartition(":")
        if not (name and port.isascii() and port.isdigit()):
            name = host
        name = name.lower().removesuffix(".")
        if name.startswith("[") and name.endswith("]"):
            name = name[1:-1]
        return name in self.names or _is_address(name)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Gives a connection a thread of its own, as long as there are not too many."""
        if not self._free.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.settimeout(0)
                request.send(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n")
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """A request, in its thread."""
        with self._changes:
            self._open[id(request)] = request
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection."""
        with self._changes:
            self._open.pop(id(request), None)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Ends all connections, slow ones too, and waits for their threads."""
        with self._changes:
            for connection in self._open.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is nobody's fault here; anything else is a bug, and is shown."""
        if not isinstance(sys.exception(), OSError):
            write_now(sys.stderr, traceback.format_exc())


class Request(BaseHTTPRequestHandler):
    """One connection with one request, as HTTP/1.0 has it."""

    server: Server
    server_version, sys_version = "distnet", ""
    default_request_version = "HTTP/1.0"  # answers to what is no HTTP have headers too

    def setup(self) -> None:
        """As the parent does, but a request has to arrive as a whole within SECONDS."""
        super().setup()
        self.rfile.close()
        self._hurried = _Hurried(self.connection, SECONDS)
        self.rfile = io.BufferedReader(self._hurried)

    def do_GET(self) -> None:
        """The page."""
        if not self._is_meant_for_us():
            return
        if self.path == "/":
            self._send(HTTPStatus.OK, self.server.page, HTML)
        elif self.path in self.server.questions:
            how = f"curl --data-binary @digit.png http://{self.headers['Host']}{self.path}"
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, f"expected a POST with a picture: {how}")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, self._what_there_is())

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        """A question, whose body is a picture."""
        if not self._is_meant_for_us():
            return
        answer = self.server.questions.get(self.path)
        if answer is None:
            code = HTTPStatus.METHOD_NOT_ALLOWED if self.path == "/" else HTTPStatus.NOT_FOUND
            self._refuse(code, self._what_there_is())
            return
        body = self._body()
        if body is None:
            return
        try:
            found = answer(body)
        except DataError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except Exception:  # a bug, which shall not keep the next question from being answered
            write_now(sys.stderr, traceback.format_exc())
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug in distnet: see its terminal")
        else:
            self._send(HTTPStatus.OK, json.dumps(found).encode() + b"\n", JSON)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the parent says of a request that is no HTTP."""
        self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: one line for every stroke of a pen would bury the others."""

    def _is_meant_for_us(self) -> bool:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not self.server.is_own_name(hosts[0]):
            found = ", ".join(hosts) or "none"
            self._refuse(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"found host {found!r:.80}, expected localhost, an address, or what --host says",
            )
            return False
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{hosts[0]}":
            self._refuse(HTTPStatus.FORBIDDEN, f"found a question of the page {origin!r:.80}")
            return False
        return True

    def _body(self) -> bytes | None:
        """The body, None if there is none that is wanted: then the refusal is sent already."""
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "expected Content-Length and a picture")
            return None
        length = lengths[0].strip()
        if len(lengths) > 1 or not (length.isascii() and length.isdigit()):
            self._refuse(HTTPStatus.BAD_REQUEST, f"found Content-Length {lengths!r:.80}")
            return None
        if len(length) > 18 or int(length) > MOST_BODY_BYTES:
            most = f"expected at most {MOST_BODY_BYTES >> 20} MiB; make the picture smaller"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"found {length:.18} bytes, {most}")
            return None
        try:
            body = self.rfile.read(int(length))
        except TimeoutError:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"expected the picture within {SECONDS:.0f} s")
            return None
        if len(body) < int(length):
            self._refuse(HTTPStatus.BAD_REQUEST, f"found {len(body)} bytes, expected {length}")
            return None
        if not body:
            self._refuse(HTTPStatus.BAD_REQUEST, "found no bytes, expected a picture")
            return None
        return body

    def _what_there_is(self) -> str:
        questions = ", ".join(f"POST {path}" for path in self.server.questions)
        return f"expected GET / or {questions}"

    def _refuse(self, code: HTTPStatus, why: str) -> None:
        self._send(code, json.dumps({"error": why}).encode() + b"\n", JSON)
        self._read_rest()

    def _send(self, code: HTTPStatus, content: bytes, kind: str) -> None:
        self.connection.settimeout(SECONDS)
        self.send_response(code)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Content-Security-Policy": f"{self.server.policy}; frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _read_rest(self) -> None:
        """What is still coming: closing a connection with unread bytes would take the answer back.

        Its sender is told at once that no answer follows.
        """
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self._hurried.have(LINGER_SECONDS)
            rest = UNREAD_BYTES
            while rest > 0 and (piece := self.rfile.read1(1 << 16)):
                rest -= len(piece)


class _Hurried(io.RawIOBase):
    """Reads from a connection for so many seconds, all in all; then it raises TimeoutError."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self.have(seconds)

    def have(self, seconds: float) -> None:
        """There are so many seconds from now on."""
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        """As a BufferedReader asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What has come, at least one byte of it, or 0 at the end."""
        self._connection.settimeout(max(0.001, self._until - time.monotonic()))
        return self._connection.recv_into(buffer)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
