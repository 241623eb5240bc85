"""Images of another size by interpolation: two products with small matrices, as on the host."""

from __future__ import annotations

from typing import Any

from distnet.device.devices import Device
from distnet.device.images import channels_first, channels_last
from distnet.device.layer import DeviceLayer
from distnet.device.mirror import Mirror
from distnet.nn.conv.upsample import Resampling


class DeviceResampling(DeviceLayer[Resampling]):
    """y = A x B^T for each image and channel."""

    def __init__(self, layer: Resampling, device: Device, mirror: Mirror) -> None:
        super().__init__(layer, device, mirror)
        self.of_rows, self.of_columns = map(device.to_device, (layer.of_rows, layer.of_columns))

    def forward(self, x: Any, training: bool) -> Any:
        return self._multiply(x, self.of_rows.T, self.of_columns.T)

    def backward(self, dy: Any, need_dx: bool) -> Any:
        return self._multiply(dy, self.of_rows, self.of_columns) if need_dx else None

    def _multiply(self, x: Any, of_rows: Any, of_columns: Any) -> Any:
        """`(G, N, H, W, C)`, `(H, H')` and `(W, W')` to `(G, N, H', W', C)`."""
        operand, matmul = self.numbers.operand, self.kernels.matmul
        by_channel = channels_first(operand(x))  # (G, N, C, H, W)
        between = operand(matmul(by_channel.swapaxes(-1, -2), of_rows))  # (G, N, C, W, H')
        y = matmul(between.swapaxes(-1, -2), of_columns)
        return self.xp.ascontiguousarray(channels_last(y))
