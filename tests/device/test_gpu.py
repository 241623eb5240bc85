"""On a GPU, NVIDIA's where there is one and one that is simulated: what others here try with NumPy.

`python -m pytest -m gpu` takes NVIDIA's alone, some seconds; `python -m distnet.bench device`
measures as well.
"""

import ctypes
import gc
import mmap
import weakref
from dataclasses import replace

import numpy as np
import pytest
from layer_table import MODE_NAMES, MODES, images
from simulated import Function, Simulated, library, missing
from test_device_layers import OF_DEVICES, results

from distnet.base.arithmetic import FLOAT, Portable
from distnet.benchmarks.device import checks
from distnet.benchmarks.golden import CASES, GOLDEN, train
from distnet.device import Device, DeviceError, cuda, device_named
from distnet.device.body import OnDevice
from distnet.device.images import Windows
from distnet.device.kernels import Kernels
from distnet.nn import Sequential
from distnet.nn.losses import SoftmaxCrossEntropy
from distnet.parallel import SerialCommunicator

# The last one is MAP_NORESERVE, which Python has no name for yet.
PRIVATE_AND_NOT_RESERVED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000


def nvidia():
    """The GPU, or the reason why there is none."""
    try:
        return device_named("cuda"), ""
    except DeviceError as error:
        return None, str(error)


GPU, REASON = nvidia()


@pytest.fixture(
    params=[
        pytest.param(
            "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(GPU is None, reason=REASON)]
        ),
        pytest.param(
            "simulated", marks=pytest.mark.skipif(bool(missing()), reason=missing() or "it is here")
        ),
    ]
)
def gpu(request, monkeypatch):
    if request.param == "cuda":
        return GPU
    monkeypatch.setattr(cuda, "MOST_PARTS", 8)  # blocks that a simulation has to go through
    return Simulated()


@pytest.mark.parametrize("at", MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("case", OF_DEVICES, ids=str)
def test_layers_have_the_bits_of_the_cpu(gpu, case, at):
    expected = results(Sequential([case.make()]), case, at, Portable())
    found = results(OnDevice([case.make()], gpu), case, at, Portable())
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


NAMES = [name for name, _ in checks(Device())]


@pytest.mark.parametrize("name", NAMES)
def test_what_must_hold(gpu, name):
    assert dict(checks(gpu))[name]() == ""


def test_what_is_on_the_host_is_its_own(gpu):
    """A copy that is changed, or freed, right after the call changes nothing there."""
    here = images((64, 64))
    there = gpu.to_device(here)
    expected = here.copy()
    here[...] = 0
    np.testing.assert_array_equal(gpu.to_host(there), expected)
    assert gpu.describe()["device"]


def unlike(shape, seed):
    return images(shape, seed=seed).astype(np.float64) * 3


@pytest.mark.parametrize("rounds", [True, False])
@pytest.mark.parametrize(
    "loss", [{}, {"label_smoothing": 0.1}, {"class_weights": [1, 2, 0.5], "label_smoothing": 0.2}]
)
def test_cross_entropy_is_that_of_the_array_functions(gpu, loss, rounds):
    arithmetic = Portable() if rounds else FLOAT
    objective = SoftmaxCrossEntropy(**loss, arithmetic=arithmetic)
    logits = unlike((3, 70, 3), seed=4).astype(np.float64 if rounds else np.float32)
    labels = (np.arange(210) % 3).reshape(3, 70).astype(np.int32)
    weights = objective.weights
    results = []
    for device in (Device(), gpu):
        there = [None if x is None else device.to_device(x) for x in (logits, labels, weights)]
        divisor = device.to_device(np.array([210.0]))
        found = device.kernels.cross_entropy(*there, divisor, objective)
        results.append([device.to_host(each) for each in found])
    for expected, found in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        tolerance = 0 if rounds else 1e-5
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance / 100)


def test_sums_are_those_of_the_array_functions(gpu):
    x = np.rint(unlike((3, 2600, 5), seed=5) * 1000)
    for device in (Device(), gpu):
        kernels, there = device.kernels, device.to_device(x)
        np.testing.assert_array_equal(device.to_host(kernels.sum_rows(there)), x.sum(axis=1))
        units, largest = kernels.sum_of_units(there.reshape(3, -1), 2.0**4)
        np.testing.assert_array_equal(device.to_host(units), 16 * x.reshape(3, -1).sum(axis=0))
        np.testing.assert_array_equal(device.to_host(largest), abs(x).max(axis=(1, 2)))
        out = device.to_device(np.zeros(units.size, np.float32))
        kernels.from_units(units, 2.0**4, out)
        np.testing.assert_array_equal(device.to_host(out), x.sum(axis=0).ravel())


def test_more_sums_than_a_grid_is_high(gpu, monkeypatch):
    monkeypatch.setattr(cuda, "MOST_RUNS", 2)
    x = np.rint(unlike((5, 300, 3), seed=7) * 1000)
    found = gpu.to_host(gpu.kernels.sum_rows(gpu.to_device(x)))
    np.testing.assert_array_equal(found, x.sum(axis=1))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_images_and_words_are_gathered_as_by_the_array_functions(gpu, dtype):
    rng = np.random.default_rng(2)
    pictures = rng.integers(0, 256, (9, 3, 5, 7)).astype(dtype)
    numbers, shifts = rng.integers(0, 9, (2, 40, 1)), rng.integers(-7, 8, (2, 40, 2))
    places = np.concatenate([numbers, shifts], axis=2).astype(np.int32)
    rows, words = unlike((2, 300, 5), seed=3), rng.integers(0, 6, (2, 300)).astype(np.int32)
    found = []
    for device in (Device(), gpu):
        images, where, x, of = map(device.to_device, (pictures, places, rows, words))
        sums = device.kernels.sum_by_word(x, of, 7)
        found.append(map(device.to_host, (device.kernels.gather(images, where), sums)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_repeated_once_is_read_where_it_is(gpu):
    """As the gradient of a mean over one pixel: NumPy's own view of it cannot be written to."""
    x = unlike((2, 1, 5), seed=8)
    unit = gpu.kernels.unit(gpu.xp.broadcast_to(gpu.to_device(x), x.shape), 3)
    np.testing.assert_array_equal(gpu.to_host(unit), Kernels(np).unit(x, 3))


def test_a_number_that_is_not_finite_is_the_largest(gpu):
    x = unlike((2, 500), seed=6)
    x[1, 77] = np.nan
    _, largest = gpu.kernels.sum_of_units(gpu.to_device(x), 1.0)
    largest = gpu.to_host(largest)
    assert largest[0] == abs(x[0]).max()
    assert np.isnan(largest[1])


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("mlp_")])
def test_every_rule_has_the_bits_of_the_cpu(gpu, name):
    assert train(CASES[name], SerialCommunicator(), device=gpu) == GOLDEN[name]


@pytest.mark.skipif(bool(missing()), reason=missing() or "it is here")
def test_a_window_may_lie_behind_2_to_the_32_numbers():
    """Of one image; in 16 GiB of which a page is touched."""
    number, channels = (1 << 26) + 5, 64
    try:
        memory = mmap.mmap(-1, (4 << 32) + (1 << 20), flags=PRIVATE_AND_NOT_RESERVED)
    except OSError as error:
        pytest.skip(f"no address space: {error}")
    start = np.frombuffer(memory, np.float32)
    start[number * channels :][:channels] = expected = np.arange(channels, dtype=np.float32)
    windows = Windows((1, 1), (number + 1, 1), (number + 1, 1), (1, 1), (1, 1), (number, 0))
    where = cuda.geometry(replace(windows, per_group=channels), 1)
    out = np.zeros(channels, np.float32)
    pointers = [ctypes.c_void_p(each.ctypes.data) for each in (start, out)]
    addresses = [*map(ctypes.addressof, pointers), where.ctypes.data]
    launch = getattr(library(), f"launch_{cuda.NAMES.index('folded<float>')}")
    assert launch((ctypes.c_void_p * 3)(*addresses), 1, 1, channels) == 0
    np.testing.assert_array_equal(out, expected)


@pytest.mark.skipif(bool(missing()), reason=missing() or "it is here")
def test_a_simulated_recording_keeps_its_memory():
    """Also what nobody else needs any more: it is written to whenever it is repeated."""
    device, made = Simulated(), []

    def run():
        made.append(weakref.ref(device.xp.empty(3)))

    again = device.record(run)
    gc.collect()
    of_the_run_before, of_the_recording = made
    assert of_the_run_before() is None
    assert of_the_recording() is not None
    del again
    gc.collect()
    assert of_the_recording() is None


@pytest.mark.skipif(bool(missing()), reason=missing() or "it is here")
def test_a_simulated_kernel_that_writes_beside_its_array_is_found():
    device = Simulated()
    units, out = device.to_device(np.arange(5)), device.to_device(np.zeros(5))
    call = Function("from_units<double>")
    call((1,), (256,), (units, out, np.int64(5), np.float64(0.5)))
    np.testing.assert_array_equal(device.to_host(out), np.arange(5) / 2)
    with pytest.raises(AssertionError, match="written beside an array"):
        call((1,), (256,), (units, out, np.int64(6), np.float64(0.5)))
