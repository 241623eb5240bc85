"""Networks whose layers compute on a GPU, through CuPy: in portable arithmetic to the CPU's bits.

`compute_on` puts another chain around the layers of a network, which stay what they are with their
parameters. Losses, sums over ranks, optimizers and files do not notice.
"""

from distnet.device.body import compute_on
from distnet.device.devices import CPU, Device, DeviceError, choose_device, device_named

__all__ = ["CPU", "Device", "DeviceError", "choose_device", "compute_on", "device_named"]
