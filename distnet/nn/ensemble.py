"""Several networks that answer together: the mean of their probabilities (book section 8.1.2).

Networks that were trained from different seeds make different mistakes, which the mean evens out in
part. It is computed by `distnet evaluate` and `predict`, and anywhere else in place of a network.
"""

from __future__ import annotations

from collections.abc import Iterable

from distnet.base.arrays import Array
from distnet.nn.losses import log_mean_softmax
from distnet.nn.network import Network


class Ensemble:
    """Trained classifiers of the same inputs and classes.

    Its outputs `(N, K)` are the logarithms of the mean of the probabilities of its networks, so
    that `softmax` of them is that mean; what is done with the logits of a network can be done with
    them. An ensemble is not trained: its networks are, one by one. Raises ValueError for no
    network, and for networks that do not answer the same question.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self.networks = tuple(networks)
        if not self.networks:
            raise ValueError("Ensemble: found no network, expected at least one")
        first, *others = self.networks
        if len(first.output_shape) != 1:
            raise ValueError(
                f"Ensemble: found outputs of shape {first.output_shape}, expected (K,), one for "
                "each class"
            )
        for number, other in enumerate(others, 1):
            try:
                expect_alike(first, other)
            except ValueError as error:
                raise ValueError(f"Ensemble: network {number}: {error}") from None
        self.input_shape, self.output_shape = first.input_shape, first.output_shape
        self.classes, self.arithmetic = first.classes, first.arithmetic

    def predict(self, x: object) -> Array:
        """The outputs `(N, K)` in evaluation mode; see `Network.predict` for x."""
        return self._mean([network.predict(x) for network in self.networks])

    def forward(self, x: Array) -> Array:
        """The outputs `(N, K)` for a micro-batch of inputs as a data set holds them, at once."""
        return self._mean([net.forward(net.as_input(x, copy=False)) for net in self.networks])

    def _mean(self, logits: list[Array]) -> Array:
        return log_mean_softmax(logits, self.arithmetic)


def expect_alike(first: Network, other: Network) -> None:
    """Raises ValueError unless both answer the same question, in the same arithmetic."""
    for name in ("input_shape", "output_shape", "classes", "arithmetic"):
        found, expected = getattr(other, name), getattr(first, name)
        if repr(found) != repr(expected):
            raise ValueError(
                f"found {name} {found!r:.80}, expected that of the first network, {expected!r:.80}"
            )
