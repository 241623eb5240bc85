"""What a network looks like when it is printed: a row for every layer that computes something."""

from __future__ import annotations

from collections.abc import Sequence

from distnet.base.arrays import format_shape
from distnet.nn.layer import Layer

HEADER = ("layer", "", "output", "parameters", "multiply-adds")


def describe(name: str, body: Layer) -> str:
    """A table of the layers of `body`: what they are, the output of a sample, how much they cost.

    Multiply-adds are those of one sample's forward pass in the products of convolutions and fully
    connected layers, as a direct computation does them.
    """
    leaves = list(body.named_leaves())
    costs = [(num_parameters(layer), layer.multiply_adds) for _, layer in leaves]
    rows = [
        (name, repr(layer), format_shape(layer.output_shape), *map(_number, cost))
        for (name, layer), cost in zip(leaves, costs, strict=True)
    ]
    totals = (_number(sum(column)) for column in zip(*costs, strict=True))
    rows = [HEADER, *rows, ("total", "", format_shape(body.output_shape), *totals)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        [
            f"{name} of samples {format_shape(body.input_shape)}",
            *(_line(row, widths) for row in rows),
        ]
    )


def num_parameters(layer: Layer) -> int:
    """How many numbers of a layer are trained."""
    return sum(parameter.size for _, parameter in layer.parameters())


def _number(count: int) -> str:
    return f"{count:,}" if count else ""


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Text to the left, the last two columns, which are numbers, to the right."""
    aligned = [f"{cell:{'<' if i < 3 else '>'}{widths[i]}}" for i, cell in enumerate(cells)]
    return "  ".join(aligned).rstrip()
