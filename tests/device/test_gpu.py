"""On a GPU itself: what the other tests of this folder try with NumPy. Skipped where there is none.

`python -m pytest -m gpu`, some seconds; `python -m distnet.bench device` measures as well.
"""

import numpy as np
import pytest
from layer_table import MODE_NAMES, MODES, images
from test_device_layers import OF_DEVICES, results

from distnet.base.arithmetic import Portable
from distnet.benchmarks.device import checks
from distnet.device import Device, DeviceError, device_named
from distnet.device.body import OnDevice
from distnet.nn import Sequential


def gpu():
    """The GPU, or the reason why there is none."""
    try:
        return device_named("cuda"), ""
    except DeviceError as error:
        return None, str(error)


GPU, REASON = gpu()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(GPU is None, reason=REASON)]


@pytest.mark.parametrize("at", MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("case", OF_DEVICES, ids=str)
def test_layers_have_the_bits_of_the_cpu(case, at):
    expected = results(Sequential([case.make()]), case, at, Portable())
    found = results(OnDevice([case.make()], GPU), case, at, Portable())
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


NAMES = [name for name, _ in checks(Device())]


@pytest.mark.parametrize("name", NAMES)
def test_what_must_hold(name):
    assert dict(checks(GPU))[name]() == ""


def test_what_is_on_the_host_is_its_own():
    """A copy that is changed, or freed, right after the call changes nothing there."""
    here = images((64, 64))
    there = GPU.to_device(here)
    expected = here.copy()
    here[...] = 0
    np.testing.assert_array_equal(GPU.to_host(there), expected)
    assert GPU.describe()["device"]
