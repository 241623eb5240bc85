"""Quirks of the book's published code, each with a test that it is not repeated here.

All 27 are numbered. Those of which layers, losses and networks know nothing are named in ELSEWHERE
with the place that deals with them.
"""

import re

import numpy as np
import pytest
from layer_table import build, images, off_kinks

from distnet.models import DeepConvNet, SimpleConvNet, TwoLayerNet
from distnet.nn import (
    BatchNorm,
    Conv2d,
    Dropout,
    Linear,
    MaxPool2d,
    MicroBatch,
    Network,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
)
from distnet.nn.conv.im2col import col2im, im2col
from distnet.nn.gradient_check import gradient_errors, numerical_gradient
from distnet.objectives import Classification

ELSEWHERE = {
    12: "a fractional number of steps per epoch: distnet/data/sampler.py rounds up, in integers",
    16: "sampling with replacement: distnet/data/sampler.py draws a permutation for each epoch",
    18: "one optimizer object for several networks: distnet/optim, each owns vectors of one size",
    19: "Adam's epsilon without bias correction: distnet/optim/optimizers.py, stated there",
    23: "pickles, unseeded numbers: distnet/training/files/checkpoint.py; seeds are here",
    24: "a loader that needs the network and writes into the package: distnet/data",
    27: "a loss that is not a number, and training goes on: distnet/training/step/trainer.py stops",
}


def measured(net, x, labels):
    """Summed loss and number of correct predictions in evaluation mode."""
    return tuple(Classification(net).measure(x, labels))


def trained(net, x, labels, at):
    """Loss and number of correct predictions of one pass in training mode."""
    return tuple(Classification(net).gradients(x, labels, at))


def test_every_quirk_is_accounted_for_once():
    here = {int(match[1]) for name in globals() if (match := re.match(r"test_q(\d+)_", name))}
    assert sorted([*here, *ELSEWHERE]) == list(range(1, 28))


def test_q1_the_loss_and_its_gradient_belong_together():
    """The book differentiates log(y) and reports log(y + 1e-7)."""
    loss, x, labels = SoftmaxCrossEntropy(), 3 * images((5, 4)), np.array([0, 1, 2, 3, 0])
    loss.forward(x, labels)
    analytic = loss.backward().copy()
    numerical = numerical_gradient(lambda: loss.forward(x, labels), x)
    np.testing.assert_allclose(analytic, numerical, rtol=0, atol=1e-9)
    assert loss.forward(np.array([[100.0, 0.0]]), np.array([1])) == 100  # there at most 16.1


def test_q2_the_loss_heeds_the_incoming_gradient():
    loss = SoftmaxCrossEntropy()
    loss.forward(images((3, 4)), np.array([0, 1, 2]))
    plain = loss.backward().copy()
    np.testing.assert_allclose(loss.backward(1024.0), 1024 * plain, rtol=1e-15)


def test_q3_relu_does_not_write_into_the_gradient_it_is_given():
    layer, dy = build(ReLU(), (4,)), np.ones((3, 4))
    layer.forward(images((3, 4)))
    layer.backward(dy)
    np.testing.assert_array_equal(dy, 1)


def test_q4_single_precision_stays_single():
    x = images((2, 3, 6, 6), np.float32)
    columns = im2col(x, (3, 3))
    assert columns.dtype == col2im(columns, np.empty_like(x), (3, 3)).dtype == np.float32
    for layer in (Conv2d(4, 3), Conv2d(4, 3, algorithm="im2col"), MaxPool2d(2), MaxPool2d(3)):
        y = build(layer, (3, 6, 6), np.float32).forward(x)
        assert y.dtype == layer.backward(y.copy()).dtype == np.float32


def test_q5_labels_of_shape_n_1_are_refused():
    """Indexing with them would add up N x N elements; and one-hot is never guessed from a size."""
    with pytest.raises(ValueError, match=r"labels: found shape \(3, 1\), expected \(3,\)"):
        SoftmaxCrossEntropy().forward(np.zeros((3, 4)), np.array([[0], [1], [2]]))
    assert SoftmaxCrossEntropy().forward(np.zeros((3, 1)), np.array([0, 0, 0])) == 0


def test_q6_batchnorm_normalises_channels_not_pixels():
    layer = build(BatchNorm(), (3, 4, 4))
    assert layer.running_mean.shape == layer.running_var.shape == (3,)
    y = layer.forward(images((5, 3, 4, 4)), at=MicroBatch())
    y = (y - layer.beta.value.reshape(3, 1, 1)) / layer.gamma.value.reshape(3, 1, 1)
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), 0, atol=1e-14)
    assert np.abs(y.mean(axis=0)).min() > 1e-3  # single pixels keep means of their own


def test_q7_running_statistics_start_at_one_and_are_part_of_the_network():
    net = Network([BatchNorm(), Linear(2)], (3,))
    named = net.parameters.named_statistics()
    np.testing.assert_array_equal(named["batchnorm1.running_mean"], 0)
    np.testing.assert_array_equal(named["batchnorm1.running_var"], 1)
    assert net.body.layers[0].eps == 1e-5
    assert {"batchnorm1.gamma", "batchnorm1.beta"} < set(net.parameters.named())


def test_q8_the_gradient_check_of_batchnorm_has_something_to_check():
    """With one sample everything is normalised to zero, and so is every gradient before it."""
    layer, x = build(BatchNorm(), (5,)), off_kinks((4, 5))
    assert max(error for _, error in gradient_errors(layer, x, MicroBatch())) < 1e-6
    assert all(np.abs(p.grad).min() > 1e-3 for _, p in layer.parameters())
    assert np.abs(layer.backward(images((4, 5)))).min() > 1e-4


def test_q9_padding_of_a_pool_counts_in_its_size_and_never_wins():
    layer = build(MaxPool2d(3, stride=2, pad=1), (1, 5, 5))
    y = layer.forward(np.full((1, 1, 5, 5), -1.0))
    np.testing.assert_array_equal(y, np.full((1, 1, 3, 3), -1.0))


def test_q10_dropout_scales_in_training_and_has_a_gradient_in_evaluation():
    layer, x = build(Dropout(0.5), (1000,)), np.ones((4, 1000))
    assert set(np.unique(layer.forward(x, at=MicroBatch()))) == {0.0, 2.0}
    np.testing.assert_array_equal(layer.forward(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)


def test_q11_the_loss_is_taken_in_a_stated_mode_and_no_logit_is_dropped():
    net, labels = DeepConvNet((1, 8, 8)), np.arange(6)
    assert isinstance(net.body.layers[-1], Linear)
    x = images((6, 1, 8, 8), np.float32)
    assert measured(net, x, labels) == measured(net, x, labels)
    key = MicroBatch(step=3)
    assert trained(net, x, labels, key) == trained(net, x, labels, key)
    assert trained(net, x, labels, key) != trained(net, x, labels, MicroBatch())


@pytest.mark.parametrize("n", [50, 150])
def test_q13_no_sample_is_left_out_of_the_count(n):
    """The book cuts into batches of 100 and forgets the rest."""
    net = TwoLayerNet((12,))
    x = images((n, 12), np.float32)
    labels = net.predict(x).argmax(axis=1)
    cuts = range(0, n, 100)
    assert sum(measured(net, x[i : i + 100], labels[i : i + 100])[1] for i in cuts) == n


@pytest.mark.parametrize("shape", [(1, 11, 11), (3, 9, 14)])
def test_q14_sizes_are_inferred_in_integers(shape):
    for net in (SimpleConvNet(shape, kernel=3), DeepConvNet(shape)):
        assert net.predict(images((2, *shape), np.float32)).shape == (2, 10)


def test_q15_the_loss_comes_from_the_forward_pass_of_the_step():
    net, x, labels = TwoLayerNet((12,)), images((5, 12), np.float32), np.arange(5)
    loss, _ = Classification(net).gradients(x, labels, MicroBatch())
    assert loss == pytest.approx(Classification(net).measure(x, labels)[0] / 5, rel=1e-6)


def test_q17_layers_read_the_vector_that_the_optimizer_writes():
    net, x = TwoLayerNet((12,)), images((5, 12), np.float32)
    net.parameters.values[net.parameters.slots[-1].start :] += np.arange(10)
    net.parameters.refresh()
    assert set(net.predict(x).argmax(axis=1)) == {9}
    other = TwoLayerNet((12,), seed=1)
    other.parameters.load(net.parameters.named())  # by name, no lists of indices
    np.testing.assert_array_equal(other.predict(x), net.predict(x))


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_q20_numerical_gradients_need_double_precision(dtype):
    with pytest.raises(TypeError, match=f"found dtype {np.dtype(dtype)}, expected float64"):
        numerical_gradient(lambda: 0.0, np.array([3, 4], dtype))


def test_q20_the_argument_is_restored_even_after_an_error():
    x = np.array([3.0, 4.0])
    with pytest.raises(ZeroDivisionError):
        numerical_gradient(lambda: 1 / 0, x)
    np.testing.assert_array_equal(x, [3, 4])


def test_q21_sigmoid_does_not_overflow_and_relu_is_flat_at_zero():
    with np.errstate(all="raise"):
        y = build(Sigmoid(), (2,)).forward(np.array([[-1000.0, 1000.0]]))
    np.testing.assert_array_equal(y, [[0, 1]])
    layer = build(ReLU(), (1,))
    layer.forward(np.zeros((1, 1)))
    assert layer.backward(np.ones((1, 1))) == 0


def test_q22_a_kernel_that_does_not_fit_is_refused():
    for layer in (Conv2d(2, 5), MaxPool2d(5)):
        with pytest.raises(ValueError, match=r"a kernel of 5.* does not fit into 4"):
            layer.build((1, 4, 4))


def test_q25_the_loss_holds_no_weight_decay():
    net, x, labels = TwoLayerNet((12,)), images((5, 12), np.float32), np.arange(5)
    loss, _ = Classification(net).measure(x, labels)
    assert loss == SoftmaxCrossEntropy().forward(net.predict(x), labels, count=1)
    decayed = {
        s.name for s in net.parameters.slots if net.parameters.decays[s.start : s.stop].any()
    }
    assert decayed == {"linear1.weight", "linear2.weight"}


def test_q26_labels_are_integers_in_training_and_evaluation_alike():
    net, x = TwoLayerNet((12,)), images((3, 12), np.float32)
    for labels in (np.array([1, 5, 9], np.uint8), np.array([1, 5, 9])):
        Classification(net).gradients(x, labels, MicroBatch())
        Classification(net).measure(x, labels)
    with pytest.raises(ValueError, match=r"labels: found shape \(3, 10\)"):
        Classification(net).measure(x, np.eye(10)[[1, 5, 9]])
