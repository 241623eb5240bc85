"""Augmentation of image batches: pure functions of the images and of random bits from the caller.

Images are bytes or floats `(N, C, H, W)`; `bits` holds one raw random word each, so the caller
decides what they are keyed by (seed, step, micro-batch). What leaves the image is lost, what comes
in is 0. Shifts, rotations and scales are those of the book's section 8.1.2; flips, crops and
brightness those of section 8.1.2 and of Krizhevsky et al. (2012), section 4.1; `random_cutout` is
from DeVries and Taylor (2017). What is drawn is counted in whole numbers, and so is what becomes of
bytes, so that all machines get the same. Called by the training loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from distnet.base import elementary
from distnet.base.arithmetic import is_portable, portable
from distnet.base.options import Option, check

Pixels = NDArray[Any]  # bytes or floats
Words = NDArray[np.uint32] | NDArray[np.uint64]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

Augment = Callable[[Pixels, NDArray[np.uint64]], Pixels]  # of images and a word for each

# What `augmentation` may be asked for, and the flags that are named after it.
OPTIONS = {
    "shift": Option("how far images are moved", 0, limits={">=": 0, "<=": 256}),
    "rotation": Option("how far they are turned", 0.0, limits={">=": 0, "<=": 180}),
    "scale": Option("how much smaller or larger they get", 0.0, limits={">=": 0, "<": 1}),
    "flip": Option("whether they are mirrored", False),
    "brightness": Option("how much brighter or darker they get", 0.0, limits={">=": 0, "<=": 1}),
    "cutout": Option("the square that is blotted out", 0, limits={">=": 0, "<=": 256}),
}

_ONE = 1 << 16  # 1.0 in the 16-bit fixed point of `random_affine`


def augmentation(
    *,
    shift: int = 0,
    rotation: float = 0.0,
    scale: float = 0.0,
    flip: bool = False,
    brightness: float = 0.0,
    cutout: int = 0,
) -> Augment | None:
    """The augmentations below that are asked for, in this order, as one; None if none is.

    shift: pixels, up to which images are moved, which is also cropping after padding with black;
    rotation: degrees up to which they are turned, either way; scale: part by which they get smaller
    or larger, at most; flip: mirror half of them; brightness: change by up to this part; cutout:
    pixels of a square that is blotted out. Images that are turned or scaled are moved by fractions
    of a pixel in the same pass, so that they are interpolated once. Raises ValueError for what is
    out of range (OPTIONS).
    """
    asked = dict(shift=shift, rotation=rotation, scale=scale)
    asked |= dict(flip=flip, brightness=brightness, cutout=cutout)
    for name, value in asked.items():
        number = value.item() if isinstance(value, np.generic) else value
        check(OPTIONS[name], number, f"augmentation: {name}")
    parts: list[Augment] = []
    if rotation or scale:
        parts.append(
            lambda images, bits: random_affine(
                images, bits, rotation, (1 - scale, 1 + scale), shift
            )
        )
    elif shift:
        parts.append(Shift(shift))
    if flip:
        parts.append(random_flip)
    if brightness:
        parts.append(lambda images, bits: random_brightness(images, bits, brightness))
    if cutout:
        parts.append(lambda images, bits: random_cutout(images, bits, cutout))
    if len(parts) == 1:
        return portable(parts[0])
    return portable(composed(*parts)) if parts else None


class Shift:
    """`random_shift` by up to so many pixels: known by name, so that a device may do it, too."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels

    def __call__(self, images: Pixels, bits: NDArray[np.uint64]) -> Pixels:
        return random_shift(images, bits, self.pixels)


def composed(*parts: Augment) -> Augment:
    """One augmentation after the other, each with random bits of its own.

    The first one gets the words as they are, the next ones what a bijection makes of them: one
    round of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)
    from places that are far apart.
    """

    def augment(images: Pixels, bits: NDArray[np.uint64]) -> Pixels:
        for number, part in enumerate(parts):
            images = part(images, _mixed(bits, number) if number else bits)
        return images

    return portable(augment) if all(map(is_portable, parts)) else augment


def _mixed(bits: NDArray[np.uint64], number: int) -> NDArray[np.uint64]:
    x = bits + np.uint64(number * 0x9E3779B97F4A7C15 % 2**64)  # wraps around, as it shall
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


@portable
def random_shift(images: Pixels, bits: Words, max_shift: int, out: Pixels | None = None) -> Pixels:
    """Moves each image by whole pixels, drawn from the square `[-max_shift, max_shift]^2`.

    `bits` is uint32 or uint64 `(N,)`. With k = 2 max_shift + 1, word b means shift number b mod k²:
    down by b // k mod k - max_shift rows and right by b mod k - max_shift columns. As 2^32 is not a
    multiple of k², some shifts are likelier than others, by a factor of at most 1 + k² / 2^32 (for
    2 pixels 1 + 6e-9; with 64-bit words 1 + 2e-18). Returns `out`, which may be `images` itself.
    """
    _check(images, bits, (np.uint32, np.uint64))
    n, _, h, w = images.shape
    if not 0 <= max_shift <= max(h, w):
        raise ValueError(f"random_shift: found max_shift {max_shift}, expected 0 to {max(h, w)}")
    down, right = drawn_shifts(bits, max_shift)
    windows = sliding_window_view(_zero_padded(images, max_shift), (h, w), axis=(2, 3))
    # An image moves down when its window moves up.
    moved = windows[np.arange(n), :, max_shift - down, max_shift - right]
    return _deliver(moved, out)


def drawn_shifts(bits: Words, max_shift: int) -> tuple[Integers, Integers]:
    """By how many rows down and columns right `random_shift` moves each image, `(N,)` both."""
    side = 2 * max_shift + 1
    row, column = np.divmod((bits % (side * side)).astype(np.int64), side)
    return row - max_shift, column - max_shift


@portable
def random_flip(images: Pixels, bits: Words, out: Pixels | None = None) -> Pixels:
    """Mirrors those images, left to right, whose word is odd. Returns `out`, it may be `images`."""
    _check(images, bits, (np.uint32, np.uint64))
    flipped, odd = images.copy(), bits % 2 == 1
    flipped[odd] = images[odd, :, :, ::-1]
    return _deliver(flipped, out)


@portable
def random_brightness(
    images: Pixels, bits: NDArray[np.uint64], max_change: float, out: Pixels | None = None
) -> Pixels:
    """Multiplies each image by a number from 1 - max_change to 1 + max_change.

    White bytes stay white; floats may be standardized, so that no number is their largest.

    The lowest 16 bits of the word choose one of 2^16 evenly spaced, equally likely factors, rounded
    to 1/65536. Returns `out`, which may be `images` itself.
    """
    _check(images, bits, (np.uint64,))
    if not 0 <= max_change <= 1:
        raise ValueError(f"random_brightness: found max_change {max_change}, expected 0 to 1")
    turn, *_ = _fractions(bits)
    factor = _fixed(1 + max_change * (2 * turn - 1)).astype(np.uint32)[:, None]
    if images.dtype != np.uint8:
        return _deliver(images * (factor / _ONE).astype(images.dtype), out)
    brighter = images.astype(np.uint32)
    brighter *= factor
    brighter += np.uint32(_ONE // 2)
    brighter >>= np.uint32(16)
    return _deliver(np.minimum(brighter, 255, out=brighter).astype(np.uint8), out)


@portable
def random_cutout(
    images: Pixels, bits: NDArray[np.uint64], size: int, out: Pixels | None = None
) -> Pixels:
    """Blots out a square of `size` pixels of each image with 0, all channels at the same place.

    Its centre is any pixel of the image, so that part of the square may lie outside: row and column
    are the lower and the upper 32 bits of the word, modulo H and W. Returns `out`, which may be
    `images` itself.
    """
    _check(images, bits, (np.uint64,))
    h, w = images.shape[2:]
    if not 0 <= size <= max(h, w):
        raise ValueError(f"random_cutout: found size {size}, expected 0 to {max(h, w)}")
    row, column = bits % np.uint64(1 << 32) % np.uint64(h), (bits >> np.uint64(32)) % np.uint64(w)
    rows, columns = _near(row, h, size), _near(column, w, size)
    kept = ~(rows[:, None, :, None] & columns[:, None, None, :])
    return _deliver(images * kept, out)


def _near(centre: NDArray[np.uint64], length: int, size: int) -> NDArray[np.bool_]:
    """Which of the places 0 to length - 1 are in the `size` about each centre: `(N, length)`."""
    offset = np.arange(length) - centre.astype(np.int64)[:, None] + size // 2
    return (offset >= 0) & (offset < size)


@portable
def random_affine(
    images: Pixels,
    bits: NDArray[np.uint64],
    max_rotation_degrees: float,
    scale_range: tuple[float, float],
    max_shift: float,
    out: Pixels | None = None,
) -> Pixels:
    """Rotates and scales each image about its centre, then moves it; bilinear interpolation.

    Each of angle (positive turns counterclockwise), scale (> 1 enlarges) and the moves down and
    right in pixels takes 16 bits of the word, lowest first: 2^16 evenly spaced, equally likely
    values from one end of its range to the other. Coordinates are integers from the moment that
    sine and cosine are rounded to 1/65536, weights have 8 bits, and grey values of bytes are
    rounded to the nearest. Returns `out`, which may be `images` itself.
    """
    _check(images, bits, (np.uint64,))
    low, high = scale_range
    if not 0 < low <= high or max_shift < 0 or max_rotation_degrees < 0:
        raise ValueError(
            f"random_affine: found max_rotation_degrees {max_rotation_degrees}, max_shift "
            f"{max_shift}, scale_range {scale_range}, expected no negatives and 0 < low <= high"
        )
    turn, zoom, down, right = _fractions(bits)
    angle = math.radians(max_rotation_degrees) * (2 * turn - 1)
    angle -= 2 * math.pi * np.rint(angle / (2 * math.pi))
    scale = low + (high - low) * zoom
    down, right = max_shift * (2 * down - 1), max_shift * (2 * right - 1)
    y, x = _source_coordinates(images.shape[2:], angle, scale, down, right)
    return _deliver(_interpolate(images, y, x), out)


def _fractions(bits: NDArray[np.uint64]) -> Floats:
    """The four 16-bit fields of each word, lowest first, as numbers from 0 to 1: `(4, N, 1, 1)`."""
    places = np.array([0, 16, 32, 48], np.uint64)[:, None]
    return (bits >> places & np.uint64(0xFFFF))[:, :, None, None] / 0xFFFF


def _source_coordinates(
    size: tuple[int, ...], angle: Floats, scale: Floats, down: Floats, right: Floats
) -> tuple[Integers, Integers]:
    """Where each output pixel comes from, in pixels / 2^17: rows and columns, each `(N, H, W)`.

    The inverse of rotate, scale, move. Offsets from the centre are counted in half pixels, which
    are whole numbers for even sizes too; `angle` and the others are `(N, 1, 1)`.
    """
    h, w = size
    cosine = elementary.sin(math.pi / 2 - np.abs(angle))
    cos, sin = _fixed(cosine / scale), _fixed(elementary.sin(angle) / scale)
    y = (2 * np.arange(h)[:, None] - (h - 1)) * _ONE - 2 * _fixed(down)
    x = (2 * np.arange(w) - (w - 1)) * _ONE - 2 * _fixed(right)
    source_y = (cos * y + sin * x >> 16) + (h - 1) * _ONE
    source_x = (cos * x - sin * y >> 16) + (w - 1) * _ONE
    return source_y, source_x


def _fixed(values: Floats) -> Integers:
    return np.rint(values * _ONE).astype(np.int64)


def _interpolate(images: Pixels, y: Integers, x: Integers) -> Pixels:
    """The images at `y` and `x` (pixels / 2^17, `(N, H, W)`), 0 outside."""
    n, c, h, w = images.shape
    pad = 2  # a point far outside is clipped to -2 or h, where both neighbours are 0
    below = w + 2 * pad
    pixels = _zero_padded(images, pad).reshape(n, c, (h + 2 * pad) * below)
    row, column = np.clip(y >> 17, -pad, h), np.clip(x >> 17, -pad, w)
    corner = ((row + pad) * below + column + pad).reshape(n, 1, h * w)
    down, right = ((z >> 9 & 255).reshape(n, 1, h * w) for z in (y, x))

    def at(offset: int) -> NDArray[Any]:
        found = np.take_along_axis(pixels, corner + offset, axis=2)
        return found.astype(np.int64) if found.dtype == np.uint8 else found

    upper = at(0) * (256 - right) + at(1) * right
    lower = at(below) * (256 - right) + at(below + 1) * right
    blended = upper * (256 - down) + lower * down
    rounded = blended + (1 << 15) >> 16 if images.dtype == np.uint8 else blended / _ONE
    return rounded.astype(images.dtype).reshape(n, c, h, w)


def _zero_padded(images: Pixels, pad: int) -> Pixels:
    n, c, h, w = images.shape
    padded = np.zeros((n, c, h + 2 * pad, w + 2 * pad), images.dtype)
    padded[:, :, pad : pad + h, pad : pad + w] = images
    return padded


def _deliver(result: Pixels, out: Pixels | None) -> Pixels:
    if out is None:
        return result
    np.copyto(out, result, casting="no")
    return out


def _check(images: Pixels, bits: Words, words: tuple[type, ...]) -> None:
    if images.ndim != 4 or not (images.dtype == np.uint8 or images.dtype.kind == "f"):
        raise ValueError(
            f"found {images.dtype} images {images.shape}, expected uint8 or floats (N, C, H, W)"
        )
    if bits.shape != images.shape[:1] or bits.dtype not in words:
        expected = " or ".join(word.__name__ for word in words)
        raise ValueError(
            f"found {bits.dtype} bits {bits.shape}, expected {expected} ({len(images)},)"
        )
