"""Networks whose layers compute on a GPU, through CuPy: in portable arithmetic to the CPU's bits.

`compute_on` puts another chain around the layers of a network, which stay what they are with their
parameters, and so do files. Where a process trains alone, its sums and its optimizer are there as
well, and some losses anyway, see `training.step.device_pass`.
"""

from distnet.device.body import compute_on
from distnet.device.devices import CPU, Device, DeviceError, choose_device, device_named

__all__ = ["CPU", "Device", "DeviceError", "choose_device", "compute_on", "device_named"]
