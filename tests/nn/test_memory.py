"""Memory: how long a layer's arrays live, and whose memory they overlay."""

import copy
import gc
import pickle
import subprocess
import sys
import weakref

import numpy as np
import pytest
from layer_table import TRAIN, images

from distnet.nn import (
    BatchNorm,
    Branches,
    Conv2d,
    Dropout,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
    Residual,
    Sequential,
    Tanh,
)
from distnet.nn.conv import winograd
from distnet.nn.conv.choice import ALGORITHMS
from distnet.nn.memory import Memory, Pool

SHAPE = (3, 16, 16)


def test_the_two_batch_sizes_used_last_are_kept():
    memory = Memory()
    first = {n: memory.array("y", (n, 4), np.float32) for n in (5, 7)}
    assert memory.array("y", (5, 4), np.float32) is first[5]
    memory.array("y", (9, 4), np.float32)  # in place of 7, which was used less recently
    assert memory.array("y", (5, 4), np.float32) is first[5]
    assert memory.array("y", (7, 4), np.float32) is not first[7]


def test_what_is_made_for_a_batch_size_is_made_once_and_goes_with_it():
    memory, made = Memory(), []
    for n in (1, 2, 1, 3, 2):
        assert memory.once(n, "plan", lambda n=n: made.append(n) or n) == n
    assert made == [1, 2, 3, 2]


def test_an_array_of_another_shape_takes_the_place_of_the_old_one():
    memory = Memory()
    wide = memory.array("y", (2, 8), np.float32)
    assert memory.array("y", (2, 3), np.float32).shape == (2, 3)
    assert memory.array("y", (2, 8), np.float32) is not wide


def test_layers_in_turn_have_disjoint_gradients_and_share_with_the_next_but_one():
    memory = Memory()
    first, *others = (memory.for_first(), *(memory.for_inner(i % 2) for i in range(4)))
    gradients = [m.gradient((2, 50), np.float32) for m in (first, *others)]
    for i, j in [(0, 1), (1, 2), (2, 3), (3, 4)]:
        assert not np.shares_memory(gradients[i], gradients[j])
    for i, j in [(1, 3), (2, 4)]:
        assert np.shares_memory(gradients[i], gradients[j])


def test_a_container_inside_has_slots_of_its_own():
    outer = Memory()
    for container in (outer.for_first(), outer.for_inner(0), outer.for_inner(1)):
        inner = [container.for_inner(0), container.for_inner(1)]
        for m in inner:
            gradient = m.gradient((2, 9), np.float32)
            for other in (outer, container, outer.for_inner(0), outer.for_inner(1)):
                assert not np.shares_memory(gradient, other.gradient((2, 9), np.float32))


def test_a_gradient_is_found_again_until_its_slot_has_grown():
    pool = Pool()
    small, large = Memory(pool), Memory(pool)
    gradient = weakref.ref(small.gradient((2, 10), np.float32))
    assert small.gradient((2, 10), np.float32) is gradient()
    later = large.gradient((2, 1000), np.float32)
    assert gradient() is None  # what it lay in is given back
    assert np.shares_memory(small.gradient((2, 10), np.float32), later)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_holds_no_arrays_and_shares_none(copied):
    memory = Memory()
    y = memory.array("y", (2, 3), np.float32)
    twin = copied(memory)
    assert not np.shares_memory(twin.array("y", (2, 3), np.float32), y)
    assert twin.scratch is not memory.scratch


def test_views_are_made_again_for_other_arrays():
    memory, made = Memory(), []
    first, second = np.zeros(3), np.zeros(3)

    def views(*of):
        return memory.views(4, "forward", of, lambda: made.append(of) or of)

    for of in ((first, None), (first, None), (second, None), (second, first), (second, first)):
        assert views(*of) is not None
    assert [tuple(map(id, of)) for of in made] == [
        (id(first), id(None)),
        (id(second), id(None)),
        (id(second), id(first)),
    ]


def network(dtype=np.float32) -> Network:
    """Containers in containers, layers that share their producer's memory, fused layers."""
    block = [Conv2d(6, 3, pad=1), BatchNorm(), ReLU(), Conv2d(8, 1)]
    layers = [
        Conv2d(8, 3, pad=1),
        ReLU(),
        Residual(block),
        Residual([Conv2d(8, 3, pad=1, stride=2), Tanh()], shortcut=[Conv2d(8, 1, stride=2)]),
        Branches([Conv2d(5, 3, pad=1), ReLU()], [MaxPool2d(3, stride=1, pad=1)], []),
        Sequential([Conv2d(6, 3, pad=1), MaxPool2d(2), Sequential([ReLU(), Dropout(0.2)])]),
        Linear(9),
        Tanh(),
        Linear(4),
    ]
    return Network(layers, SHAPE, seed=2, dtype=dtype)


def step(net: Network, n: int) -> tuple[np.ndarray, ...]:
    y = net.body.forward(images((n, *SHAPE), net.dtype), at=TRAIN).copy()
    dx = net.body.backward(images((n, 4), net.dtype, seed=1)).copy()
    return y, dx, net.parameters.grads.copy()


def give_each_its_own(layer: Layer) -> None:
    """Takes the shared memory away again, in containers too."""
    layer.use(Memory())
    stages = [s.run for s in layer.stages] if isinstance(layer, Sequential) else []
    for inner in (*stages, *getattr(layer, "paths", ())):
        give_each_its_own(inner)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_that_share_memory_compute_what_they_compute_alone(dtype):
    """Small before large and large before small."""
    together, apart = network(dtype), network(dtype)
    give_each_its_own(apart.body)
    for n in (1, 5, 2, 9, 1, 5):
        for found, expected in zip(step(together, n), step(apart, n), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("algorithm", sorted({*ALGORITHMS} - {"im2col", "depthwise"}))
def test_convolutions_that_share_memory_compute_what_they_compute_alone(algorithm):
    filters = (3, 9, 2, 7)

    def make():
        layers = [m for f in filters for m in (Conv2d(f, 3, pad=1, algorithm=algorithm), ReLU())]
        return Network([*layers, Conv2d(1, 16), Linear(4)], SHAPE)

    together, apart = make(), make()
    give_each_its_own(apart.body)
    for n in (1, 5, 2, 9, 1):
        for found, expected in zip(step(together, n), step(apart, n), strict=True):
            np.testing.assert_array_equal(found, expected)


def arrays_of(n: int, net: Network) -> list[weakref.ref]:
    """What is kept for a batch of n, as references that do not keep it."""
    found = []
    for layer in net.body.leaves():
        if n in layer.memory._of_batch:
            made = layer.memory._of_batch[n].made
            found += [weakref.ref(item) for item in made.values() if isinstance(item, np.ndarray)]
            found += [weakref.ref(made["algorithm"])] if "algorithm" in made else []
    return found


def test_batch_sizes_beyond_two_are_given_up():
    net = network()
    step(net, 6)
    old = arrays_of(6, net)
    assert len(old) > 10
    step(net, 3)
    net.predict(images((8, *SHAPE), np.float32))
    gc.collect()
    assert [ref() for ref in old if ref() is not None] == []


def test_large_transformed_filters_are_kept_once_they_are_needed_again(monkeypatch):
    """And never those of other parameters; what is kept has the bits of what is made each time."""
    monkeypatch.setattr(winograd, "_LARGE_BYTES", 0)
    layers = [Conv2d(6, 1), Conv2d(7, 3, pad=1), Linear(4)]
    kept, alone = (Network(copy.deepcopy(layers), SHAPE, seed=1) for _ in range(2))

    def keeps(net: Network) -> bool:
        return "u" in net.body.stages[1].run.memory._constants

    for number, n in enumerate((5, 5, 3, 5, 5, 3)):
        if number == 4:
            kept.parameters.values[...] *= np.float32(1.5)
            kept.parameters.refresh()
        # The other one finds every time that its parameters are new, so that it keeps nothing.
        np.copyto(alone.parameters.values, kept.parameters.values)
        alone.parameters.refresh()
        for found, expected in zip(step(kept, n), step(alone, n), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert (keeps(kept), keeps(alone)) == (number >= 1, False)


def test_evaluation_has_no_memory_for_gradients():
    net = network()
    net.predict(images((8, *SHAPE), np.float32))
    slots = net.body.memory.pool.slots
    assert sum(slot.nbytes for slot in slots.values()) == 0
    step(net, 8)
    assert sum(slot.nbytes for slot in slots.values()) > 0


THREE_BATCH_SIZES = """
import re, numpy as np
from distnet.nn import Conv2d, Linear, MicroBatch, Network, ReLU

convolutions = [Conv2d(32, 3, pad=1), ReLU(), Conv2d(32, 3, pad=1), ReLU()]
network, rng = Network([*convolutions, Linear(10)], (3, 32, 32)), np.random.default_rng(0)
for n in (16, 7):
    logits = network.body.forward(rng.random((n, 3, 32, 32), np.float32), at=MicroBatch())
    network.body.backward(np.ones_like(logits), need_dx=False)
network.predict(rng.random((64, 3, 32, 32), np.float32))
# Not getrusage: its peak is also that of the process that started this one.
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]))
"""


def test_a_process_that_saw_three_batch_sizes_is_small():
    """Two convolutions of 32 filters: a step of 16 images, a short one, then evaluation."""
    command = [sys.executable, "-c", THREE_BATCH_SIZES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150e6


class Transposed(Layer):
    """Hands on views of what it gets, as a user's layer might."""

    def build(self, shape, dtype=np.float32):
        super().build(shape, dtype)
        return shape[::-1]

    def forward(self, x, out=None, at=None):
        y = x.transpose(0, 3, 2, 1)
        return y if out is None else np.add(y, 0, out=out)

    def backward(self, dy, out=None, need_dx=True):
        return dy.transpose(0, 3, 2, 1)


def test_the_gradient_of_a_sum_leaves_the_callers_alone():
    """Also where the first path gives back a view of it."""
    net = Network([Residual([Transposed()]), Linear(2)], (4, 4, 4), dtype=np.float64)
    residual = net.body.layers[0]
    net.forward(images((3, 4, 4, 4)))
    dy = images((3, 4, 4, 4), seed=1)
    before = dy.copy()
    dx = residual.backward(dy)
    np.testing.assert_array_equal(dy, before)
    np.testing.assert_array_equal(dx, before.transpose(0, 3, 2, 1) + before)
