"""What a network looks like when it is printed: a row for every layer that computes something."""

from __future__ import annotations

from distnet.base.arrays import format_shape
from distnet.base.tables import aligned
from distnet.nn.layer import Layer
from distnet.nn.parameters import num_trained

HEADER = ("layer", "", "output", "parameters", "multiply-adds")


def summarize(name: str, body: Layer) -> str:
    """A table of the layers of `body`: what they are, the output of a sample, how much they cost.

    Multiply-adds are those of one sample's forward pass in the products of convolutions and fully
    connected layers, as a direct computation does them. What is frozen says so.
    """
    leaves = list(body.named_leaves())
    costs = [(num_parameters(layer), layer.multiply_adds) for _, layer in leaves]
    rows = [
        (name, _what(layer), format_shape(layer.output_shape), *map(_number, cost))
        for (name, layer), cost in zip(leaves, costs, strict=True)
    ]
    totals = (_number(sum(column)) for column in zip(*costs, strict=True))
    rows = [HEADER, *rows, ("total", _frozen(body), format_shape(body.output_shape), *totals)]
    title = f"{name} of samples {format_shape(body.input_shape)}"
    return "\n".join([title, *aligned(rows, left=3)])


def num_parameters(layer: Layer) -> int:
    """How many numbers of a layer are trained, or frozen."""
    return sum(parameter.size for _, parameter in layer.parameters())


def _what(layer: Layer) -> str:
    return ", ".join(filter(None, (repr(layer), _frozen(layer))))


def _frozen(layer: Layer) -> str:
    """That a layer is frozen, or how many of its parameters are."""
    frozen = num_parameters(layer) - num_trained(layer)
    if not frozen:
        return ""
    return "frozen" if frozen == num_parameters(layer) else f"{frozen:,} frozen"


def _number(count: int) -> str:
    return f"{count:,}" if count else ""
