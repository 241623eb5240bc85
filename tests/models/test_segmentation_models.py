"""FCN and SegNet: their sizes, what a skip adds, where SegNet puts values, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest

import distnet
from distnet.models import FCN, SegNet
from distnet.models.segmentation import convolutions
from distnet.nn import MaxPool2d, MaxUnpool2d, MicroBatch
from distnet.training.files.checkpoint import CheckpointError
from distnet.training.files.model_file import classifier_of, read


@pytest.mark.parametrize(
    ("make", "shape", "classes", "count"),
    [
        (FCN, (1, 64, 88), 11, 153_601),
        (FCN, (3, 48, 64), 8, 150_664),
        (SegNet, (3, 48, 64), 8, 145_208),
        (SegNet, (3, 96, 96), 8, 145_208),  # any size: no layer is fully connected
    ],
)
def test_parameters_and_outputs(make, shape, classes, count):
    network = make(shape, classes)
    assert network.parameters.values.size == count
    assert network.output_shape == (classes, *shape[1:])


@pytest.mark.parametrize("make", [FCN, SegNet])
@pytest.mark.parametrize("shape", [(3, 44, 64), (3, 48, 60), (1, 7, 8)])
def test_sizes_that_cannot_be_halved(make, shape):
    with pytest.raises(ValueError, match=r"input_shape .* that 8 divides"):
        make(shape, 5)


@pytest.mark.parametrize("skips", [-1, 4])
def test_as_many_skips_as_there_are_poolings(skips):
    with pytest.raises(ValueError, match="skips"):
        FCN((3, 16, 16), 4, skips=skips)


@pytest.mark.parametrize("skips", [1, 2, 3])
def test_a_skip_whose_scores_are_zero_changes_nothing(skips):
    x = np.random.default_rng(0).random((2, 3, 16, 24), np.float32)
    with_skips, without = FCN((3, 16, 24), 4, skips=skips), FCN((3, 16, 24), 4, skips=0)
    named = with_skips.parameters.named()
    own = [name for name in named if "path2" in name]
    assert len(own) == 2 * skips  # a weight and a bias each
    for name in own:
        named[name][...] = 0
    others = [array for name, array in named.items() if name not in own]
    for to, array in zip(without.parameters.named().values(), others, strict=True):
        to[...] = array
    for network in (with_skips, without):
        network.parameters.refresh()
    np.testing.assert_array_equal(with_skips.predict(x), without.predict(x))
    named[own[0]][...] = 1
    with_skips.parameters.refresh()
    assert (with_skips.predict(x) != without.predict(x)).all(axis=1).any()


def test_upsampling_starts_as_bilinear_interpolation():
    """Without a skip, the scores of 2 x 3 cells are enlarged by 8, smoothly."""
    network = FCN((1, 16, 24), 4, skips=0)
    scores = network.predict(np.random.default_rng(0).random((1, 1, 16, 24), np.float32))[0]
    inner = scores[:, 4:-4, 4:-4]
    bend = abs(np.diff(inner, 2, axis=1)).max(), abs(np.diff(inner, 2, axis=2)).max()
    assert max(bend) < 0.3 * np.ptp(inner)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FCN((1, 8, 8), 2, skips=3, seed=1, filters=(2, 2, 3, 2), dtype=np.float64),
        lambda: SegNet((1, 8, 8), 2, seed=1, filters=(2, 3, 2), dtype=np.float64),
    ],
)
def test_gradients(make):
    """Along random directions, in which all parameters and pixels move at once."""
    network, rng = make(), np.random.default_rng(5)
    x, dy = rng.standard_normal((3, 1, 8, 8)), rng.standard_normal((3, 2, 8, 8))
    values, step = network.parameters.values, 1e-7

    def value(x) -> float:
        network.parameters.refresh()
        return float((network.forward(x, MicroBatch()) * dy).sum())

    value(x)
    dx = network.backward(dy, need_dx=True).copy()
    grads = network.parameters.grads.copy()
    for _ in range(8):
        direction, of_x = rng.standard_normal(values.shape), rng.standard_normal(x.shape)
        around = []
        for sign in (1, -1):
            values += sign * step * direction
            around.append(value(x + sign * step * of_x))
            values -= sign * step * direction
        found = grads @ direction + np.vdot(dx, of_x)
        assert found == pytest.approx((around[0] - around[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("make", [FCN, SegNet])
def test_a_file_keeps_everything(make, tmp_path):
    network = make((3, 16, 24), 5, seed=3)
    network.classes = tuple("abcde")
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 24), np.uint8)
    distnet.save(network, tmp_path / "model.safetensors")
    again = distnet.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict(images), network.predict(images))
    assert again.classes == network.classes
    with pytest.raises(CheckpointError, match=r"outputs of shape \(5, 16, 24\), expected"):
        classifier_of(read(tmp_path / "model.safetensors"), "model.safetensors")


def test_every_pooling_of_segnet_is_undone():
    layers = SegNet((3, 16, 24), 5).body.layers
    undone = [layer.pool for layer in layers if isinstance(layer, MaxUnpool2d)]
    assert undone == [layer for layer in layers if isinstance(layer, MaxPool2d)][::-1]


def test_a_stage_of_convolutions():
    kinds = [type(layer).__name__ for layer in convolutions(4, 5)]
    assert kinds == ["Conv2d", "BatchNorm", "ReLU"] * 2
