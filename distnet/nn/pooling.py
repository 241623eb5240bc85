"""Max pooling (book section 7.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from distnet.nn import layout
from distnet.nn.geometry import output_size
from distnet.nn.layer import Layer
from distnet.nn.layout import Array, Shape
from distnet.nn.random import Training


@dataclass
class _Workspace:
    padded: Array  # (N, C, H + 2 pad, W + 2 pad), -inf outside the image
    inside: Array  # the view of the image in it
    chosen: Array  # (N, C, OH, OW): which element of its window each maximum is
    mask: Array
    routed: Array  # dy where that element is the maximum
    dpadded: Array


class MaxPool2d(Layer):
    """The maximum of each window: images `(N, C, H, W)` to `(N, C, OH, OW)`.

    Padding counts as minus infinity, so it never wins. Of equal elements the first in row order
    receives the gradient.
    """

    kind = "pool"

    def __init__(self, kernel: int, *, stride: int | None = None, pad: int = 0) -> None:
        super().__init__()
        self.kernel, self.stride, self.pad = kernel, stride or kernel, pad
        if pad >= kernel:
            raise ValueError(f"MaxPool2d: found pad {pad}, expected less than the kernel {kernel}")
        self._workspaces: dict[int, _Workspace] = {}

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        c, h, w = self.shape = shape
        oh = output_size(h, self.kernel, self.stride, self.pad)
        ow = output_size(w, self.kernel, self.stride, self.pad)
        self.output_shape = (c, oh, ow)
        return self.output_shape

    def forward(self, x: Array, out: Array | None = None, train: Training | None = None) -> Array:
        ws = self._workspace(len(x))
        np.copyto(ws.inside, x)
        y = self.output((len(x), *self.output_shape), out)
        for k, window in enumerate(self._windows(ws.padded)):
            if k == 0:
                np.copyto(y, window)
                ws.chosen[...] = 0
                continue
            np.greater(window, y, out=ws.mask)
            np.copyto(ws.chosen, k, where=ws.mask)
            np.maximum(window, y, out=y)
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        ws = self._workspace(len(dy))
        ws.dpadded[...] = 0
        for k, window in enumerate(self._windows(ws.dpadded)):
            np.equal(ws.chosen, k, out=ws.mask)
            np.multiply(dy, ws.mask, out=ws.routed)
            np.add(window, ws.routed, out=window)
        dx = self.input_gradient(ws.inside.shape, out)
        np.copyto(dx, self._inside(ws.dpadded))
        return dx

    def _windows(self, padded: Array) -> list[Array]:
        """For each element of a window, the (N, C, OH, OW) view of it in all windows."""
        s, (_, oh, ow) = self.stride, self.output_shape
        return [
            padded[:, :, i : i + s * oh : s, j : j + s * ow : s]
            for i in range(self.kernel)
            for j in range(self.kernel)
        ]

    def _inside(self, padded: Array) -> Array:
        _, h, w = self.shape
        return padded[:, :, self.pad : self.pad + h, self.pad : self.pad + w]

    def _workspace(self, n: int) -> _Workspace:
        if n not in self._workspaces:
            c, h, w = self.shape
            padded = layout.empty((n, c, h + 2 * self.pad, w + 2 * self.pad), self.dtype)
            padded[...] = -np.inf
            chosen = layout.empty((n, *self.output_shape), np.int16)
            self._workspaces[n] = _Workspace(
                padded=padded,
                inside=self._inside(padded),
                chosen=chosen,
                mask=layout.empty(chosen.shape, bool),
                routed=layout.empty(chosen.shape, self.dtype),
                dpadded=layout.empty(padded.shape, self.dtype),
            )
        return self._workspaces[n]
