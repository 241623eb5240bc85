"""The sizes of one convolution or pooling, checked once (book section 7.2)."""

from __future__ import annotations

from dataclasses import dataclass

from distnet.base.arrays import Array, Shape


def output_size(size: int, kernel: int, stride: int, pad: int) -> int:
    """How many windows of `kernel` pixels fit into `size` pixels padded on both sides.

    Raises ValueError if none does, or if an argument is out of range.
    """
    if min(size, kernel, stride) < 1 or pad < 0:
        raise ValueError(
            f"window: found size {size}, kernel {kernel}, stride {stride}, pad {pad}, "
            "expected size, kernel and stride >= 1 and pad >= 0"
        )
    if kernel > size + 2 * pad:
        raise ValueError(
            f"window: a kernel of {kernel} does not fit into {size} pixels with padding {pad}; "
            "use a smaller kernel, a larger image or more padding"
        )
    return (size + 2 * pad - kernel) // stride + 1


@dataclass(frozen=True)
class Geometry:
    """A convolution of C channels, H x W pixels by F filters of KH x KW pixels."""

    c: int
    h: int
    w: int
    f: int
    kh: int
    kw: int
    stride: int
    pad: int

    def __post_init__(self) -> None:
        if min(self.c, self.f) < 1:
            raise ValueError(f"channels: found {self.c} in and {self.f} out, expected at least 1")
        _ = self.oh, self.ow

    @property
    def oh(self) -> int:
        return output_size(self.h, self.kh, self.stride, self.pad)

    @property
    def ow(self) -> int:
        return output_size(self.w, self.kw, self.stride, self.pad)

    @property
    def kernel(self) -> tuple[int, int]:
        return self.kh, self.kw

    @property
    def output_shape(self) -> Shape:
        return self.f, self.oh, self.ow

    @property
    def padded_size(self) -> tuple[int, int]:
        return self.h + 2 * self.pad, self.w + 2 * self.pad

    def interior(self, padded: Array) -> Array:
        """The (N, C, H, W) view of an array with the padding around it."""
        return padded[:, :, self.pad : self.pad + self.h, self.pad : self.pad + self.w]
