"""`distnet serve RUN_OR_FILE`: a page on which digits are drawn, and JSON for programs.

The page shows what the network thinks while something is drawn, and what each of its layers
answers. It is served to this machine alone, until Ctrl-C. Exit codes: 0 ended by Ctrl-C or SIGTERM,
2 wrong usage or input.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from distnet.base.blas import one_blas_thread
from distnet.base.command import one_line
from distnet.base.options import argument, option, parse_options, with_default
from distnet.base.output import write_now
from distnet.predict import PredictOptions, preparation
from distnet.serving.page import page
from distnet.serving.reader import Reader
from distnet.serving.server import Server
from distnet.training.files import model_file
from distnet.training.known_answer import check_machine

ELSEWHERE = "192.0.2.1", 9  # an address for documentation (RFC 5737): nothing is sent to it


@dataclass(frozen=True)
class ServeOptions:
    """Serves a page on which digits are drawn, and the network's answers as JSON."""

    model: str = argument("directory of a run, checkpoint or model file", "RUN_OR_FILE", path=True)
    port: int = option(
        8000,
        "where it listens; 0: any free port",
        group="server",
        metavar="N",
        limits={">=": 0, "<=": 65_535},
    )
    host: str = option(
        "127.0.0.1",
        "the address or name at which it listens: this machine alone can reach it; 0.0.0.0: "
        "everybody in the network can",
        group="server",
        metavar="ADDRESS",
    )
    pictures: str = with_default(PredictOptions, "pictures", "auto")


@one_line(ValueError, OSError)
def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    options = parse_options(ServeOptions, argv, "distnet serve")
    checkpoint = model_file.read(options.model)
    network = model_file.classifier_of(checkpoint, options.model)
    if network.arithmetic.rounds:
        check_machine()
    reader = Reader(network, preparation(options.pictures, checkpoint.model, network.input_shape))
    kind, file = checkpoint.config.get("model"), Path(options.model).resolve().name
    name = f"{kind} of {file}" if kind else file
    html, policy = page(reader, name, "/layers")
    questions = {"/predict": reader.predict, "/layers": reader.layers}
    try:
        server = Server(options.host, options.port, html, policy, questions)
    except OSError as error:
        raise OSError(
            f"found no way to listen at {options.host}, port {options.port} "
            f"({error.strerror or error}), expected a free one; --port 0 takes any"
        ) from None
    with server, one_blas_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever sends odd pictures shall not fill the terminal
        write_now(sys.stdout, f"distnet: {name} at {_addresses(server)} (Ctrl-C ends it)\n")
        if not server.is_loopback:
            write_now(sys.stderr, f"distnet: warning: {options.host}: {OPEN}\n")
        _serve_until_signal(server)
    write_now(sys.stdout, "\ndistnet: ended\n")
    return 0


def _serve_until_signal(server: Server) -> None:
    """Answers requests until Ctrl-C, or SIGTERM of a batch system, between two of them."""

    def end(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=server.shutdown).start()  # it waits for this thread

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a shell
            signal.signal(number, end)
    server.serve_forever()


OPEN = (
    "everybody who can reach this machine over the network can use the page and see what it "
    "answers; nothing is encrypted, and nobody is asked for a password"
)


def _addresses(server: Server) -> str:
    """Where the page is: for a browser on this machine and, if it may, one elsewhere."""
    host = str(server.server_address[0])
    places = {"0.0.0.0": ["127.0.0.1", _own_address()], "::": ["::1"]}.get(host, [host])
    urls = (f"[{each}]" if ":" in each else each for each in places if each)
    return " and ".join(f"http://{each}:{server.server_port}/" for each in urls)


def _own_address() -> str:
    """The address of this machine in its network, "" if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(ELSEWHERE)
        except OSError:
            return ""
        return str(probe.getsockname()[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
