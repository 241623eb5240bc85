"""What a network looks like when it is printed: a row for every layer that computes something."""

from __future__ import annotations

from distnet.base.arrays import format_shape
from distnet.base.tables import aligned
from distnet.nn.layer import Layer

HEADER = ("layer", "", "output", "parameters", "multiply-adds")


def summarize(name: str, body: Layer) -> str:
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
    title = f"{name} of samples {format_shape(body.input_shape)}"
    return "\n".join([title, *aligned(rows, left=3)])


def num_parameters(layer: Layer) -> int:
    """How many numbers of a layer are trained."""
    return sum(parameter.size for _, parameter in layer.parameters())


def _number(count: int) -> str:
    return f"{count:,}" if count else ""
