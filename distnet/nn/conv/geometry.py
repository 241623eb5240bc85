"""The sizes of one convolution, checked once (book section 7.2)."""

from __future__ import annotations

from dataclasses import dataclass

from distnet.base.arrays import Array, Shape


def output_size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    """How many windows of `kernel` pixels, `dilation` apart, fit into `size` padded pixels.

    The windows are `stride` pixels apart; there are `pad` pixels more on both sides. Raises
    ValueError if no window fits, or if an argument is out of range.
    """
    if min(size, kernel, stride, dilation) < 1 or pad < 0:
        raise ValueError(
            f"window: found size {size}, kernel {kernel}, stride {stride}, pad {pad}, dilation "
            f"{dilation}, expected size, kernel, stride and dilation >= 1 and pad >= 0"
        )
    extent = dilation * (kernel - 1) + 1
    if extent > size + 2 * pad:
        dilated = f" {dilation} apart" if dilation > 1 else ""
        raise ValueError(
            f"window: a kernel of {kernel}{dilated} does not fit into {size} pixels with padding "
            f"{pad}; use a smaller kernel, a larger image or more padding"
        )
    return (size + 2 * pad - extent) // stride + 1


@dataclass(frozen=True)
class Geometry:
    """A convolution of images (C, H, W) by F filters; every pair is (rows, columns).

    Windows of `kernel` pixels, which lie `dilation` apart, are `stride` apart on images with `pad`
    zeros on each side. With several groups, the filters of a group see its channels only: those
    are the g-th of C / groups channels and the g-th of F / groups filters.
    """

    c: int
    h: int
    w: int
    f: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        if min(self.c, self.f, self.groups) < 1 or self.c % self.groups or self.f % self.groups:
            raise ValueError(
                f"channels: found {self.c} in and {self.f} out in {self.groups} groups, "
                "expected at least 1 and as many in each group"
            )
        _ = self.oh, self.ow

    @property
    def kh(self) -> int:
        return self.kernel[0]

    @property
    def kw(self) -> int:
        return self.kernel[1]

    @property
    def oh(self) -> int:
        return self._output_size(0, self.h)

    @property
    def ow(self) -> int:
        return self._output_size(1, self.w)

    @property
    def output_shape(self) -> Shape:
        return self.f, self.oh, self.ow

    @property
    def weight_shape(self) -> Shape:
        return self.f, self.c // self.groups, *self.kernel

    @property
    def num_pairs(self) -> int:
        """Pairs of a channel and a filter that sees it."""
        return self.c * self.f // self.groups

    @property
    def is_dense(self) -> bool:
        """Whether all filters see all channels, in windows without gaps."""
        return self.groups == 1 and self.dilation == (1, 1)

    @property
    def padded_size(self) -> tuple[int, int]:
        return self.h + 2 * self.pad[0], self.w + 2 * self.pad[1]

    def interior(self, padded: Array) -> Array:
        """The (N, C, H, W) view of an array with the padding around it."""
        top, left = self.pad
        return padded[:, :, top : top + self.h, left : left + self.w]

    def _output_size(self, axis: int, size: int) -> int:
        return output_size(
            size, self.kernel[axis], self.stride[axis], self.pad[axis], self.dilation[axis]
        )
