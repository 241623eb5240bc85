"""What `distnet.nn.layer` promises, for every layer of the table, in training and evaluation."""

import numpy as np
import pytest
from layer_table import CASES, MODE_NAMES, MODES, TRAIN, built, images, off_kinks

from distnet.nn import layout

pytestmark = pytest.mark.parametrize("case", CASES, ids=str)
in_both_modes = pytest.mark.parametrize("at", MODES, ids=MODE_NAMES)
in_both_precisions = pytest.mark.parametrize("dtype", [np.float32, np.float64])

N = 5
IN_PLACE = [case for case in CASES if case.make().in_place]


def arguments(case, dtype=np.float64, n=N):
    """x and dy for a batch of n."""
    shape = built(case).forward(off_kinks((n, *case.shape))).shape
    return off_kinks((n, *case.shape), dtype, seed=n), images(shape, dtype, seed=n)


def step(layer, x, dy, at=TRAIN):
    """Copies of everything that one forward and backward pass gives, by name."""
    result = {"y": layer.forward(x, at=at).copy()}
    result["dx"] = layer.backward(dy).copy()
    result |= {f"d{name}": parameter.grad.copy() for name, parameter in layer.parameters()}
    return result | {name: statistic.batch.copy() for name, statistic in layer.statistics()}


def assert_same_bits(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_build_returns_the_shape_of_an_output(case):
    layer, (x, dy) = built(case), arguments(case)
    shape = case.make().build(case.shape, np.float64)
    assert layer.forward(x).shape == (N, *shape)
    assert layer.backward(dy).shape == x.shape


@in_both_modes
@in_both_precisions
def test_the_dtype_is_kept(case, at, dtype):
    layer, (x, dy) = built(case, dtype), arguments(case, dtype)
    result = step(layer, x, dy, at)
    for name in ["y", "dx", *(f"d{name}" for name, _ in layer.parameters())]:
        assert result[name].dtype == dtype, name


def test_single_precision_is_as_good_as_it_can_be(case):
    x, dy = arguments(case, np.float32)
    single = step(built(case, np.float32), x, dy)
    double = step(built(case), x.astype(np.float64), dy.astype(np.float64))
    for name, value in double.items():
        scale = max(1, np.abs(value).max())
        np.testing.assert_allclose(single[name], value, atol=2e-5 * scale, err_msg=name)


@in_both_modes
def test_arguments_are_left_alone(case, at):
    layer, (x, dy) = built(case), arguments(case)
    x_before, dy_before = x.copy(), dy.copy()
    y = layer.forward(x, at=at)
    assert not np.shares_memory(y, x)
    y_before = y.copy()
    dx = layer.backward(dy)
    assert not np.shares_memory(dx, dy)
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(dy, dy_before)
    np.testing.assert_array_equal(y, y_before)


@in_both_modes
def test_backward_may_run_again_with_another_gradient(case, at):
    """An objective of two losses of one output takes the gradient of each, one after the other."""
    x, dy = arguments(case)
    expected, layer = step(built(case), x, dy, at), built(case)
    layer.forward(x, at=at)
    layer.backward(images(dy.shape, dy.dtype, seed=2))
    found = {"dx": layer.backward(dy).copy()}
    found |= {f"d{name}": parameter.grad.copy() for name, parameter in layer.parameters()}
    assert_same_bits(found, {name: expected[name] for name in found})


@in_both_modes
def test_results_go_where_they_are_asked_to(case, at):
    """Into an array of the engine's, into one of any other order, into another again."""
    x, dy = arguments(case)
    expected, layer = step(built(case), x, dy, at), built(case)
    x_before, dy_before = x.copy(), dy.copy()
    for empty in (layout.empty, np.empty, layout.empty):
        y, dx = empty(dy.shape, x.dtype), empty(x.shape, x.dtype)
        assert layer.forward(x, y, at) is y
        np.testing.assert_array_equal(y, expected["y"])
        assert layer.backward(dy, dx) is dx
        np.testing.assert_array_equal(dx, expected["dx"])
        assert_same_bits(step(layer, x, dy, at), expected)
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(dy, dy_before)


@in_both_modes
def test_memory_order_does_not_matter(case, at):
    x, dy = arguments(case)
    expected = step(built(case), x, dy, at)
    found = step(built(case), np.ascontiguousarray(x), np.ascontiguousarray(dy), at)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


@in_both_modes
def test_own_arrays_are_used_again(case, at):
    layer, (x, dy) = built(case), arguments(case)
    y, dx = layer.forward(x, at=at), layer.backward(dy)
    y_again, dx_again = layer.forward(x, at=at), layer.backward(dy)
    assert y_again.__array_interface__ == y.__array_interface__
    assert dx_again.__array_interface__ == dx.__array_interface__


@in_both_precisions
def test_bits_do_not_depend_on_what_ran_before(case, dtype):
    alone = {n: step(built(case, dtype), *arguments(case, dtype, n)) for n in (1, 2, 5)}
    layer = built(case, dtype)
    for n in (5, 2, 5, 1, 1, 2, 5):
        x, dy = arguments(case, dtype, n)
        layer.forward(x[::-1])  # an evaluation of something else in between
        assert_same_bits(step(layer, x, dy), alone[n])


@in_both_modes
def test_parameter_gradients_do_not_need_dx(case, at):
    x, dy = arguments(case)
    expected = step(built(case), x, dy, at)
    layer = built(case)
    layer.forward(x, at=at)
    layer.backward(dy, need_dx=False)
    for name, parameter in layer.parameters():
        np.testing.assert_array_equal(parameter.grad, expected[f"d{name}"], err_msg=name)


def test_gradients_overwrite_what_was_there(case):
    x, dy = arguments(case)
    expected = step(built(case), x, dy)
    layer = built(case)
    for _, parameter in layer.parameters():
        parameter.grad[...] = np.nan
    assert_same_bits(step(layer, x, dy), expected)


def test_new_parameter_values_count_after_refresh(case):
    x, dy = arguments(case)
    old, new = built(case), built(case)
    for layer in (old, new):
        step(layer, x, dy)
        for _, parameter in layer.parameters():
            parameter.value *= -0.75
        layer.refresh()
    fresh = built(case)
    for _, parameter in fresh.parameters():
        parameter.value *= -0.75
    assert_same_bits(step(new, x, dy), step(fresh, x, dy))


def test_the_inbox_is_as_good_as_any_other_memory(case):
    x, dy = arguments(case)
    expected = step(built(case), x, dy)
    layer = built(case)
    inbox = layer.inbox(N)
    if inbox is None:
        inbox = layout.empty(x.shape, x.dtype)
    for _ in range(2):  # filled anew for every step
        inbox[...] = x
        assert_same_bits(step(layer, inbox, dy), expected)


def test_evaluation_treats_samples_one_by_one(case):
    layer, (x, dy) = built(case), arguments(case)
    whole = step(layer, x, dy, None)
    for i in range(N):
        single = step(layer, x[i : i + 1], dy[i : i + 1], None)
        for name in ("y", "dx"):
            np.testing.assert_allclose(
                single[name][0], whole[name][i], rtol=1e-12, atol=1e-12, err_msg=name
            )


@in_both_modes
def test_results_in_place_are_the_same(case, at):
    if not case.make().in_place:
        return
    x, dy = arguments(case)
    expected = step(built(case), x, dy, at)
    layer = built(case)
    assert layer.forward(x, x, at) is x
    np.testing.assert_array_equal(x, expected["y"])
    assert layer.backward(dy, dy) is dy
    np.testing.assert_array_equal(dy, expected["dx"])
