"""Each layer's time is noted, evaluation is not, and the parts are no more than the step."""

from __future__ import annotations

import numpy as np
import pytest

import distnet
from distnet.training.watching.profile import Profile, product_rate


@pytest.fixture
def profile() -> Profile:
    layers = [distnet.Conv2d(4, 3, pad=1), distnet.MaxPool2d(2), distnet.ReLU(), distnet.Linear(3)]
    network = distnet.Network(layers, (1, 8, 8))
    lines: list[str] = []
    profile = Profile(lines.append)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 1, 8, 8), np.uint8), rng.integers(0, 3, 30)
    sets = {"same": (images, labels)}
    settings = {"epochs": 2, "batch_size": 12, "micro_batch_size": 5, "evaluate_on": sets}
    distnet.fit(network, images, labels, callbacks=[profile], **settings)
    assert lines == profile.lines()[: len(lines) - 1] + lines[-1:]
    return profile


def test_every_layer_has_a_row_and_its_time(profile):
    assert [each.name for each in profile.times] == ["conv1+pool1", "relu1", "linear1"]
    assert all(each.forward > 0 and each.backward > 0 for each in profile.times)
    assert sum(each.seconds for each in profile.times) < profile.seconds
    assert (profile.num_steps, profile.num_samples) == (6, 60)
    rows = profile.lines()
    assert rows[1].split()[0] == "layer"
    assert [row.split()[0] for row in rows[2:5]] == ["conv1+pool1", "relu1", "linear1"]
    assert rows[6].startswith("convolutions: ")


def test_layers_in_blocks_have_rows_and_their_convolutions_count():
    inner = [distnet.Conv2d(2, 3, pad=1), distnet.Sequential([distnet.ReLU()])]
    blocks = distnet.Residual(inner), distnet.Branches([distnet.Conv2d(3, 1)], [])
    network = distnet.Network([*blocks, distnet.Linear(3)], (2, 8, 8))
    watched = Profile(print)
    data = np.zeros((6, 2, 8, 8)), [0, 1, 2, 0, 1, 2]
    distnet.fit(network, *data, steps=2, batch_size=6, callbacks=[watched])
    convolutions = ["residual1.path1.conv1", "branches1.path1.conv1"]
    names = [convolutions[0], "residual1.path1.block1.relu1", convolutions[1], "linear1"]
    assert [each.name for each in watched.times] == names
    assert all(each.forward > 0 and each.backward > 0 for each in watched.times)
    of_both = sum(each.seconds for each in watched.times if each.name in convolutions)
    share = f"convolutions: {of_both / watched.seconds:.1%} of a step"
    assert watched.lines()[-1].startswith(share)


def test_evaluation_is_no_part_of_a_step():
    network = distnet.Network([distnet.Linear(3)], (4,))
    watched = Profile(print)
    data = np.zeros((4, 4)), [0, 1, 2, 0]
    distnet.fit(network, *data, steps=0, evaluate_on={"x": data}, callbacks=[watched])
    assert [each.forward for each in watched.times] == [0.0]


def test_a_product_has_a_rate():
    assert product_rate() > 1e8
