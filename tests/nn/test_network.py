"""Network: flat vectors and their views, early gradients, and bits that depend on nothing else."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from layer_table import images

from distnet.nn import (
    BatchNorm,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    Linear,
    MaxPool2d,
    MicroBatch,
    Network,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
)
from distnet.objectives import Classification

SHAPE = (2, 8, 8)


def network(dtype=np.float32, seed=0, dropout=0.5, normalization=BatchNorm):
    """A bit of everything."""
    layers = [Conv2d(6, 3, pad=1), normalization(), ReLU()]
    layers += [Sequential([Conv2d(4, 3, pad=1), MaxPool2d(2), ReLU()]), Conv2d(3, 3), Tanh()]
    layers += [Linear(7), ReLU(), Dropout(dropout), Linear(5)]
    return Network(layers, SHAPE, seed=seed, dtype=dtype)


def batch(n, dtype=np.float32, seed=0):
    return images((n, *SHAPE), dtype, seed), np.random.default_rng(seed).integers(0, 5, n)


def run(net, n, step=0, **options):
    """Copies of all that one micro-batch gives."""
    x, labels = batch(n, net.dtype, step)
    result = Classification(net).gradients(x, labels, MicroBatch(step=step), **options)
    return *result, net.parameters.grads.copy(), net.parameters.batch_statistics.copy()


def assert_same(found, expected):
    assert found[:2] == expected[:2]
    np.testing.assert_array_equal(found[2], expected[2])
    np.testing.assert_array_equal(found[3], expected[3])


# The flat vectors.


def test_slots_lie_end_to_end_and_cover_the_vector():
    parameters = network().parameters
    starts, stops = [s.start for s in parameters.slots], [s.stop for s in parameters.slots]
    assert starts == [0, *stops[:-1]]
    assert stops[-1] == parameters.values.size == parameters.grads.size == parameters.decays.size
    assert all(s.stop - s.start == np.prod(s.shape) for s in parameters.slots)
    assert {a.dtype for a in (parameters.values, parameters.grads)} == {np.dtype(np.float32)}
    assert parameters.decays.dtype == bool


def test_every_parameter_is_a_view():
    net = network()
    for _, parameter in net.body.parameters():
        assert np.shares_memory(parameter.value, net.parameters.values)
        assert np.shares_memory(parameter.grad, net.parameters.grads)
    for name, value in net.parameters.named().items():
        assert np.shares_memory(value, net.parameters.values), name


def test_only_weights_decay():
    parameters = network().parameters
    decayed = {s.name for s in parameters.slots if parameters.decays[s.start : s.stop].all()}
    free = {s.name for s in parameters.slots if not parameters.decays[s.start : s.stop].any()}
    assert decayed == {s.name for s in parameters.slots if s.name.endswith(".weight")}
    assert decayed | free == {s.name for s in parameters.slots}


def test_name_at_finds_the_parameter_of_an_element():
    parameters = network().parameters
    for slot in parameters.slots:
        assert parameters.name_at(slot.start) == parameters.name_at(slot.stop - 1) == slot.name


def test_a_change_of_the_vector_counts_after_refresh():
    net, other = network(), network(seed=1)
    before = run(net, 4)
    net.parameters.values[...] = other.parameters.values
    net.parameters.refresh()
    found = run(net, 4)
    assert found[0] != before[0]
    assert_same(found, run(other, 4))


def contents(net):
    """Copies of the parameters and statistics by name."""
    arrays = net.parameters.named() | net.parameters.named_statistics()
    return {name: value.copy() for name, value in arrays.items()}


def moved(net):
    """The network, with running statistics that are not those of the start."""
    net.parameters.statistics[...] += np.linspace(0.1, 0.2, net.parameters.statistics.size)
    return net


def test_load_restores_a_network():
    net, other = moved(network()), network(seed=1)
    other.parameters.load(contents(net))
    np.testing.assert_array_equal(other.parameters.values, net.parameters.values)
    np.testing.assert_array_equal(other.parameters.statistics, net.parameters.statistics)
    assert_same(run(other, 4), run(net, 4))


def test_load_without_statistics_leaves_them():
    net, other = moved(network()), network(seed=1)
    before = other.parameters.statistics.copy()
    other.parameters.load(net.parameters.named(), statistics=False)
    np.testing.assert_array_equal(other.parameters.values, net.parameters.values)
    np.testing.assert_array_equal(other.parameters.statistics, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1.bias": np.zeros(7)}, r"conv1.bias: found \(7,\), expected shape \(6,\)"),
        ({"conv1.bias": None}, r"conv1.bias: found nothing, expected shape \(6,\)"),
        ({"conv9.bias": np.zeros(7)}, r"conv9.bias: found \(7,\), expected nothing"),
        ({"batchnorm1.running_var": None}, r"batchnorm1.running_var: found nothing, expected sha"),
    ],
)
def test_load_refuses_what_does_not_fit_and_changes_nothing(change, message):
    net, other = network(), moved(network(seed=1))
    named, before = contents(other) | change, contents(net)
    with pytest.raises(ValueError, match=message):
        net.parameters.load({name: value for name, value in named.items() if value is not None})
    np.testing.assert_equal(contents(net), before)


# Gradients that are final early.


def test_gradients_are_final_from_where_ready_says():
    net, snapshots = network(), []
    net.parameters.grads[...] = np.nan
    run(net, 4, ready=lambda start: snapshots.append((start, net.parameters.grads[start:].copy())))
    starts = [start for start, _ in snapshots]
    assert starts == sorted(starts, reverse=True)
    assert starts[-1] == 0
    slots = net.parameters.slots
    parents = {slot.start for slot in slots if slot.name.endswith((".weight", ".gamma"))}
    inside_of_a_block = {s.start for s in net.parameters.slots if s.name.startswith("block1.")}
    assert set(starts) >= parents - inside_of_a_block
    for start, suffix in snapshots:
        np.testing.assert_array_equal(suffix, net.parameters.grads[start:])


def test_ready_changes_nothing():
    assert_same(run(network(), 4, ready=lambda start: None), run(network(), 4))


# The same bits, whatever happened before.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_micro_batch_does_not_depend_on_what_ran_before(dtype):
    alone = {(n, step): run(network(dtype), n, step) for n in (1, 3, 4) for step in (0, 1)}
    net = network(dtype)
    for n, step in [(4, 0), (4, 0), (1, 1), (4, 1), (3, 0), (3, 1), (1, 0), (4, 0)]:
        Classification(net).measure(*batch(n, dtype, seed=9))
        assert_same(run(net, n, step), alone[n, step])
        assert run(net, n, step)[2].dtype == dtype


def test_the_input_may_be_given_in_the_inbox_of_the_first_layer():
    net = network()
    x, labels = batch(4)
    expected = run(net, 4)
    inbox = net.body.inbox(4)
    inbox[...] = x
    loss, correct = Classification(net).gradients(inbox, labels, MicroBatch())
    assert (loss, correct) == expected[:2]
    np.testing.assert_array_equal(net.parameters.grads, expected[2])


def test_any_layer_can_be_the_first():
    assert Network([Flatten(), Linear(5)], SHAPE).body.inbox(4) is None


def test_two_networks_do_not_share_memory():
    one, two = network(), network()
    expected = run(one, 4)
    run(two, 4, step=1)
    assert_same(run(one, 4), expected)


# Losses.


@pytest.mark.parametrize("cuts", [[2], [1, 4, 5]])
def test_micro_batches_add_up_to_the_batch(cuts):
    # Dropout and batch normalisation work on micro-batches by design.
    net = network(np.float64, dropout=0, normalization=Tanh)
    x, labels = batch(6, np.float64)
    whole = Classification(net).gradients(x, labels, MicroBatch())
    expected, totals = net.parameters.grads.copy(), np.zeros(2)
    grads = np.zeros_like(expected)
    for part, some in zip(np.split(x, cuts), np.split(labels, cuts), strict=True):
        totals += Classification(net).gradients(part, some, MicroBatch(), 6)
        grads += net.parameters.grads
    np.testing.assert_allclose(totals, whole, rtol=1e-13)
    np.testing.assert_allclose(grads, expected, rtol=1e-10, atol=1e-14)


def test_evaluation_gives_the_sum_of_the_losses_and_counts_all():
    net = network(np.float64)
    x, labels = batch(7, np.float64)
    loss, correct = Classification(net).measure(x, labels)
    parts = [Classification(net).measure(x[i : i + 3], labels[i : i + 3]) for i in (0, 3, 6)]
    assert loss == pytest.approx(sum(part for part, _ in parts), rel=1e-12)
    assert correct == sum(part for _, part in parts) == (net.predict(x).argmax(1) == labels).sum()


def test_training_reports_the_loss_of_the_pass_that_it_differentiates():
    net = network()
    x, labels = batch(4)
    loss, correct = Classification(net).gradients(x, labels, MicroBatch(step=3))
    logits = net.body.forward(x, at=MicroBatch(step=3))
    assert loss == SoftmaxCrossEntropy().forward(logits, labels)
    assert correct == (logits.argmax(axis=1) == labels).sum()


# Arguments that would be broadcast, or indexed from the end, without a word.


@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (4, 2, 8, 1), (4, 128), (2, 8, 8)])
def test_inputs_of_another_shape_are_refused(shape):
    net, x = network(), np.zeros(shape, np.float32)
    message = r"found shape .*, expected \(N, 2, 8, 8\)"
    with pytest.raises(ValueError, match=f"images: {message}"):
        net.predict(x)
    with pytest.raises(ValueError, match=f"input: {message}"):
        Classification(net).gradients(x, np.zeros(len(x), int), MicroBatch())


# Predictions.


def test_predictions_stay():
    net = network()
    x = images((7, *SHAPE), np.float32)
    first = net.predict(x)
    kept = first.copy()
    net.predict(images((7, *SHAPE), np.float32, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_large_samples_come_in_parts_of_a_block():
    """So that ranks that are given whole blocks compute what one process does."""
    for side, size in ((28, 100), (64, 100), (96, 25), (224, 5), (700, 1)):
        assert Network([Linear(1)], (3, side, side), seed=None)._samples_of_a_pass() == size
    net = Network([Linear(3)], (3, 224, 224), dtype=np.float64)
    x = images((12, 3, 224, 224))
    parts = [net.forward(x[start : start + 5]).copy() for start in (0, 5, 10)]
    np.testing.assert_array_equal(net.predict(x), np.concatenate(parts))


def test_without_a_seed_parameters_are_zero():
    net = Network([Linear(3), BatchNorm()], (4,), seed=None)
    assert not net.parameters.values.any()
    assert net.parameters.statistics.tolist() == [0, 0, 0, 1, 1, 1]


def test_predictions_of_many_are_those_of_blocks():
    net, x = network(), images((230, *SHAPE), np.float32)
    parts = [net.predict(x[start : start + 100]) for start in range(0, 230, 100)]
    np.testing.assert_array_equal(net.predict(x), np.concatenate(parts))


def test_bytes_mean_0_to_1():
    net = network(dtype=np.float64)
    pixels = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)
    np.testing.assert_allclose(net.predict(pixels), net.predict(pixels / 255), rtol=1e-12)


def test_one_channel_may_be_left_out_and_channels_may_come_last():
    grey = Network([Linear(3)], (1, 4, 5))
    x = np.random.default_rng(0).random((2, 4, 5), np.float32)
    np.testing.assert_array_equal(grey.predict(x), grey.predict(x[:, None]))
    net, x = network(), images((2, *SHAPE), np.float32)
    np.testing.assert_array_equal(net.predict(x.transpose(0, 2, 3, 1)), net.predict(x))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, *SHAPE), np.int64), "found int64, expected uint8"),
        (np.zeros(SHAPE), r"a single image is images\[None\]"),
        (np.full((2, *SHAPE), np.nan), "the data hold NaN in image 0"),
        (np.zeros((0, *SHAPE)), "found an empty array"),
        ("digits", "found <U6"),
    ],
)
def test_what_cannot_be_predicted_has_one_line(x, message):
    with pytest.raises(ValueError, match=message):
        network().predict(x)


def test_threads_take_turns():
    net = network()
    batches = [images((150, *SHAPE), np.float32, seed) for seed in range(8)]
    expected = [net.predict(x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, right in zip(pool.map(net.predict, batches), expected, strict=True):
                np.testing.assert_array_equal(found, right)


MANY = """
import re, numpy as np
from distnet.models import DeepConvNet

logits = DeepConvNet().predict(np.zeros((10_000, 1, 28, 28), np.uint8))
assert logits.shape == (10_000, 10)
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]))
"""


def test_ten_thousand_images_take_little_memory():
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200 * 2**20


@pytest.mark.parametrize("first", [Conv2d(2, 3, pad=1), Linear(2)], ids=["inbox", "plain"])
def test_one_channel_is_not_taken_for_three(first):
    network = Network([first, Linear(2)], (3, 4, 4))
    with pytest.raises(ValueError, match=r"input: found shape \(2, 1, 4, 4\), expected \(N, 3, 4"):
        network.as_input(np.zeros((2, 1, 4, 4), np.float32))


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.bool_])
def test_forward_takes_no_pixels_for_numbers(kind):
    net, x = network(), images((2, *SHAPE), np.uint8)
    with pytest.raises(ValueError, match=r"forward: found \w+, expected floats, .* as 0 to 1$"):
        net.forward(x.astype(kind))
    with pytest.raises(ValueError, match="forward: found"):
        Classification(net).gradients(x.astype(kind), np.zeros(2, int), MicroBatch())
    np.testing.assert_array_equal(net.forward(net.as_input(x)), net.predict(x))


def test_a_pass_may_be_gone_back_through_again_but_no_other_one():
    net, x, at = network(), images((2, *SHAPE), np.float32), MicroBatch()
    dy = np.ones((2, *net.output_shape), np.float32)
    with pytest.raises(ValueError, match="found no forward pass before it"):
        net.backward(dy)
    net.forward(x)
    net.forward(x, at)  # as a generator that makes images twice, and learns of the second ones
    net.forward(x, at)
    net.backward(dy)
    with pytest.raises(ValueError, match="found a second one after 2 forward passes"):
        net.backward(dy)
    net.forward(x, at)
    for _ in range(3):
        net.backward(dy)
    net.forward(x, at)
    net.predict(x)
    with pytest.raises(ValueError, match="found a pass in evaluation after the one in training"):
        net.backward(dy)
    net.forward(x, at)
    with pytest.raises(ValueError, match=r"a gradient of shape \(1, .*, that of the outputs"):
        net.backward(dy[:1])


def test_forward_takes_words():
    net = Network([Embedding(20, 4), Linear(3)], (5,), seed=0)
    words = np.arange(10).reshape(2, 5)
    np.testing.assert_array_equal(net.forward(words), net.forward(words.astype(np.float32)))


def test_the_layers_of_a_network_stay():
    """Another one in the list was in copies and files, and computed nothing."""
    network = Network([Linear(4), ReLU(), Linear(3)], (5,))
    with pytest.raises(TypeError, match="does not support item assignment"):
        network.body.layers[2] = Linear(7)
    assert not hasattr(network.body.layers, "append")
