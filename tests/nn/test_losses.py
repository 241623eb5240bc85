"""Softmax cross-entropy: the book's figures, extremes, micro-batches, and an explicit graph."""

import numpy as np
import pytest

from distnet.base.arithmetic import Portable
from distnet.nn import PixelCrossEntropy, SoftmaxCrossEntropy, log_softmax, softmax
from distnet.nn.gradient_check import numerical_gradient, relative_error
from distnet.nn.losses import binary_cross_entropy, count_correct, smooth_l1

LOGITS = np.random.default_rng(0).standard_normal((7, 4)) * 2
LABELS = np.array([0, 3, 1, 1, 2, 0, 3])


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([0.3, 2.9, 4.0], [0.01821127, 0.24519181, 0.73659691]),
        ([1010.0, 1000.0, 990.0], [9.999546e-01, 4.53978686e-05, 2.06106005e-09]),
    ],
)
def test_softmax_of_the_book(logits, expected):
    found = softmax(np.array(logits))
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert found.sum() == pytest.approx(1, abs=1e-15)


def test_softmax_of_rows():
    found = softmax(LOGITS)
    np.testing.assert_allclose(found, [softmax(row) for row in LOGITS], rtol=1e-15)
    np.testing.assert_allclose(log_softmax(LOGITS), np.log(found), rtol=1e-13)


@pytest.mark.parametrize(("best", "printed"), [(2, 0.510825457099338), (7, 2.302584092994546)])
def test_cross_entropy_of_the_book(best, printed):
    """Section 4.2.2 for the label 2; printed with 1e-7 inside the logarithm, which is left out."""
    p = np.array([0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
    p[best] = 0.6
    with np.errstate(divide="ignore"):
        loss = SoftmaxCrossEntropy().forward(np.log(p)[np.newaxis], np.array([2]))
    assert loss == pytest.approx(-np.log(p[2]), abs=1e-12)
    assert -np.log(np.exp(-loss) + 1e-7) == pytest.approx(printed, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_are_silent_and_exact(dtype):
    x = np.array([[1e4, 0, -1e4], [-1e30, 0, 0], [0, 1e30, 0]], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = log_softmax(x)
        loss = SoftmaxCrossEntropy()
        value = loss.forward(x[:2], np.array([2, 1]))
        gradient = loss.backward()
    assert found.dtype == gradient.dtype == dtype
    half = np.log(0.5)
    exact = np.array([[0, -1e4, -2e4], [-1e30, half, half], [-1e30, 0, -1e30]])
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    assert value == pytest.approx((2e4 - half) / 2)
    np.testing.assert_allclose(gradient, [[0.5, 0, -0.5], [0, -0.25, 0.25]], atol=1e-7)


def test_the_loss_is_not_capped():
    """With a constant inside the logarithm it could not exceed -log(1e-7) = 16.1."""
    assert SoftmaxCrossEntropy().forward(np.array([[50.0, 0.0]]), np.array([1])) == 50


def test_the_gradient():
    loss, x = SoftmaxCrossEntropy(), LOGITS.copy()
    loss.forward(x, LABELS)
    analytic = loss.backward().copy()
    numerical = numerical_gradient(lambda: loss.forward(x, LABELS), x)
    assert relative_error(analytic, numerical) < 1e-9
    np.testing.assert_allclose(analytic.sum(axis=1), 0, atol=1e-16)


def test_the_incoming_gradient_counts():
    loss = SoftmaxCrossEntropy()
    loss.forward(LOGITS, LABELS)
    plain = loss.backward().copy()
    np.testing.assert_allclose(loss.backward(-2.5), -2.5 * plain, rtol=1e-14)


def test_the_fused_gradient_equals_that_of_the_graph():
    """Appendix A: softmax and cross-entropy node by node, backward through each of them."""
    onehot, n = np.eye(4)[LABELS], len(LABELS)
    e = np.exp(LOGITS)
    total = e.sum(axis=1, keepdims=True)
    inverse = 1 / total
    y = e * inverse
    dlog_y = -onehot / n
    dy = dlog_y / y
    dinverse = (dy * e).sum(axis=1, keepdims=True)
    dtotal = -dinverse * inverse**2
    dx = (dy * inverse + dtotal) * e

    loss = SoftmaxCrossEntropy()
    assert loss.forward(LOGITS, LABELS) == pytest.approx(-(onehot * np.log(y)).sum() / n, abs=1e-12)
    np.testing.assert_allclose(loss.backward(), dx, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cuts", [[3], [1, 2, 6], [6]])
def test_micro_batches_add_up_to_the_batch(cuts):
    whole = SoftmaxCrossEntropy()
    value = whole.forward(LOGITS, LABELS)
    part, losses, gradients = SoftmaxCrossEntropy(), [], []
    for x, labels in zip(np.split(LOGITS, cuts), np.split(LABELS, cuts), strict=True):
        losses.append(part.forward(x, labels, count=len(LOGITS)))
        gradients.append(part.backward().copy())
    assert sum(losses) == pytest.approx(value, abs=1e-14)
    np.testing.assert_allclose(np.concatenate(gradients), whole.backward(), rtol=1e-14)


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1, "class_weights": (1, 2, 3, 4)}])
def test_the_order_of_memory_does_not_matter(settings):
    def gradient(logits):
        loss = SoftmaxCrossEntropy(**settings)
        return loss.forward(logits, LABELS), loss.backward()

    (loss, dx), (expected_loss, expected) = map(gradient, (np.asfortranarray(LOGITS), LOGITS))
    assert loss == expected_loss
    np.testing.assert_array_equal(dx, expected)


def test_logits_are_left_alone():
    loss, x = SoftmaxCrossEntropy(), LOGITS.copy()
    loss.forward(x, LABELS)
    loss.backward()
    np.testing.assert_array_equal(x, LOGITS)


def test_logits_may_be_whole_numbers():
    whole = LOGITS.round().astype(int)
    np.testing.assert_array_equal(log_softmax(whole), log_softmax(whole.astype(float)))
    loss = SoftmaxCrossEntropy()
    expected = loss.forward(whole.astype(float), LABELS), loss.backward().copy()
    assert loss.forward(whole, LABELS) == expected[0]
    np.testing.assert_array_equal(loss.backward(), expected[1])


def test_portable_numbers_are_float64_whatever_the_logits_are():
    x = LOGITS.astype(np.float32)
    assert log_softmax(x, Portable()).dtype == np.float64
    loss = SoftmaxCrossEntropy(arithmetic=Portable())
    loss.forward(x, LABELS)
    assert loss.backward().dtype == np.float64


def test_logits_of_several_shapes_and_types_take_turns():
    """The gradients of one shape are in one array."""
    loss, x = SoftmaxCrossEntropy(label_smoothing=0.1), LOGITS.astype(np.float32)
    for n, logits in [(7, x), (3, x), (3, LOGITS), (7, LOGITS), (7, LOGITS[::-1]), (7, x)]:
        once = SoftmaxCrossEntropy(label_smoothing=0.1)
        for each in (loss, once):
            each.forward(logits[:n], LABELS[:n])
        found = loss.backward()
        assert found is loss.backward()
        np.testing.assert_array_equal(found, once.backward())
        assert found.dtype == logits.dtype


@pytest.mark.parametrize("labels", [LABELS[:, np.newaxis], LABELS[:-1], np.eye(4)[LABELS]])
def test_labels_of_another_shape_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels: found shape .*, expected \(7,\)"):
        SoftmaxCrossEntropy().forward(LOGITS, labels)


@pytest.mark.parametrize("wrong", [-1, 4])
def test_labels_out_of_range_are_refused(wrong):
    labels = LABELS.copy()
    labels[2] = wrong
    with pytest.raises(ValueError, match=rf"labels: found {wrong}, expected .* below 4"):
        SoftmaxCrossEntropy().forward(LOGITS, labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_labels_of_any_integer_type(dtype):
    loss = SoftmaxCrossEntropy()
    assert loss.forward(LOGITS, LABELS.astype(dtype)) == loss.forward(LOGITS, LABELS)


def test_count_correct():
    assert count_correct(np.array([[0, 2, 1], [5, 4, 3], [0, 0, 1]]), np.array([1, 0, 0])) == 2


def test_labels_that_are_no_numbers_are_refused_and_lists_are_taken():
    """As many True and False as classes would else be a mask."""
    x = np.array([[2.0, -1.0], [0.5, 3.0]])
    taken = SoftmaxCrossEntropy().forward(x, [1, 0])
    assert taken == SoftmaxCrossEntropy().forward(x, np.array([1, 0]))
    for labels in (np.array([True, False]), np.array([1.0, 0.0])):
        with pytest.raises(ValueError, match=f"labels: found {labels.dtype}, expected whole numb"):
            SoftmaxCrossEntropy().forward(x, labels)


# Every pixel of images: rows of the same loss.

PIXELS = np.random.default_rng(3).standard_normal((2, 4, 3, 5)) * 2
MASKS = np.random.default_rng(4).integers(0, 4, (2, 3, 5)).astype(np.uint8)


def rows(x):
    """The pixels `(N, K, H, W)` as rows `(N * H * W, K)`."""
    return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])


@pytest.mark.parametrize("count", [None, 77])
def test_pixels_are_rows(count):
    loss, of_rows = PixelCrossEntropy(), SoftmaxCrossEntropy()
    value = loss.forward(PIXELS, MASKS, count)
    expected = of_rows.forward(rows(PIXELS), MASKS.ravel(), count)
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(rows(loss.backward(0.5)), of_rows.backward(0.5), rtol=1e-12)
    np.testing.assert_array_equal(loss.predicted, PIXELS.argmax(axis=1))


def test_ignored_pixels_count_for_nothing():
    masks, x = MASKS.copy(), PIXELS.copy()
    masks[0, :2], masks[1, 2, 1] = 255, 255
    known = masks.ravel() != 255
    loss, of_rows = PixelCrossEntropy(), SoftmaxCrossEntropy()
    value = loss.forward(x, masks)
    assert value == pytest.approx(of_rows.forward(rows(x)[known], masks.ravel()[known]), rel=1e-13)
    gradient = rows(loss.backward())
    np.testing.assert_allclose(gradient[known], of_rows.backward(), rtol=1e-12)
    assert np.all(gradient[~known] == 0)
    assert (loss.weight_of(masks), loss.weight_of(np.full((1, 2, 2), 255))) == (19, 1)
    x[0, :, :2] = 1e30
    assert loss.forward(x, masks) == value


def test_pixels_without_any_label_have_no_loss():
    loss = PixelCrossEntropy()
    assert loss.forward(PIXELS, np.full_like(MASKS, 255)) == 0
    assert not loss.backward().any()


def test_gradient_of_pixels():
    x, masks, loss = PIXELS.copy(), MASKS.copy(), PixelCrossEntropy(ignored=3)
    loss.forward(x, masks)
    found = loss.backward()
    expected = numerical_gradient(lambda: loss.forward(x, masks), x)
    assert relative_error(found, expected) < 1e-8


def test_pixels_as_pytorch_has_them():
    torch = pytest.importorskip("torch", reason="compares with PyTorch, the extra `torch`")
    x = torch.from_numpy(PIXELS).requires_grad_()
    masks = torch.from_numpy(MASKS.astype(np.int64))
    value = torch.nn.functional.cross_entropy(x, masks, ignore_index=2)
    value.backward()
    loss = PixelCrossEntropy(ignored=2)
    assert loss.forward(PIXELS, MASKS) == pytest.approx(value.item(), rel=1e-12)
    np.testing.assert_allclose(loss.backward(), x.grad.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("masks", "message"),
    [(MASKS + 1, "found 4, expected at least 0 and below 4"), (MASKS[:, :2], r"found shape .*")],
)
def test_masks_that_cannot_be(masks, message):
    with pytest.raises(ValueError, match=f"labels: {message}"):
        PixelCrossEntropy().forward(PIXELS, masks)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_smooth_l1(beta):
    d = np.array([-3.0, -0.5 * beta, 0.0, 0.25 * beta, beta, 2.0])
    losses, slopes = smooth_l1(d, beta)
    expected = [3 - beta / 2, beta / 8, 0, beta / 32, beta / 2, 2 - beta / 2]
    np.testing.assert_allclose(losses, expected, atol=1e-15)
    np.testing.assert_allclose(slopes, [-1, -0.5, 0, 0.25, 1, 1])
    x = np.random.default_rng(0).standard_normal(20)
    numerical = numerical_gradient(lambda: float(smooth_l1(x, beta)[0].sum()), x)
    assert relative_error(smooth_l1(x, beta)[1], numerical) < 1e-7


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_smooth_l1_as_pytorch_has_it(beta):
    torch = pytest.importorskip("torch", reason="compares with PyTorch, the extra `torch`")
    x = np.random.default_rng(0).standard_normal(50)
    expected = torch.nn.functional.smooth_l1_loss(
        torch.from_numpy(x), torch.zeros(50), beta=beta, reduction="none"
    )
    np.testing.assert_allclose(smooth_l1(x, beta)[0], expected.numpy(), rtol=1e-12)


def test_binary_cross_entropy_is_that_of_the_sigmoid():
    logits, target = LOGITS, np.random.default_rng(2).random(LOGITS.shape)
    p = 1 / (1 + np.exp(-logits))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum()
    loss, gradient = binary_cross_entropy(logits, target)
    assert loss == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(gradient, p - target, rtol=1e-13)
    found = numerical_gradient(lambda: binary_cross_entropy(logits, 0.9)[0], logits)
    assert relative_error(binary_cross_entropy(logits, 0.9)[1], found) < 1e-8


def test_binary_cross_entropy_of_any_logits_is_finite():
    logits = np.array([-1e30, -200, 0, 200, 1e30], np.float32)
    for target, expected in ((0.0, 1e30), (1.0, 1e30)):
        with np.errstate(over="raise", invalid="raise"):
            loss, gradient = binary_cross_entropy(logits, target)
        assert loss == pytest.approx(expected, rel=1e-6)
        assert gradient.dtype == np.float32
        np.testing.assert_array_equal(
            gradient, [0 - target, 0 - target, 0.5 - target, 1 - target, 1 - target]
        )
