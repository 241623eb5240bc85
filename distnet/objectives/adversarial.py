"""Two networks against each other: one makes images, one tells them from real ones (book 8.5.2)."""

from __future__ import annotations

from functools import partial

import numpy as np

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array
from distnet.base.errors import DataError
from distnet.base.keys import MicroBatch, Purpose, stream
from distnet.nn import arguments
from distnet.nn.joining import joined
from distnet.nn.losses import binary_cross_entropy
from distnet.nn.network import Network
from distnet.objectives.objective import Objective, Ready


@portable
class Adversarial(Objective):
    """Trains a generator and a discriminator at the same time, on images alone.

    The generator makes images `(N, C, H, W)`, from -1 to 1, of noise `(N, K)`; the discriminator
    gives a logit `(N, 1)`: whether an image is a real one. With s the logits, the losses are

        discriminator: BCE(s(real), real_label) + BCE(s(fake), 0)
        generator:     BCE(s(fake), 1)

    (Goodfellow et al. 2014, arXiv:1406.2661, section 3, the generator's in the form that does not
    saturate; real labels below 1 as in Salimans et al. 2016, arXiv:1606.03498, section 3.4.) Both
    networks are moved by the same step, each by the gradient of its own loss, both taken where the
    networks are: one sum over the ranks, one optimizer. Real and fake images pass the discriminator
    one after the other, so that BatchNorm sees them apart.

    Noise is normal and keyed by (seed, step, micro-batch). The targets are not looked at: without
    labels, `fit` is given the images once more. Metrics: loss, that of both, and which parts of
    real and of fake images are told right.
    """

    counts = ("real ones told", "fakes told")

    def __init__(
        self, generator: Network, discriminator: Network, *, real_label: float = 0.9
    ) -> None:
        shapes = generator.output_shape, discriminator.input_shape, discriminator.output_shape
        if shapes[0] != shapes[1] or shapes[2] != (1,):
            raise ValueError(
                f"Adversarial: found a generator of images {shapes[0]} and a discriminator from "
                f"{shapes[1]} to {shapes[2]}, expected one from {shapes[0]} to (1,)"
            )
        accepts = "a number > 0 and <= 1", lambda label: 0 < label <= 1
        self.real_label = arguments.real("Adversarial", "real_label", real_label, *accepts)
        self.generator, self.discriminator = generator, discriminator
        self.parameters = joined(generator=generator, discriminator=discriminator)
        self._loss = partial(binary_cross_entropy, arithmetic=self.parameters.arithmetic)

    def as_input(self, inputs: Array) -> Array:
        """Pixels from -1 to 1: bytes 0 to 255 as they mean it, floats of 0 to 1."""
        if inputs.dtype != np.uint8 and not (inputs.min() >= 0 and inputs.max() <= 1):
            raise DataError(
                f"Adversarial: found floats from {inputs.min():.4g} to {inputs.max():.4g}, expected"
                " 0 to 1, which become -1 to 1 here"
            )
        x = self.discriminator.as_input(inputs, copy=False)
        np.multiply(x, 2, out=x)
        return np.subtract(x, 1, out=x)

    def gradients(
        self,
        x: Array,
        targets: Array,
        at: MicroBatch,
        divisor: float | None = None,
        ready: Ready | None = None,
    ) -> Array:
        divisor = self.divisor(targets) if divisor is None else divisor
        discriminator, own = self.discriminator, self.discriminator.parameters
        scale = np.asarray(1 / divisor, own.dtype)
        fakes = self.generator.forward(self.noise(at, len(x)), at, copy=False)

        real = discriminator.forward(x, at, copy=False)  # (N, 1)
        loss, dy = self._loss(real, self.real_label)
        told = int(np.count_nonzero(real > 0))
        discriminator.backward(dy * scale)
        grads, statistics = own.grads.copy(), own.batch_statistics.copy()

        fake = discriminator.forward(fakes, at, copy=False)
        loss_of_fakes, dy = self._loss(fake, 0.0)
        loss_of_generator, dy_of_generator = self._loss(fake, 1.0)
        fakes_told = int(np.count_nonzero(fake < 0))
        discriminator.backward(dy * scale)
        grads += own.grads
        dx = discriminator.backward(dy_of_generator * scale, need_dx=True, copy=False)

        own.grads[...] = grads
        own.batch_statistics[...] = (statistics + own.batch_statistics) / 2
        if ready is not None:
            ready(self.parameters.starts["discriminator"])
        assert dx is not None
        self.generator.backward(dx, ready=ready)
        return self.sums((loss + loss_of_fakes + loss_of_generator) / divisor, told, fakes_told)

    def measure(self, x: Array, targets: Array) -> Array:
        """With noise of its own for each set, the same in every evaluation."""
        fakes = self.generator.forward(self.noise(MicroBatch(), len(x)), copy=False)
        real = self.discriminator.forward(x)
        fake = self.discriminator.forward(fakes, copy=False)
        loss = 0.0
        for logits, target in ((real, self.real_label), (fake, 0.0), (fake, 1.0)):
            loss += self._loss(logits, target)[0]
        told = int(np.count_nonzero(real > 0)), int(np.count_nonzero(fake < 0))
        return self.sums(loss, *told)

    def metrics(self, loss: float, counts: Array, num_samples: int) -> dict[str, float]:
        real, fake = (float(count) / num_samples for count in counts)
        return {"loss": loss, "real": real, "fake": fake}

    def noise(self, at: MicroBatch, n: int) -> Array:
        """`(n, K)`, standard normal."""
        bits, shape = stream(at.seed, Purpose.NOISE, at.step, at.number), self.generator.input_shape
        if self.parameters.arithmetic.rounds:
            return self.parameters.arithmetic.generator(bits).standard_normal((n, *shape))
        z = np.random.Generator(bits).standard_normal((n, *shape), np.float32)
        return z.astype(self.generator.dtype, copy=False)
