"""Images on a device: channels last, and where the windows of a convolution or pooling lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.pooling import Windows as PoolingWindows

Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """Where windows lie on images of R groups of channels; every pair is (rows, columns).

    size: of an image; counts: how many windows there are. What they reach beyond an image, `pad`
    above and on the left, makes it `padded_size` large. stride, dilation: from one window to the
    next, and from one of its pixels to the next.
    """

    size: Pair
    padded_size: Pair
    counts: Pair
    kernel: Pair
    stride: Pair
    pad: Pair
    dilation: Pair = (1, 1)
    groups: int = 1
    per_group: int = 1

    @classmethod
    def of_convolution(cls, g: Geometry) -> Windows:
        counts, per_group = (g.oh, g.ow), g.c // g.groups
        size, steps = (g.h, g.w), (g.kernel, g.stride, g.pad, g.dilation)
        return cls(size, g.padded_size, counts, *steps, g.groups, per_group)

    @classmethod
    def of_pooling(cls, w: PoolingWindows, channels: int) -> Windows:
        steps = (w.kernel, w.stride, w.pad)
        return cls(w.size, w.padded_size, w.counts, *steps, per_group=channels)


def channels_last(images: Any) -> Any:
    """`(..., C, H, W)` as `(..., H, W, C)`, a view."""
    first = tuple(range(images.ndim - 3))
    c, h, w = range(images.ndim - 3, images.ndim)
    return images.transpose(*first, h, w, c)


def channels_first(images: Any) -> Any:
    """`(..., H, W, C)` as `(..., C, H, W)`, a view."""
    first = tuple(range(images.ndim - 3))
    h, w, c = range(images.ndim - 3, images.ndim)
    return images.transpose(*first, c, h, w)


def padded(xp: Any, images: Any, pad: Pair, size: Pair, margin: float = 0.0) -> Any:
    """`(G, N, H, W, C)` in images of `size` pixels that are `margin` but for these."""
    g, n, h, w, c = images.shape
    if (h, w) == size:
        return images
    result = xp.full((g, n, *size, c), margin, images.dtype)
    inside(result, pad, (h, w))[...] = images
    return result


def inside(images: Any, pad: Pair, size: Pair) -> Any:
    """What of padded images is not their padding, a view."""
    (top, left), (h, w) = pad, size
    return images[:, :, top : top + h, left : left + w]


def elements(padded: Any, windows: Windows) -> list[Any]:
    """For each element of a window, in row order, that pixel of all windows: (G, N, OH, OW, C)."""
    (oh, ow), (kh, kw) = windows.counts, windows.kernel
    (sh, sw), (dh, dw) = windows.stride, windows.dilation
    return [
        padded[:, :, i * dh : i * dh + sh * oh : sh, j * dw : j * dw + sw * ow : sw]
        for i in range(kh)
        for j in range(kw)
    ]
