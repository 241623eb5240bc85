"""Layers one after another and side by side, and which layers there are on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distnet.base.arrays import Array
from distnet.device.binary import DeviceBinaryConv2d, DeviceBinaryLinear, DeviceSign
from distnet.device.captioning import DeviceCaptionDecoder
from distnet.device.convolution import DeviceConv2d, DeviceConvTranspose2d
from distnet.device.devices import Device, DeviceError
from distnet.device.elementwise import (
    DeviceDropout,
    DeviceFlatten,
    DeviceLeakyReLU,
    DeviceQuantize,
    DeviceReLU,
    DeviceSigmoid,
    DeviceTanh,
    DeviceUnflatten,
)
from distnet.device.layer import Composed, DeviceLayer
from distnet.device.linear import DeviceGramMatrix, DeviceLinear
from distnet.device.mirror import Mirror
from distnet.device.normalization import (
    DeviceBatchNorm,
    DeviceLocalResponseNorm,
    DeviceScale,
    DeviceStandardize,
)
from distnet.device.pooling import (
    DeviceAvgPool2d,
    DeviceGlobalAvgPool2d,
    DeviceMaxPool2d,
    DeviceMaxUnpool2d,
)
from distnet.device.resampling import DeviceResampling
from distnet.device.sequences import DeviceEmbedding, DeviceLSTM, DevicePositionEmbedding
from distnet.nn import (
    LSTM,
    AvgPool2d,
    BatchNorm,
    BinaryConv2d,
    BinaryLinear,
    Branches,
    CaptionDecoder,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Embedding,
    Flatten,
    GlobalAvgPool2d,
    GramMatrix,
    Layer,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    MaxUnpool2d,
    PositionEmbedding,
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
from distnet.nn.parameters import num_trained


class Chain(Composed[Sequential]):
    """Layers one after another. Raises DeviceError for one that there is none of on a device."""

    def __init__(self, layer: Sequential, device: Device, mirror: Mirror) -> None:
        super().__init__(layer, device, mirror)
        named = layer.named_layers()
        self.inner = [device_layer(each, device, mirror, name) for name, each in named]
        for number, each in enumerate(self.inner):
            each.join(self.inner[:number])

    def check(self, x: Array) -> None:
        for first in self.inner[:1]:
            first.check(x)

    def forward(self, x: Any, training: bool) -> Any:
        for stage in self.inner:
            x = stage.forward(x, training)
        return x

    def backward(self, dy: Any, need_dx: bool) -> Any:
        trained = [num_trained(stage.layer) > 0 for stage in self.inner]
        for number in reversed(range(len(self.inner))):
            # In front of what trains nothing, no gradients are needed.
            needed = need_dx or any(trained[:number])
            dy = self.inner[number].backward(dy, needed)
            if dy is None:
                return None
        return dy


class _DevicePaths(Composed[Any]):
    """Chains that read the same input; the gradients that they return are added up in order."""

    def __init__(self, layer: Residual | Branches, device: Device, mirror: Mirror) -> None:
        super().__init__(layer, device, mirror)
        numbered = enumerate(layer.paths, start=1)
        self.inner = [device_layer(path, device, mirror, f"path{i}") for i, path in numbered]

    def _add_gradients(self, dys: Sequence[Any], need_dx: bool) -> Any:
        dx = None
        for path, dy in zip(self.inner, dys, strict=True):
            part = path.backward(dy, need_dx)
            if need_dx:
                dx = part if dx is None else dx + part
        return dx


class DeviceResidual(_DevicePaths):
    """y = f(x) + s(x)."""

    def forward(self, x: Any, training: bool) -> Any:
        residual, shortcut = (path.forward(x, training) for path in self.inner)
        return residual + shortcut

    def backward(self, dy: Any, need_dx: bool) -> Any:
        return self._add_gradients([dy, dy], need_dx)


class DeviceBranches(_DevicePaths):
    """The channels of several paths side by side."""

    def forward(self, x: Any, training: bool) -> Any:
        return self.kernels.concatenate([path.forward(x, training) for path in self.inner], -1)

    def backward(self, dy: Any, need_dx: bool) -> Any:
        return self._add_gradients([dy[..., part] for part in self.layer.parts], need_dx)


DEVICE_LAYERS: dict[type[Layer], Callable[[Any, Device, Mirror], DeviceLayer[Any]]] = {
    AvgPool2d: DeviceAvgPool2d,
    BatchNorm: DeviceBatchNorm,
    BinaryConv2d: DeviceBinaryConv2d,
    BinaryLinear: DeviceBinaryLinear,
    Branches: DeviceBranches,
    CaptionDecoder: DeviceCaptionDecoder,
    Conv2d: DeviceConv2d,
    ConvTranspose2d: DeviceConvTranspose2d,
    Dropout: DeviceDropout,
    Embedding: DeviceEmbedding,
    Flatten: DeviceFlatten,
    GlobalAvgPool2d: DeviceGlobalAvgPool2d,
    GramMatrix: DeviceGramMatrix,
    LeakyReLU: DeviceLeakyReLU,
    Linear: DeviceLinear,
    LocalResponseNorm: DeviceLocalResponseNorm,
    LSTM: DeviceLSTM,
    MaxPool2d: DeviceMaxPool2d,
    MaxUnpool2d: DeviceMaxUnpool2d,
    PositionEmbedding: DevicePositionEmbedding,
    Quantize: DeviceQuantize,
    ReLU: DeviceReLU,
    Residual: DeviceResidual,
    Resize: DeviceResampling,
    Scale: DeviceScale,
    Sequential: Chain,
    Sigmoid: DeviceSigmoid,
    Sign: DeviceSign,
    Standardize: DeviceStandardize,
    Tanh: DeviceTanh,
    Unflatten: DeviceUnflatten,
    Upsample: DeviceResampling,
}


def device_layer(layer: Layer, device: Device, mirror: Mirror, name: str) -> DeviceLayer[Any]:
    """What computes a layer on a device; raises DeviceError, by name, if nothing does."""
    made = DEVICE_LAYERS.get(type(layer))
    if made is None:
        known = ", ".join(sorted(each.__name__ for each in DEVICE_LAYERS))
        raise DeviceError(
            f"{name}: found {type(layer).__name__}, which nobody has written for devices, expected "
            f"one of {known}; use --device cpu"
        )
    try:
        return made(layer, device, mirror)
    except DeviceError as error:
        raise DeviceError(f"{name}.{error}") from None
