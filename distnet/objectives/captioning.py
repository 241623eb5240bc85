"""What a picture shows, in a sentence: softmax cross-entropy of words (book section 8.4.3)."""

from __future__ import annotations

import numpy as np

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array
from distnet.base.errors import DataError
from distnet.base.keys import MicroBatch
from distnet.data.scenes import PADDING
from distnet.models.nic import decoder_of
from distnet.nn.layers.captioning import STOP
from distnet.nn.losses import PixelCrossEntropy, binary_cross_entropy
from distnet.nn.network import Network
from distnet.objectives.objective import Objective, Ready


@portable
class Captioning(Objective):
    """Trains a network that ends in a `CaptionDecoder` on sentences `(N, T)`, numbers of words.

    A sentence ends with word 0 and is filled up with -1, `data.scenes.PADDING`. While it is
    trained, the network reads in front of each place the words that are right there (teacher
    forcing); no gradient comes from where there is -1.

    The loss of a batch is the cross-entropy of all its words and, `presence` times, the binary
    cross-entropy of which words occur in a sentence at all, summed over the vocabulary; both
    divided by the number of words. How many there are is counted in the whole batch before it is
    divided, since micro-batches have more of them or fewer. The second term stands for what NIC has
    from ImageNet, features that can tell things apart: a sentence teaches that slowly, which has to
    be built up to the word in question.

    Metrics: loss, word_accuracy, how many words are right with the right ones in front, and
    exact_match, how many sentences are right as a whole: these are the ones that the network also
    says by itself, always taking the likeliest word, since up to a first mistake both read the
    same. The score is exact_match.
    """

    counts = ("words", "right", "exact")

    def __init__(self, network: Network, *, presence: float = 0.5) -> None:
        if not presence >= 0:
            raise ValueError(f"Captioning: found presence {presence!r}, expected at least 0")
        self.decoder = decoder_of(network)
        self.network, self.parameters = network, network.parameters
        self.presence = presence
        self.loss = PixelCrossEntropy(PADDING, arithmetic=network.arithmetic)

    def as_input(self, inputs: Array) -> Array:
        return self.network.as_input(inputs, copy=False)

    def gradients(
        self,
        x: Array,
        targets: Array,
        at: MicroBatch,
        divisor: float | None = None,
        ready: Ready | None = None,
    ) -> Array:
        divisor = self.divisor(targets) if divisor is None else divisor
        logits = self._follow(x, targets, at)
        loss, of_presence = self._compared(logits, targets, divisor)
        dy = np.empty_like(logits)
        dy[:, :, 0] = of_presence
        dy[:, :, 1:] = self.loss.backward()[:, :, 0]
        self.network.backward(dy, ready=ready)
        return self.sums(loss, *self._counted(targets))

    def measure(self, x: Array, targets: Array) -> Array:
        loss, _ = self._compared(self._follow(x, targets, None), targets, 1)
        return self.sums(loss, *self._counted(targets))

    def divisor(self, targets: Array) -> float:
        return self.loss.weight_of(targets)

    def metrics(self, loss: float, counts: Array, num_samples: int) -> dict[str, float]:
        words, right, exact = counts.tolist()
        return {
            "loss": loss,
            "word_accuracy": right / max(1.0, words),
            "exact_match": exact / num_samples,
        }

    def score(self, metrics: dict[str, float]) -> float:
        return metrics["exact_match"]

    def _follow(self, x: Array, targets: Array, at: MicroBatch | None) -> Array:
        """The logits `(N, V, 1 + T)` with the right words in front of each place."""
        check_sentences(targets, self.decoder.num_words, self.decoder.length)
        self.decoder.given = targets
        try:
            return self.network.forward(x, at, copy=False)
        finally:
            self.decoder.given = None

    def _compared(self, logits: Array, targets: Array, divisor: float) -> tuple[float, Array]:
        """The loss, and its gradient by the logits of which words occur, `(N, V)`."""
        # A sentence is an image of one row: a logit for each word and place.
        loss = self.loss.forward(logits[:, :, None, 1:], targets[:, None], divisor)
        words = np.arange(logits.shape[1])
        occurs = (targets[:, :, None] == words).any(axis=1)  # (N, V)
        arithmetic = self.network.arithmetic
        of_presence, gradient = binary_cross_entropy(logits[:, :, 0], occurs, arithmetic)
        factor = self.presence / divisor
        return loss + factor * of_presence, gradient * gradient.dtype.type(factor)

    def _counted(self, targets: Array) -> tuple[int, int, int]:
        """How many words there are, how many of them and how many whole sentences are right."""
        is_word = targets != PADDING
        right = (self.loss.predicted[:, 0] == targets) & is_word
        whole = (right == is_word).all(axis=1)
        return tuple(map(np.count_nonzero, (is_word, right, whole)))  # type: ignore[return-value]


def check_sentences(sentences: Array, num_words: int, length: int) -> None:
    """Raises DataError unless they are `(N, length)`, words, a stop and `PADDING` from there on.

    Only words that fill the length need no stop: elsewhere a sentence without it would count as
    right of a network that talks on.
    """
    if sentences.shape[1:] != (length,) or sentences.dtype.kind not in "iu":
        raise DataError(
            f"sentences: found {sentences.dtype} of shape {sentences.shape}, expected the "
            f"whole numbers of words, (N, {length})"
        )
    ended = sentences[:, :-1] <= STOP  # so that no word can follow
    wrong = (sentences < PADDING).any(axis=1) | (sentences >= num_words).any(axis=1)
    wrong |= (sentences[:, 0] == PADDING) | (ended != (sentences[:, 1:] == PADDING)).any(axis=1)
    if wrong.any():
        raise DataError(
            f"sentences: found {sentences[wrong][0].tolist()}, expected words from 1 to "
            f"{num_words - 1}, {STOP} behind the last one, and {PADDING} from there on"
        )
