"""Images on a device: channels last, and where the windows of a convolution or pooling lie."""

from __future__ import annotations

from typing import Any

Pair = tuple[int, int]


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


def elements(images: Any, counts: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> list[Any]:
    """For each element of a window, in row order, that pixel of all windows: (G, N, OH, OW, C)."""
    (oh, ow), (kh, kw), (sh, sw), (dh, dw) = counts, kernel, stride, dilation
    return [
        images[:, :, i * dh : i * dh + sh * oh : sh, j * dw : j * dw + sw * ow : sw]
        for i in range(kh)
        for j in range(kw)
    ]
