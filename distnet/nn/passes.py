"""Which passes a network has made: it keeps what backward needs of the last one alone."""

from __future__ import annotations

from distnet.base.arrays import Shape

REMEDY = (
    "since a network keeps the values of one pass: put what belongs together through it in one, "
    "np.concatenate([x1, x2]), or go forward again right before each backward, and add up copies "
    "of parameters.grads"
)


class Passes:
    """The passes of one network since its last backward, and whether the next one can be right.

    Which pass a gradient belongs to is not to be seen. So backward is refused where it cannot be
    that of the last one, or where it is the second after several.
    """

    def __init__(self) -> None:
        self._in_training = self._in_evaluation = 0  # forward passes since the last backward
        self._last_was_in_training = self._has_gone_back = False
        self._shape: Shape = ()  # of the outputs of the last one

    def went_forward(self, shape: Shape, in_training: bool, alone: bool) -> None:
        """A forward pass, whose outputs have that shape.

        alone: whoever makes it means to go back through no earlier one, and so it counts as first.
        """
        if self._has_gone_back:
            self._in_training = self._in_evaluation = 0
            self._has_gone_back = False
        if in_training:
            self._in_training = 1 if alone else self._in_training + 1
        else:
            self._in_evaluation = 1 if alone else self._in_evaluation + 1
        self._last_was_in_training, self._shape = in_training, shape

    def go_back(self, shape: Shape) -> None:
        """A backward pass from a gradient of that shape; raises ValueError if it may not be."""
        num = self._in_training if self._last_was_in_training else self._in_evaluation
        if not num:
            raise ValueError("backward: found no forward pass before it, expected one")
        if self._in_training and not self._last_was_in_training:
            raise ValueError(
                "backward: found a pass in evaluation after the one in training, expected none, "
                f"{REMEDY}"
            )
        if self._has_gone_back and num > 1:
            raise ValueError(
                f"backward: found a second one after {num} forward passes, expected one, {REMEDY}"
            )
        if shape != self._shape:
            raise ValueError(
                f"backward: found a gradient of shape {shape}, expected {self._shape}, that of the "
                "outputs of the last forward pass"
            )
        self._has_gone_back = True
