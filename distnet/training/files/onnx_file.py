"""Networks as ONNX files, which onnxruntime and others run: `distnet convert RUN model.onnx`.

A file holds the network in evaluation mode: `images` `(N, C, H, W)` float32, pixels between 0 and 1
as everywhere in distnet, to `logits` `(N, K)`; N is open. Each layer has a function here, which
adds nodes of ONNX's operators (opset 18, onnx.ai/onnx/operators). The `onnx` package is imported
when a file is written.

A layer of whole numbers behind a `Quantize` becomes a product of bytes with sums of 32 bits
(ConvInteger, MatMulInteger), which has the same bits as distnet's. Signed bytes are held 128
higher, with that as their zero point: products of two unsigned bytes alone are exact on every
processor, as x86 instructions for signed ones (VPMADDUBSW) saturate sums at 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.base.files import write_atomically
from distnet.nn import (
    AvgPool2d,
    BatchNorm,
    BinaryConv2d,
    BinaryLinear,
    Branches,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    MaxUnpool2d,
    Network,
    Quantize,
    ReLU,
    Residual,
    Resize,
    Scale,
    Sequential,
    Sigmoid,
    Sign,
    Standardize,
    Tanh,
    Unflatten,
    Upsample,
)
from distnet.nn.conv.pooling import Pooling

SUFFIX = ".onnx"
OPSET, IR_VERSION = 18, 9
INPUT, OUTPUT = "images", "logits"
ZERO_OF_SIGNED = 128  # what stands for 0 where signed bytes are held as unsigned ones


@dataclass
class Graph:
    """Nodes and constants as they come up; a value is known by its name.

    names: what the network calls its layers. maxima: of a pooling that is undone, what it read and
    where the maxima were in that, counted over all samples.
    """

    helper: Any
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    names: dict[Layer, str] = field(default_factory=dict)
    maxima: dict[Layer, tuple[str, str]] = field(default_factory=dict)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output; returns the name of that."""
        return self.add_two(operator, *inputs, **attributes)[0]

    def add_two(
        self, operator: str, *inputs: str, second: str = "", **attributes: Any
    ) -> list[str]:
        """A node with a second output, called like the first one and `second`."""
        output = f"{operator.lower()}_{len(self.nodes)}"
        outputs = [output, output + second] if second else [output]
        node = self.helper.make_node(operator, list(inputs), outputs, **attributes)
        self.nodes.append(node)
        return outputs

    def cast(self, x: str, kind: str) -> str:
        """The value as another type, such as FLOAT."""
        return self.add("Cast", x, to=getattr(self.helper.TensorProto, kind))

    def constant(self, values: Any, kind: type[np.generic] = np.float32) -> str:
        """The name of an array that does not change."""
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(np.asarray(values, kind))
        return name


def write_onnx(path: Path, network: Network, about: Mapping[str, str]) -> None:
    """Writes `network`; `about` becomes the metadata of the file.

    Raises ValueError for a network with a layer that is not in LAYERS, and without the onnx
    package.
    """
    try:
        onnx = import_module("onnx")
    except ImportError:
        raise ValueError(
            f"{path}: an ONNX file needs the onnx package, found none; install it with: pip "
            "install 'distnet-mpi[onnx]'"
        ) from None
    if network.arithmetic.rounds:
        raise ValueError(f"{path}: found portable arithmetic, which ONNX has no operators for")
    write_atomically(path, model_of(network, about, onnx).SerializeToString())


def model_of(network: Network, about: Mapping[str, str], onnx: Any) -> Any:
    """The `ModelProto` of a network; onnx: the package."""
    graph = Graph(onnx.helper)
    graph.names = {leaf: name for name, leaf in network.body.named_leaves()}
    last = added(graph, network.body, INPUT)
    graph.nodes.append(onnx.helper.make_node("Identity", [last], [OUTPUT]))
    kind = onnx.TensorProto.FLOAT
    shapes = (INPUT, network.input_shape), (OUTPUT, network.output_shape)
    images, logits = (
        onnx.helper.make_tensor_value_info(name, kind, ["N", *shape]) for name, shape in shapes
    )
    tensors = [onnx.numpy_helper.from_array(a, name) for name, a in graph.constants.items()]
    whole = onnx.helper.make_graph(graph.nodes, "distnet", [images], [logits], tensors)
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(whole, opset_imports=[opset], ir_version=IR_VERSION)
    model.producer_name = "distnet"
    onnx.helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model, full_check=True)
    return model


def added(graph: Graph, layer: Layer, x: str) -> str:
    """Adds what a layer does to the value called `x`; returns the name of the result."""
    make = LAYERS.get(type(layer))
    if make is None:
        name = f" ({graph.names[layer]})" if layer in graph.names else ""
        raise ValueError(
            f"found a layer {type(layer).__name__}{name}, expected some of "
            f"{', '.join(each.__name__ for each in LAYERS)}; others have no form in ONNX here"
        )
    return make(graph, layer, x)


def _sequential(graph: Graph, layer: Sequential, x: str) -> str:
    before: Layer | None = None
    for each in layer.layers:
        if isinstance(before, Quantize) and _is_of_bytes(before, each):
            x = _product_of_bytes(graph, before, each, x)
        else:
            x = added(graph, each, x)
        before = each
    return x


def _residual(graph: Graph, layer: Residual, x: str) -> str:
    return graph.add("Add", *(added(graph, path, x) for path in layer.paths))


def _branches(graph: Graph, layer: Branches, x: str) -> str:
    return graph.add("Concat", *(added(graph, path, x) for path in layer.paths), axis=1)


def _conv(graph: Graph, layer: Conv2d, x: str) -> str:
    biases = [] if layer.bias is None else [graph.constant(layer.bias.value)]
    return graph.add("Conv", x, _weight(graph, layer), *biases, **_geometry(layer))


def _geometry(layer: Conv2d) -> dict[str, Any]:
    g = layer.geometry
    return {
        "kernel_shape": g.kernel,
        "strides": g.stride,
        "pads": [*g.pad, *g.pad],
        "dilations": g.dilation,
        "group": g.groups,
    }


def _weight(graph: Graph, layer: Conv2d | Linear) -> str:
    """What the layer computes with: signs in a byte each, other weights as they are."""
    weight = layer.computing_weight()
    if not isinstance(layer, BinaryConv2d | BinaryLinear):
        return graph.constant(weight)
    return graph.add("DequantizeLinear", graph.constant(weight, np.int8), graph.constant(1.0))


def _is_of_bytes(before: Quantize, layer: Layer) -> bool:
    """Whether a layer multiplies what fits into bytes; its biases are whole numbers, too."""
    if type(layer) not in (Conv2d, Linear):
        return False
    values = dict(layer.parameters())
    weight = values.pop("weight").value
    return (
        any(_fits(np.array([before.low, before.high]), kind) for kind in (np.uint8, np.int8))
        and _fits(weight, np.int8)
        and all(_fits(each.value, np.int32) for each in values.values())
    )


def _fits(values: Array, kind: type[np.integer[Any]]) -> bool:
    """Whether all are whole numbers of that type."""
    limits = np.iinfo(kind)
    return bool(
        np.array_equal(values, np.rint(values))
        and values.min() >= limits.min
        and values.max() <= limits.max
    )


def _product_of_bytes(graph: Graph, before: Quantize, layer: Any, x: str) -> str:
    """What a convolution or a Linear makes of whole numbers, as whole numbers in floats."""
    zero = 0 if before.low >= 0 else ZERO_OF_SIGNED
    if zero:
        x = graph.add("Add", x, graph.constant(zero))
    inputs = [graph.cast(x, "UINT8"), graph.constant(layer.weight.value + ZERO_OF_SIGNED, np.uint8)]
    inputs += [graph.constant(each, np.uint8) for each in (zero, ZERO_OF_SIGNED)]
    if isinstance(layer, Conv2d):
        sums = graph.add("ConvInteger", *inputs, **_geometry(layer))
    else:
        inputs[0] = graph.add("Flatten", inputs[0], axis=1)
        sums = graph.add("MatMulInteger", *inputs)
    if bias := dict(layer.parameters()).get("bias"):
        pixels = [1] * (len(layer.output_shape) - 1)
        sums = graph.add("Add", sums, graph.constant(bias.value.reshape(-1, *pixels), np.int32))
    return graph.cast(sums, "FLOAT")


def _conv_transpose(graph: Graph, layer: ConvTranspose2d, x: str) -> str:
    biases = [graph.constant(layer.bias.value)] if layer.has_bias else []
    return graph.add(
        "ConvTranspose",
        *(x, graph.constant(layer.weight.value), *biases),
        kernel_shape=layer.kernel,
        strides=layer.stride,
        pads=[*layer.pad, *layer.pad],
        output_padding=layer.output_padding,
    )


def _linear(graph: Graph, layer: Linear, x: str) -> str:
    biases = [graph.constant(layer.bias.value)] if layer.has_bias else []
    vectors = graph.add("Flatten", x, axis=1)
    return graph.add("Gemm", vectors, _weight(graph, layer), *biases)


def _sign(graph: Graph, layer: Sign, x: str) -> str:
    is_below = graph.add("Less", x, graph.constant(0.0))
    return graph.add("Where", is_below, graph.constant(-1.0), graph.constant(1.0))


def _flatten(graph: Graph, layer: Flatten, x: str) -> str:
    return graph.add("Flatten", x, axis=1)


def _unflatten(graph: Graph, layer: Unflatten, x: str) -> str:
    # 0: as many samples as there are.
    return graph.add("Reshape", x, graph.constant((0, *layer.image_shape), np.int64))


def _batch_norm(graph: Graph, layer: BatchNorm, x: str) -> str:
    arrays = layer.gamma, layer.beta, layer.running_mean, layer.running_var
    values = [graph.constant(array.value) for array in arrays]
    return graph.add("BatchNormalization", x, *values, epsilon=layer.eps)


def _lrn(graph: Graph, layer: LocalResponseNorm, x: str) -> str:
    """x (k + alpha / n * the sum of n neighbours' squares)^-beta.

    ONNX's LRN takes images and odd n alone; here channels, padded by zeros, are cut out n times.
    """
    size, before = layer.size, layer.size // 2
    axis, squares = graph.constant([1], np.int64), graph.add("Mul", x, x)
    pads = graph.constant([before, size - 1 - before], np.int64)
    padded = graph.add("Pad", squares, pads, graph.constant(0.0), axis)
    neighbours = []
    for start in range(size):
        stop = start - size + 1 or np.iinfo(np.int64).max  # so many from the end, or all
        ends = (graph.constant([number], np.int64) for number in (start, stop))
        neighbours.append(graph.add("Slice", padded, *ends, axis))
    total = graph.add("Mul", graph.add("Sum", *neighbours), graph.constant(layer.alpha / size))
    base = graph.add("Add", total, graph.constant(layer.k))
    return graph.add("Mul", x, graph.add("Pow", base, graph.constant(-layer.beta)))


def _max_pool(graph: Graph, layer: MaxPool2d, x: str) -> str:
    if not layer.is_undone:
        return graph.add("MaxPool", x, **_windows(layer))
    y, places = graph.add_two("MaxPool", x, second="_places", **_windows(layer))
    graph.maxima[layer] = x, places
    return y


def _max_unpool(graph: Graph, layer: MaxUnpool2d, x: str) -> str:
    """Added to zeros at the places of the maxima.

    ONNX's own MaxUnpool leaves open what a pixel gets that was the maximum of several windows.
    """
    assert layer.pool is not None
    pooled, places = graph.maxima[layer.pool]
    shape, line = graph.add("Shape", pooled), graph.constant([-1], np.int64)
    zeros = graph.add("Reshape", graph.add("Expand", graph.constant(0.0), shape), line)
    values, places = graph.add("Reshape", x, line), graph.add("Reshape", places, line)
    given = graph.add("ScatterElements", zeros, places, values, axis=0, reduction="add")
    return graph.add("Reshape", given, shape)


def _average_pool(graph: Graph, layer: AvgPool2d, x: str) -> str:
    """The mean over all of a window, times what makes it the mean over those that count."""
    mean = graph.add("AveragePool", x, count_include_pad=1, **_windows(layer))
    kh, kw = layer.kernel
    factor = kh * kw / layer.num_pixels  # (OH, OW)
    return mean if np.all(factor == 1) else graph.add("Mul", mean, graph.constant(factor))


def _windows(layer: Pooling) -> dict[str, Any]:
    """Kernel, strides, and as much padding at the end as the last window reaches beyond it."""
    windows = layer.windows
    ends = [
        max((count - 1) * stride + kernel - size - pad, 0)
        for count, stride, kernel, size, pad in zip(
            windows.counts, layer.stride, layer.kernel, windows.size, layer.pad, strict=True
        )
    ]
    return {
        "kernel_shape": layer.kernel,
        "strides": layer.stride,
        "pads": [*layer.pad, *ends],
    }


def _global_average(graph: Graph, layer: GlobalAvgPool2d, x: str) -> str:
    return graph.add("Flatten", graph.add("GlobalAveragePool", x), axis=1)


def _resampling(graph: Graph, layer: Upsample | Resize, x: str) -> str:
    """A x B^T, as the layer has it."""
    rows = graph.add("MatMul", graph.constant(layer.of_rows), x)
    return graph.add("MatMul", rows, graph.constant(layer.of_columns.T))


def _standardize(graph: Graph, layer: Standardize, x: str) -> str:
    shifted = graph.add("Sub", x, graph.constant(layer.shift))
    return graph.add("Mul", shifted, graph.constant(layer.scale))


def _quantize(graph: Graph, layer: Quantize, x: str) -> str:
    whole = graph.add("Round", graph.add("Mul", x, graph.constant(layer.factor)))
    return graph.add("Clip", whole, graph.constant(layer.low), graph.constant(layer.high))


def _scale(graph: Graph, layer: Scale, x: str) -> str:
    pixels = [1] * (len(layer.axes) - 1)  # of (N, C, H, W) two, of (N, C) none
    return graph.add("Mul", x, graph.constant(layer.factor.value.reshape(-1, *pixels)))


def _as(operator: str) -> Callable[[Graph, Any, str], str]:
    """A layer that an operator without attributes computes."""
    return lambda graph, layer, x: graph.add(operator, x)


LAYERS: dict[type[Layer], Callable[[Graph, Any, str], str]] = {
    Sequential: _sequential,
    Residual: _residual,
    Branches: _branches,
    Conv2d: _conv,
    ConvTranspose2d: _conv_transpose,
    Linear: _linear,
    Flatten: _flatten,
    Unflatten: _unflatten,
    BatchNorm: _batch_norm,
    LocalResponseNorm: _lrn,
    BinaryConv2d: _conv,
    BinaryLinear: _linear,
    Sign: _sign,
    MaxPool2d: _max_pool,
    MaxUnpool2d: _max_unpool,
    AvgPool2d: _average_pool,
    GlobalAvgPool2d: _global_average,
    Upsample: _resampling,
    Resize: _resampling,
    ReLU: _as("Relu"),
    LeakyReLU: lambda graph, layer, x: graph.add("LeakyRelu", x, alpha=layer.slope),
    Sigmoid: _as("Sigmoid"),
    Tanh: _as("Tanh"),
    Dropout: lambda graph, layer, x: x,  # in evaluation
    Standardize: _standardize,
    Quantize: _quantize,
    Scale: _scale,
}
