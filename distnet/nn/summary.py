"""What a network looks like when it is printed: a row for every layer that computes something."""

from __future__ import annotations

from distnet.base.arrays import format_shape
from distnet.base.tables import aligned
from distnet.nn.layer import Layer
from distnet.nn.parameters import num_trained
from distnet.nn.sequential import Sequential

HEADER = ("layer", "", "output", "parameters", "multiply-adds")


def summarize(name: str, body: Sequential) -> str:
    """A table of the layers of `body`: what they are, the output of a sample, how much they cost.

    Multiply-adds are those of one sample's forward pass in the products of convolutions and fully
    connected layers, as a direct computation does them. A container that computes more than each of
    its layers once, a decoder that runs them for every word, has a row for what comes on top. What
    is frozen says so.
    """
    rows: list[tuple[str, ...]] = [HEADER]
    for place, layer in body.named_layers():
        on_top = layer.multiply_adds
        for part, leaf in layer.named_leaves():
            cost = num_parameters(leaf), leaf.multiply_adds
            rows.append(_row(f"{place}.{part}".rstrip("."), leaf, *cost))
            on_top -= leaf.multiply_adds
        if on_top:
            rows.append(_row(place, layer, 0, on_top))
    totals = _number(num_parameters(body)), _number(body.multiply_adds)
    rows.append(("total", _frozen(body), format_shape(body.output_shape), *totals))
    title = f"{name} of samples {format_shape(body.input_shape)}"
    return "\n".join([title, *aligned(rows, left=3)])


def _row(name: str, layer: Layer, parameters: int, multiply_adds: int) -> tuple[str, ...]:
    costs = _number(parameters), _number(multiply_adds)
    return name, _what(layer), format_shape(layer.output_shape), *costs


def num_parameters(layer: Layer) -> int:
    """How many numbers of a layer are trained, or frozen."""
    return sum(parameter.size for _, parameter in layer.parameters())


def _what(layer: Layer) -> str:
    return ", ".join(filter(None, (repr(layer), _frozen(layer))))


def _frozen(layer: Layer) -> str:
    """Words for a layer that is frozen, or for how many of its parameters are; "" for none."""
    frozen = num_parameters(layer) - num_trained(layer)
    if not frozen:
        return ""
    return "frozen" if frozen == num_parameters(layer) else f"{frozen:,} frozen"


def _number(count: int) -> str:
    return f"{count:,}" if count else ""
