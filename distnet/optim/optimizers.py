"""Optimizers turn a gradient into the next parameters: SGD and its well-known descendants.

All vectors are flat, shape `(size,)`. The rules here work on each element alone, so cutting the
vectors anywhere and giving every piece its own optimizer leads to the same bits; `layerwise.py` has
rules that look at whole arrays. `training/trainer.py` calls `step` once per global batch.

In the rules below p are the parameters, g the gradient, lr the learning rate of this update, t = 1,
2, ... its number; every other vector starts at zero.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import FLOAT, Arithmetic, portable
from distnet.base.options import Option, check

Vector = np.ndarray
State = Sequence[np.ndarray]
Factors = Sequence[float]  # or arrays () of a device
Segment = tuple[int, int]  # [start, stop)

BLOCK = 65536  # elements; longer blocks save calls, shorter ones would stay in the cache

# What hyper-parameters of several rules mean. A smaller eps would be zero in float32.
SHARE = {">=": 0, "<": 1}
MOMENTUM = Option(
    "share of the last velocity that the next one keeps", 0.9, metavar="X", limits=SHARE
)
EPS = Option(
    "added to the root that the update is divided by", metavar="X", limits={">=": 1e-37, "<=": 1}
)


class Optimizer:
    """What all rules share: hyper-parameters, state, weight decay and the walk over blocks.

    `weight_decay` is the factor λ of the penalty λ/2 sum(p²) (book section 6.4.2): λ p is added to
    the gradient before the rule sees it; the reported loss stays without the penalty. `decayed`,
    shape `(size,)`, is true where a parameter decays and false where it does not; None: all decay.

    `clip_norm` is the largest Euclidean norm that a gradient may have: a longer one is scaled down
    to it before anything else sees it (Pascanu et al. 2013, arXiv:1211.5063, algorithm 1). With 0
    there is no limit. The gradient is the sum over all ranks: any number of them finds one norm.

    `arithmetic` is that of the network whose parameters they are, see `base.arithmetic`.

    `segments` are the places (start, stop) of the arrays that make up the vector, in order, for the
    rules of `layerwise.py`; None: it is one array.

    A rule declares its hyper-parameters in `options`, a learning rate that suits it as `lr`, and
    the names of its vectors in `slots`. `state` holds these vectors, all that a checkpoint needs
    besides t. Raises ValueError for a hyper-parameter that the rule does not have or whose value
    makes no sense.
    """

    options: ClassVar[Mapping[str, Option]] = {}
    lr: ClassVar[float]
    slots: ClassVar[Sequence[str]] = ()
    elementwise: ClassVar[bool] = True  # whether the rule may have its vectors cut anywhere
    is_whole: ClassVar[bool] = True  # whether every rank has all of `state`

    def __init__(
        self,
        size: int,
        *,
        dtype: DTypeLike = np.float32,
        weight_decay: float = 0.0,
        decayed: Vector | None = None,
        clip_norm: float = 0.0,
        segments: Sequence[Segment] | None = None,
        arithmetic: Arithmetic = FLOAT,
        **hyper: float,
    ) -> None:
        self.size, self.arithmetic = size, arithmetic
        self.dtype = np.dtype(dtype)
        self._check_known(hyper)
        self._check_not_negative(weight_decay=weight_decay, clip_norm=clip_norm)
        self.hyper = {
            name: check(settings, hyper.get(name, settings.default), f"{self._name}: {name}")
            for name, settings in self.options.items()
        }
        self.state = {slot: np.zeros(size, dtype) for slot in self.slots}
        self.clip_norm = clip_norm
        self.segments = self._checked_segments(segments)
        self._decay = self._decay_factors(weight_decay, decayed)
        self._scratch = np.empty((3 if clip_norm else 2, min(size, BLOCK)), dtype)
        self._doubles = np.empty(min(size, BLOCK) if clip_norm or not self.elementwise else 0)

    def step(
        self, params: Vector, grads: Vector, lr: float, t: int, factor: float | None = None
    ) -> None:
        """Makes update number `t` of `params` in place and leaves `grads` alone, both `(size,)`.

        factor: what the gradient is scaled by, for who knows it better, since these are a part of a
        longer one. Raises ValueError, before anything has changed, for a vector of another shape or
        dtype and for lr or t out of range.
        """
        self._check_vector("params", params)
        self._check_vector("grads", grads)
        self._check_not_negative(lr=lr)
        if t < 1:
            raise ValueError(f"{self._name}: t is {t}, expected the number of the update, from 1")
        factor = self._factor(grads) if factor is None else factor
        self._walk(params, grads, float(lr), t, factor)

    def exchange(self, params: Vector) -> None:
        """Before evaluation and after it: `params` and the values to evaluate change places.

        For an optimizer that keeps others than those it trains, such as `averaging.Averaged`.
        """

    def complete(self, root: int | None = None) -> None:
        """Makes `state` whole, on every rank or on `root`, where ranks have parts of it."""

    def refresh(self) -> None:
        """After `state` was changed in place by somebody else."""

    def move(self, state: Mapping[str, Vector], moved: Callable[[Vector], Vector]) -> None:
        """Works elsewhere from now on: on `state`, and on what `moved` makes of its other arrays.

        Blocks may be as long as the whole vector there.
        """
        self.state = dict(state)
        self._scratch = moved(np.empty((2, self.size), self.dtype))
        self._decay = None if self._decay is None else moved(np.ascontiguousarray(self._decay))

    def _walk(self, params: Vector, grads: Vector, lr: float, t: int, factor: float) -> None:
        """The update, block by block; `factor` scales the gradient."""
        factors = self.factors(lr, t)
        for block in blocks(0, self.size):
            self.step_block(block, params[block], self._scaled(grads[block], factor), factors)

    def factors(self, lr: float, t: int) -> Factors:
        """The numbers in the rule that change from update to update; the first one is lr."""
        return (lr,)

    def step_block(self, block: slice, p: Vector, g: Vector, factors: Factors) -> None:
        """The update of one block: of `p`, by its gradient, with what `factors` has returned."""
        a, b = self._scratch[:2, : p.size]
        if self._decay is not None:
            g = self._add_decay(p, g, self._decay[block], factors[0], a)
        self._update(p, g, factors, b, [vector[block] for vector in self.state.values()])

    def _factor(self, grads: Vector) -> float:
        """What the gradient is multiplied by, so that it is no longer than `clip_norm`."""
        if not self.clip_norm:
            return 1.0
        norm = math.sqrt(squared_norm(grads, self._doubles, self.arithmetic))
        return self.clip_norm / norm if norm > self.clip_norm else 1.0

    def _scaled(self, g: Vector, factor: float) -> Vector:
        return g if factor == 1 else np.multiply(g, factor, out=self._scratch[2, : g.size])

    def _add_decay(self, p: Vector, g: Vector, decay: Vector, lr: float, a: Vector) -> Vector:
        """Applies weight decay; returns the gradient for the rule, in the scratch memory `a`."""
        np.multiply(p, decay, out=a)
        a += g
        return a

    def _update(self, p: Vector, g: Vector, factors: Factors, a: Vector, state: State) -> None:
        """The rule, on one block: changes `p` and `state` in place, with scratch memory `a`."""
        raise NotImplementedError

    def _checked_segments(self, segments: Sequence[Segment] | None) -> list[Segment]:
        segments = [(0, self.size)] if segments is None else list(segments)
        stops = [0, *(stop for _, stop in segments)]
        if [start for start, _ in segments] != stops[:-1] or stops[-1] != self.size:
            raise ValueError(
                f"{self._name}: segments: found {segments}, expected those of arrays one after "
                f"another, from 0 to {self.size}"
            )
        return segments

    def _decay_factors(self, weight_decay: float, decayed: Vector | None) -> Vector | None:
        if decayed is not None and decayed.shape != (self.size,):
            raise ValueError(
                f"{self._name}: decayed has shape {decayed.shape}, expected ({self.size},)"
            )
        if weight_decay == 0:
            return None
        factor = np.asarray(weight_decay, self.dtype)
        if decayed is None:
            return np.broadcast_to(factor, self.size)
        return factor * decayed.astype(self.dtype)

    @property
    def decays(self) -> bool:
        """Whether there is a penalty on any parameter."""
        return self._decay is not None and bool(np.any(self._decay))

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check_known(self, hyper: Mapping[str, float]) -> None:
        known = [*self.options, "weight_decay"]
        for name in hyper:
            if name not in known:
                raise ValueError(
                    f"{self._name} has no hyper-parameter {name!r}, only {', '.join(known)}"
                )

    def _check_not_negative(self, **values: float) -> None:
        for name, value in values.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{self._name}: {name}: found {value}, expected a number >= 0")

    def _check_vector(self, name: str, vector: Vector) -> None:
        if vector.shape != (self.size,) or vector.dtype != self.dtype:
            raise ValueError(
                f"{self._name}: {name} has shape {vector.shape} and dtype {vector.dtype}, "
                f"expected ({self.size},) and {self.dtype}"
            )


@portable
class SGD(Optimizer):
    """Stochastic gradient descent: p -= lr g (book section 6.1.2)."""

    lr = 0.2

    def _update(self, p: Vector, g: Vector, factors: Factors, a: Vector, state: State) -> None:
        (lr,) = factors
        np.multiply(g, lr, out=a)
        p -= a


@portable
class Momentum(Optimizer):
    """SGD with a velocity: v = momentum v - lr g, p += v (Polyak 1964; book section 6.1.4).

    PyTorch leaves lr out of v and multiplies by it afterwards, which is the same while lr stays.
    """

    options = {"momentum": MOMENTUM}
    lr = 0.05
    slots = ("v",)

    def _update(self, p: Vector, g: Vector, factors: Factors, a: Vector, state: State) -> None:
        (lr,) = factors
        (v,) = state
        _accelerate(v, g, self.hyper["momentum"], lr, a)
        p += v


@portable
class Nesterov(Optimizer):
    """Nesterov's accelerated gradient: v = momentum v - lr g, p += momentum v - lr g.

    Here p is the point looked ahead to, where the gradient is taken: Bengio et al. 2013,
    arXiv:1212.0901, equation 7, for the method of Sutskever et al. 2013; so does the book's code.
    """

    options = {"momentum": MOMENTUM}
    lr = 0.05
    slots = ("v",)

    def _update(self, p: Vector, g: Vector, factors: Factors, a: Vector, state: State) -> None:
        (lr,) = factors
        (v,) = state
        momentum = self.hyper["momentum"]
        _accelerate(v, g, momentum, lr, a)
        p -= a
        np.multiply(v, momentum, out=a)
        p += a


@portable
class AdaGrad(Optimizer):
    """Steps that shrink where gradients have been large: h += g², p -= lr g / (sqrt(h) + eps).

    Duchi et al. 2011, JMLR 12, figure 1 (diagonal); book section 6.1.5.
    """

    options = {"eps": replace(EPS, default=1e-7)}
    lr = 0.02
    slots = ("h",)

    def _update(self, p: Vector, g: Vector, factors: Factors, a: Vector, state: State) -> None:
        (lr,) = factors
        (h,) = state
        np.multiply(g, g, out=a)
        h += a
        _descend(p, g, h, lr, self.hyper["eps"], a)


@portable
class RMSprop(Optimizer):
    """AdaGrad that forgets: h = decay_rate h + (1 - decay_rate) g², p -= lr g / (sqrt(h) + eps).

    Tieleman and Hinton 2012, lecture 6.5; in the book's code and named in section 6.1.5.
    """

    options = {
        "decay_rate": Option(
            "share of the last mean square that the next one keeps", 0.99, metavar="X", limits=SHARE
        ),
        "eps": replace(EPS, default=1e-7),
    }
    lr = 0.002
    slots = ("h",)

    def _update(self, p: Vector, g: Vector, factors: Factors, a: Vector, state: State) -> None:
        (lr,) = factors
        (h,) = state
        np.multiply(g, g, out=a)
        average(h, a, self.hyper["decay_rate"], a)
        _descend(p, g, h, lr, self.hyper["eps"], a)


@portable
class Adam(Optimizer):
    """Momentum and RMSprop, freed of their bias towards the zeros they start from.

        m = beta1 m + (1 - beta1) g          m_hat = m / (1 - beta1^t)
        v = beta2 v + (1 - beta2) g²         v_hat = v / (1 - beta2^t)
        p -= lr m_hat / (sqrt(v_hat) + eps)

    Kingma and Ba 2015, arXiv:1412.6980, algorithm 1, as in PyTorch. The end of their section 2 has
    a variant that adds its constant before the bias is corrected:

        p -= lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps_hat)

    It is used when eps_hat is not 0; the book (section 6.1.6) is `Adam(size, eps_hat=1e-7)`.
    """

    options = {
        "beta1": Option("decay of the mean of gradients", 0.9, metavar="X", limits=SHARE),
        "beta2": Option("decay of the mean of their squares", 0.999, metavar="X", limits=SHARE),
        "eps": replace(EPS, default=1e-8),
        "eps_hat": Option(
            "in place of eps, added before the bias is corrected; 0: not",
            0.0,
            metavar="X",
            limits={">=": 0, "<=": 1},
        ),
    }
    lr = 0.004
    slots = ("m", "v")

    def factors(self, lr: float, t: int) -> Factors:
        """lr; and lr and eps with the corrections of bias in them."""
        beta1, beta2 = self.hyper["beta1"], self.hyper["beta2"]
        # sqrt(1 - beta2^t) moves from v_hat to the scalars: one pass over the block less.
        power = self.arithmetic.power
        correction = math.sqrt(1 - power(beta2, t))
        eps = self.hyper["eps_hat"] or self.hyper["eps"] * correction
        return lr, lr * correction / (1 - power(beta1, t)), eps

    def _update(self, p: Vector, g: Vector, factors: Factors, a: Vector, state: State) -> None:
        _, rate, eps = factors
        m, v = state
        self._learn(g, m, v, a)
        _descend(p, m, v, rate, eps, a)

    def _learn(self, g: Vector, m: Vector, v: Vector, a: Vector) -> None:
        """Brings m and v up to date."""
        average(m, g, self.hyper["beta1"], a)
        np.multiply(g, g, out=a)
        average(v, a, self.hyper["beta2"], a)


@portable
class AdamW(Adam):
    """Adam with decoupled weight decay: p -= lr weight_decay p, and the rule sees g alone.

    Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2, with lr in both terms as in PyTorch.
    """

    def _add_decay(self, p: Vector, g: Vector, decay: Vector, lr: float, a: Vector) -> Vector:
        np.multiply(p, decay, out=a)
        a *= lr
        p -= a
        return g


def blocks(start: int, stop: int) -> Iterator[slice]:
    """[start, stop) in pieces of at most BLOCK."""
    for begin in range(start, stop, BLOCK):
        yield slice(begin, min(begin + BLOCK, stop))


def squared_norm(vector: Vector, doubles: Vector, arithmetic: Arithmetic = FLOAT) -> float:
    """The sum of squares, in float64 and always in the same order; `doubles` is scratch memory.

    doubles: as long as `vector`, or BLOCK long.
    """
    total = 0.0
    for block in blocks(0, vector.size):
        squares = doubles[: block.stop - block.start]
        squares[...] = vector[block]
        np.multiply(squares, squares, out=squares)
        total += float(arithmetic.sum(squares, scratch=squares))
    return total


def _accelerate(v: Vector, g: Vector, momentum: float, lr: float, a: Vector) -> None:
    """v = momentum v - lr g; leaves lr g in `a`."""
    np.multiply(g, lr, out=a)
    v *= momentum
    v -= a


def average(mean: Vector, x: Vector, rate: float, a: Vector) -> None:
    """mean = rate mean + (1 - rate) x, a running mean; `a` may be `x`."""
    np.subtract(x, mean, out=a)
    a *= 1 - rate
    mean += a


def _descend(p: Vector, g: Vector, squares: Vector, lr: float, eps: float, a: Vector) -> None:
    """p -= lr g / (sqrt(squares) + eps)."""
    np.sqrt(squares, out=a)
    a += eps
    np.divide(g, a, out=a)
    a *= lr
    p -= a
