"""Unrolls windows into rows of a matrix, and back (book sections 7.2 to 7.4).

The shapes of the book's examples, the convolution as one matrix product against its definition, and
the adjoint: col2im is the transpose of im2col, which is why backpropagation may use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array, Shape
from distnet.experiments import Lab, Numbers, Required, at_most, exactly, main
from distnet.nn.conv.geometry import output_size
from distnet.nn.conv.im2col import col2im, im2col

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "7.2", "output sizes of the book's two examples", "sizes", exactly([[3, 3], [10, 11]])
    ),
    Required("A17", "im2col of (1, 3, 7, 7), kernel 5", "one_image", exactly([9, 75])),
    Required("A17", "im2col of (10, 3, 7, 7), kernel 5", "ten_images", exactly([90, 75])),
    Required("A17", "<im2col(x), c> = <x, col2im(c)>, relative", "adjoint_error", at_most(1e-12)),
    Required("7.4", "matrix product against the definition", "product_error", at_most(1e-12)),
]


def run(lab: Lab) -> Numbers:
    rng = np.random.default_rng(lab.seed)
    trials = range(20 if lab.quick else 200)
    lab.picture("im2col", draw_im2col, size=(7, 2.9))
    return {
        "sizes": [
            [output_size(7, 3, stride=2, pad=0), output_size(7, 3, stride=2, pad=0)],
            [output_size(28, 5, stride=3, pad=2), output_size(31, 5, stride=3, pad=2)],
        ],
        "one_image": columns_shape((1, 3, 7, 7)),
        "ten_images": columns_shape((10, 3, 7, 7)),
        "adjoint_error": max(adjoint_error(rng) for _ in trials),
        "product_error": product_error(rng),
    }


def columns_shape(shape: Shape) -> list[int]:
    return list(im2col(np.zeros(shape), (5, 5)).shape)


def adjoint_error(rng: np.random.Generator) -> float:
    """|<im2col(x), c> - <x, col2im(c)>| / (|im2col(x)| |c|) for random numbers and sizes."""
    kernel = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    stride, pad = int(rng.integers(1, 4)), int(rng.integers(0, 3))
    n, c, h, w = (int(size) for size in rng.integers((1, 1, 4, 4), (4, 4, 10, 10)))
    x = np.pad(rng.standard_normal((n, c, h, w)), [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    columns = im2col(x, kernel, (stride, stride))
    others = rng.standard_normal(columns.shape)
    back = col2im(others, np.empty_like(x), kernel, (stride, stride))
    difference = abs(np.vdot(columns, others) - np.vdot(x, back))
    return float(difference / (np.linalg.norm(columns) * np.linalg.norm(others)))


def product_error(rng: np.random.Generator) -> float:
    """The largest difference between im2col(x) W^T and the sums that define a convolution."""
    x, weight = rng.standard_normal((2, 3, 7, 7)), rng.standard_normal((4, 3, 5, 5))
    product = im2col(x, (5, 5)) @ weight.reshape(4, 75).T  # (N OH OW, F)
    y = product.reshape(2, 3, 3, 4).transpose(0, 3, 1, 2)  # (N, F, OH, OW)
    return float(np.abs(y - convolve(x, weight)).max())


def convolve(x: Array, weight: Array) -> Array:
    """The definition: every filter's inner product with every window, one at a time."""
    (n, _, h, w), (f, _, kh, kw) = x.shape, weight.shape
    y = np.empty((n, f, h - kh + 1, w - kw + 1))
    for image, filter_, i, j in np.ndindex(y.shape):
        y[image, filter_, i, j] = np.sum(x[image, :, i : i + kh, j : j + kw] * weight[filter_])
    return y


def draw_im2col(figure: Figure) -> None:
    """A 4 x 4 image whose pixels are numbered, and its 3 x 3 windows as rows."""
    image = np.arange(16).reshape(1, 1, 4, 4)
    left, right = figure.subplots(1, 2, width_ratios=(4, 9))
    draw_numbers(left, image[0, 0], "x: 4 × 4 pixels")
    draw_numbers(right, im2col(image, (3, 3)), "im2col(x): 4 windows of 3 × 3 pixels")
    left.set(xlabel="column", ylabel="row")
    right.set(xlabel="pixel of the window", ylabel="window")


def draw_numbers(axes: Axes, values: Array, title: str) -> None:
    axes.imshow(values, cmap="cividis", vmin=0, vmax=15)
    axes.set(title=title, xticks=range(values.shape[1]), yticks=range(values.shape[0]))
    axes.grid(False)
    for (row, column), value in np.ndenumerate(values):
        color = "white" if value < 8 else "black"
        axes.text(column, row, f"{value}", ha="center", va="center", color=color)


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
