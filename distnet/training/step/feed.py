"""From the indices of a micro-batch to the arrays that an objective works on.

Pixels go straight into the first layer's inbox: gathered as bytes, augmented, and scaled to [0, 1]
on the way into float32, one copy each. The random bits are keyed by (seed, step, micro-batch), so
the pixels do not depend on the rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distnet.base.arrays import Array, read_only, samples_of
from distnet.base.images import large_floats_hint
from distnet.base.keys import MicroBatch, Purpose, Words
from distnet.objectives import Objective

Augment = Callable[[Array, Array], Array]


class Feed:
    """Micro-batches of samples, inputs `(N, ...)` and targets `(N, ...)`, ready for an objective.

    augment(images, bits): new images from those of a micro-batch and a random uint64 for each.
    """

    def __init__(
        self, objective: Objective, inputs: Any, targets: Any, augment: Augment | None = None
    ) -> None:
        self.objective, self.inputs, self.targets = objective, inputs, targets
        self.augment = augment
        self._words = Words(Purpose.AUGMENT)

    def training(self, samples: Array, at: MicroBatch) -> tuple[Array, Any]:
        """The samples with those indices, augmented, and their targets."""
        x = self.objective.as_input(self.augmented(samples, at))
        return x, samples_of(self.targets, samples)

    def group(self, groups: Sequence[Array], at: Sequence[MicroBatch]) -> tuple[Array, Any]:
        """The samples of several micro-batches one after another, augmented, and their targets.

        The inputs are as the data set has them, or what augmentation made of them: where that is
        not alike in all, as the network reads them.
        """
        samples = np.concatenate(groups)
        targets = samples_of(self.targets, samples)
        if self.augment is None:
            return samples_of(self.inputs, samples), targets
        pairs = zip(groups, at, strict=True)
        parts = [np.asarray(self.augmented(*pair)) for pair in pairs]
        if len({(part.dtype, part.shape[1:]) for part in parts}) > 1:  # bytes mean 0 to 1
            parts = [np.array(self.objective.as_input(part)) for part in parts]
        return np.concatenate(parts), targets

    def augmented(self, samples: Array, at: MicroBatch) -> Array:
        """Their inputs, augmented, as the data set has them."""
        inputs = samples_of(self.inputs, samples)
        if self.augment is None:
            return inputs
        augmented = self.augment(inputs, self.words(samples, at))
        found = np.asarray(augmented)
        if found.shape[:1] != samples.shape:
            what = f"{len(found)} images" if found.ndim else type(augmented).__name__
            raise ValueError(f"augment: found {what}, expected {len(samples)} images")
        if inputs.dtype == np.uint8 and large_floats_hint(found):
            raise ValueError(
                f"augment: found {found.dtype} up to {found.max():.4g} of bytes, expected uint8, "
                "which means 0 to 1, or floats from 0 to 1"
            )
        return augmented

    def words(self, samples: Array, at: MicroBatch) -> Array:
        """The random words of their augmentation, uint64 `(N,)`."""
        return self._words.draw(at, len(samples))

    def evaluation(self, samples: slice) -> tuple[Array, Any]:
        """The samples as they are, to be read: no copies, as those for training."""
        inputs, targets = (
            read_only(part) if isinstance(part, np.ndarray) else part
            for part in (self.inputs[samples], self.targets[samples])
        )
        return self.objective.as_input(inputs), targets
