"""The LSTM, a layer that reads a sequence step by step and remembers.

The book names recurrent networks in section 8.4.3 and derives nothing of them; the page
docs/book/ch08/captions.md does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import Generator, portable, rounded
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments
from distnet.nn.initializers import xavier
from distnet.nn.layer import Layer
from distnet.nn.layers.activations import sigmoid
from distnet.nn.parameters import Parameter


class _Sequence:
    """What an LSTM of size H keeps of a batch, from forward to backward, the steps outermost.

    states, cells: `(T + 1, N, H)`, h and c before the first step and after each. gates:
    `(T, N, 4 H)`, i, f, o and g. squashed: `(T, N, H)`, tanh(c). present: `(T, N, 1)`, which steps
    are no padding.
    """

    def __init__(self, t: int, n: int, inputs: int, hidden: int, dtype: DTypeLike) -> None:
        self.inputs = np.empty((t, n, inputs), dtype)
        self.states, self.cells = np.zeros((2, t + 1, n, hidden), dtype)
        self.gates = np.empty((t, n, 4 * hidden), dtype)
        self.squashed = np.empty((t, n, hidden), dtype)
        self.present = np.ones((t, n, 1), bool)


@portable
class LSTM(Layer):
    """Long short-term memory: x `(N, T, K)` to y `(N, T, H)`, what it has in mind after each step.

    With h and c zero before the first step (Hochreiter and Schmidhuber 1997, with the forget gate
    of Gers, Schmidhuber and Cummins 2000, "Learning to Forget", equations 2 to 6, no peepholes),

        z = x_t W + h U + b                   W (K, 4 H), U (H, 4 H), b (4 H,)
        i, f, o = sigmoid(z), g = tanh(z)     a quarter of z each, in this order
        c <- f c + i g
        h <- o tanh(c) = y_t

    hidden: H. last: y is what it has in mind at the end, `(N, H)`. masked: a step whose x is zero
    in all of K is padding, as `Embedding` has it, and passes by: h and c stay what they were, and
    so do their gradients on the way back.

    W and U start normal with a variance of 1 / (K + H), b at 0 but for the forget gate's, 1: it
    begins by remembering (Jozefowicz, Zaremba and Sutskever 2015, section 2.2).
    """

    kind = "lstm"

    def __init__(self, hidden: int, *, last: bool = False, masked: bool = False) -> None:
        super().__init__()
        self.hidden = arguments.whole("LSTM", "hidden", hidden)
        self.last, self.masked = last, masked

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        if len(shape) != 2:
            raise arguments.refusal("LSTM", "input shape", shape, "(T, K), steps of K numbers each")
        self.input_shape = shape
        (t, k), h = shape, self.hidden
        self.weight = Parameter((k, 4 * h), xavier(k + h))
        self.recurrent = Parameter((h, 4 * h), xavier(k + h))
        self.bias = Parameter((4 * h,), _remembering, decays=False)
        return (h,) if self.last else (t, h)

    @property
    def multiply_adds(self) -> int:
        return self.input_shape[0] * (self.weight.size + self.recurrent.size)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "weight", self.weight
        yield "recurrent", self.recurrent
        yield "bias", self.bias

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        n, (t, k), h = len(x), self.input_shape, self.hidden
        self.arithmetic.check_terms("LSTM", max(n * t, k, 4 * h))
        s = self.memory.once(n, "sequence", lambda: _Sequence(t, n, k, h, self.dtype))
        self.sequence = s
        np.copyto(s.inputs, x.transpose(1, 0, 2))
        if self.masked:
            np.any(s.inputs, axis=2, keepdims=True, out=s.present)
        self.w, self.u = (
            rounded(each.value, self.arithmetic) for each in (self.weight, self.recurrent)
        )
        rows = rounded(s.inputs, self.arithmetic).reshape(t * n, k)
        np.matmul(rows, self.w, out=s.gates.reshape(t * n, 4 * h))
        for step in range(t):
            self._forward_step(s, step)
        y = self.output((n, h) if self.last else (n, t, h), out)
        np.copyto(y, s.states[-1] if self.last else s.states[1:].transpose(1, 0, 2))
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        s, n, (t, k), h = self.sequence, len(dy), self.input_shape, self.hidden
        dz = self.memory.temporary((n, t, 4 * h), self.dtype).reshape(t, n, 4 * h)
        dh, dc = np.zeros((2, n, h), self.dtype)  # of the loss in later steps
        for step in reversed(range(t)):
            if not self.last:
                dh += dy[:, step]
            elif step == t - 1:
                dh += dy
            self._backward_step(s, step, dh, dc, dz[step])
        dz_rows = rounded(dz, self.arithmetic).reshape(t * n, 4 * h)
        for read, weight in ((s.inputs, self.weight), (s.states[:-1], self.recurrent)):
            rows = rounded(read, self.arithmetic).reshape(t * n, -1)
            np.matmul(rows.T, dz_rows, out=weight.grad)
        np.add.reduce(dz_rows, axis=0, out=self.bias.grad)  # of rounded numbers: exact
        if not need_dx:
            return None
        dx = self.input_gradient((n, t, k), out)
        np.copyto(dx, (dz_rows @ self.w.T).reshape(t, n, k).transpose(1, 0, 2))
        return dx

    def _forward_step(self, s: _Sequence, step: int) -> None:
        """From the products of x in `gates` to the gates, and to the next state and cell."""
        z, before, after = s.gates[step], s.cells[step], s.cells[step + 1]
        z += rounded(s.states[step], self.arithmetic) @ self.u
        z += self.bias.value
        three = z[:, : 3 * self.hidden]
        sigmoid(three, three, self.arithmetic)
        i, f, o, g = self._quarters(z)
        self.arithmetic.tanh(g, out=g)
        np.add(f * before, i * g, out=after)
        self.arithmetic.tanh(after, out=s.squashed[step])
        np.multiply(o, s.squashed[step], out=s.states[step + 1])
        if self.masked:
            np.copyto(after, before, where=~s.present[step])
            np.copyto(s.states[step + 1], s.states[step], where=~s.present[step])

    def _backward_step(self, s: _Sequence, step: int, dh: Array, dc: Array, dz: Array) -> None:
        """Fills `dz`, and turns dh and dc of the state after the step into those before it."""
        i, f, o, g = self._quarters(s.gates[step])
        di, df, do, dg = self._quarters(dz)
        squashed = s.squashed[step]
        inner = dc + dh * o * (1 - squashed * squashed)
        di[...] = inner * g * i * (1 - i)
        df[...] = inner * s.cells[step] * f * (1 - f)
        do[...] = dh * squashed * o * (1 - o)
        dg[...] = inner * i * (1 - g * g)
        if self.masked:
            np.copyto(dz, 0, where=~s.present[step])
        np.copyto(dh, rounded(dz, self.arithmetic) @ self.u.T, where=s.present[step])
        np.copyto(dc, inner * f, where=s.present[step])

    def _quarters(self, z: Array) -> list[Array]:
        """Of `(N, 4 H)` the parts that belong to i, f, o and g, as views."""
        return [z[:, q * self.hidden : (q + 1) * self.hidden] for q in range(4)]


def _remembering(rng: Generator, shape: Shape) -> Array:
    """A bias (4 H,) that is 1 for the forget gate."""
    bias = np.zeros((4, shape[0] // 4))
    bias[1] = 1
    return bias.ravel()
