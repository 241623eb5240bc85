"""A network: a chain of layers over flat parameter vectors, with the loss at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch, Purpose, stream
from distnet.nn.layer import Layer
from distnet.nn.losses import SoftmaxCrossEntropy, count_correct
from distnet.nn.memory import Memory
from distnet.nn.parameters import flatten_parameters, flatten_statistics, slots
from distnet.nn.sequential import Sequential

Ready = Callable[[int], None]


class Network:
    """Layers built for one input shape, trained with softmax cross-entropy.

    values, grads: all parameters and their gradients, flat `(P,)`, in forward order.
    statistics, batch_statistics: running averages, one micro-batch's part of them, `(S,)` float64.
    slots, statistic_slots: the name, place and shape of every array in those vectors.
    decayed: `(P,)`, 1 where weight decay applies (weights), 0 elsewhere (biases, gamma, beta).

    The initial values are a pure function of the seed. After writing into `values`, call `refresh`.
    """

    def __init__(
        self,
        layers: Iterable[Layer],
        input_shape: Shape,
        *,
        seed: int = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.body = Sequential(layers)
        self.input_shape, self.dtype = input_shape, np.dtype(dtype)
        self.output_shape = self.body.build(input_shape, dtype)
        parameters, statistics = list(self.body.parameters()), list(self.body.statistics())
        self.slots, self.statistic_slots = slots(parameters), slots(statistics)
        self.values, self.grads = flatten_parameters(parameters, dtype)
        self.statistics, self.batch_statistics = flatten_statistics(statistics)
        self.decayed = np.repeat(
            np.array([p.decays for _, p in parameters], dtype), [p.size for _, p in parameters]
        )
        self._momenta = np.repeat(
            [s.momentum for _, s in statistics], [s.size for _, s in statistics]
        )
        self._starts = self._first_offsets()
        self.loss = SoftmaxCrossEntropy()
        self._initialize(seed)

    def predict(self, x: Array) -> Array:
        """The logits `(N, K)` in evaluation mode; the next call overwrites them."""
        return self._logits(x)

    def loss_and_gradients(
        self,
        x: Array,
        labels: Array,
        at: MicroBatch,
        count: int | None = None,
        ready: Ready | None = None,
    ) -> tuple[float, int]:
        """One forward and backward pass over a micro-batch: fills `grads` and `batch_statistics`.

        Returns the loss (the sum over the micro-batch divided by `count`, the size of the global
        batch) and the number of correct predictions. During backward, `ready(start)` says that
        `grads[start:]` is final.
        """
        logits = self._logits(x, at)
        loss = self.loss.forward(logits, labels, count)
        correct = count_correct(logits, labels)
        after = None if ready is None else lambda layer: ready(self._starts[layer])
        self.body.backward(self.loss.backward(), need_dx=False, after=after)
        return loss, correct

    def evaluate(self, x: Array, labels: Array) -> tuple[float, int]:
        """The summed loss and the number of correct predictions in evaluation mode."""
        logits = self.predict(x)
        return self.loss.forward(logits, labels, count=1), count_correct(logits, labels)

    def update_statistics(self, batch_sums: Array) -> None:
        """Moves the running averages towards the global batch's sums of `batch_statistics`."""
        self.statistics += (1 - self._momenta) * (batch_sums - self.statistics)

    def refresh(self) -> None:
        """To be called after every change of `values`."""
        self.body.refresh()

    def inbox(self, n: int) -> Array | None:
        """Where the first layer would like to find a batch of n; None: anywhere."""
        return self.body.inbox(n)

    def named_values(self) -> dict[str, Array]:
        """Every parameter by name, as views: conv weights (F, C, KH, KW), linear ones (in, out)."""
        return {s.name: self.values[s.start : s.stop].reshape(s.shape) for s in self.slots}

    def named_statistics(self) -> dict[str, Array]:
        """Every running statistic by name, as views."""
        return {s.name: self.statistics[s.start : s.stop] for s in self.statistic_slots}

    def load_values(self, named: Mapping[str, Array]) -> None:
        """Copies parameters by name; raises ValueError for a missing or misshapen one."""
        for name, value in self.named_values().items():
            found = named[name].shape if name in named else "nothing"
            if found != value.shape:
                raise ValueError(f"parameter {name}: found {found}, expected shape {value.shape}")
            np.copyto(value, named[name])
        self.refresh()

    def name_at(self, index: int) -> str:
        """The parameter to which element `index` of the flat vector belongs."""
        return next(s.name for s in self.slots if s.start <= index < s.stop)

    def _logits(self, x: Array, at: MicroBatch | None = None) -> Array:
        # Otherwise a layer might broadcast one channel to many without a word.
        if x.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, self.input_shape))
            raise ValueError(f"input: found shape {x.shape}, expected (N, {expected})")
        return self.body.forward(x, at=at)

    def _initialize(self, seed: int) -> None:
        self.body.use(Memory())
        for index, layer in enumerate(self.body.leaves()):
            layer.index = index
        for index, (_, parameter) in enumerate(self.body.parameters()):
            rng = np.random.Generator(stream(seed, Purpose.INIT, layer=index))
            parameter.value[...] = parameter.init(rng, parameter.shape)

    def _first_offsets(self) -> dict[Layer, int]:
        """For each layer of the chain, where in the flat vector its parameters begin."""
        offsets, start = {}, 0
        for layer in self.body.layers:
            offsets[layer] = start
            start += sum(parameter.size for _, parameter in layer.parameters())
        return offsets
