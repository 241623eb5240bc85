"""A network that knows digits, and a server that shows it, for the tests of this folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import distnet
from distnet.nn import Conv2d, Linear, Network, ReLU
from distnet.serving.page import page
from distnet.serving.reader import Reader
from distnet.serving.server import Server


@pytest.fixture(scope="session")
def reader() -> Reader:
    """Of a network that gets nine of ten digits right: seconds of training."""
    digits = distnet.load_dataset("mnist")
    network = Network([Conv2d(8, 5, stride=2), ReLU(), Linear(10)], (1, 28, 28))
    images, labels = (array[:6000] for array in digits.train)
    distnet.fit(network, images, labels, steps=120, batch_size=100, optimizer="adam", lr=0.005)
    network.classes = digits.classes
    right = network.predict(digits.test.inputs[:500]).argmax(axis=1) == digits.test.targets[:500]
    assert np.mean(right) > 0.9
    return Reader(network, "digits")


@contextmanager
def serving(reader: Reader, host: str = "127.0.0.1") -> Iterator[Server]:
    """A server in a thread of its own, at any free port."""
    html, policy = page(reader, "a network", "/layers")
    questions = {"/predict": reader.predict, "/layers": reader.layers}
    with Server(host, 0, html, policy, questions) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(reader: Reader) -> Iterator[Server]:
    with serving(reader) as running:
        yield running
