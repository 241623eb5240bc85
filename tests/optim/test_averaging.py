"""The moving average of parameters: its closed form, its state, what it allocates."""

import tracemalloc

import numpy as np
import pytest

from distnet.optim import SGD, Adam, Averaged, ExponentialMovingAverage
from distnet.optim.optimizers import BLOCK

SIZE = BLOCK + 617


def parameters(num, dtype=np.float64):
    return np.random.default_rng(0).standard_normal((num, SIZE)).astype(dtype)


@pytest.mark.parametrize("decay", [0.0, 0.7, 0.999])
def test_weights_of_old_parameters_fall_as_a_power(decay):
    history = parameters(6)
    average = ExponentialMovingAverage(SIZE, decay, dtype=np.float64)
    for values in history:
        average.update(values)
    weights = (1 - decay) * decay ** np.arange(5, -1, -1.0)
    weights[0] = decay**5  # it starts as the first
    np.testing.assert_allclose(average.values, weights @ history, rtol=1e-12, atol=1e-12)
    assert weights.sum() == pytest.approx(1)


def test_parameters_that_stay_are_their_own_average():
    (values,) = parameters(1, np.float32)
    average = ExponentialMovingAverage(SIZE)
    assert not average.values.any()
    for _ in range(5):
        average.update(values)
    np.testing.assert_array_equal(average.values, values)


def test_goes_on_from_its_state_with_the_same_bits():
    history = parameters(6, np.float32)
    whole, first, second = (ExponentialMovingAverage(SIZE, 0.9) for _ in range(3))
    for values in history:
        whole.update(values)
    for values in history[:3]:
        first.update(values)
    for name, array in first.state.items():
        second.state[name][...] = array
    for values in history[3:]:
        second.update(values)
    np.testing.assert_array_equal(second.values.view(np.uint32), whole.values.view(np.uint32))
    assert second.state["num_updates"].tolist() == [6]


def test_an_update_allocates_no_vector_and_leaves_the_parameters_alone():
    values, others = parameters(2, np.float32)
    kept = others.copy()
    average = ExponentialMovingAverage(SIZE)
    average.update(values)
    tracemalloc.start()
    average.update(others)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4 * BLOCK / 8
    np.testing.assert_array_equal(others, kept)


@pytest.mark.parametrize("decay", [-0.1, 1.0, np.nan])
def test_a_decay_that_makes_no_sense_is_rejected(decay):
    with pytest.raises(ValueError, match=f"^average: decay: found {decay}, expected a number >= 0"):
        ExponentialMovingAverage(3, decay)


@pytest.mark.parametrize("values", [np.zeros(2, np.float32), np.zeros(3)])
def test_parameters_of_another_shape_or_dtype_are_rejected(values):
    with pytest.raises(ValueError, match=r"^average: found values of .*expected \(3,\) and flo"):
        ExponentialMovingAverage(3).update(values)


def test_the_average_of_an_optimizer_changes_places_with_its_parameters():
    (start,) = parameters(1, np.float32)
    params, gradient = start.copy(), np.ones(SIZE, np.float32)
    averaged = Averaged(SGD(SIZE), 0.75, start)
    averaged.step(params, gradient, 1.0, 1)
    np.testing.assert_array_equal(params, start - 1)
    average = averaged.average.values.copy()
    np.testing.assert_allclose(average, start - 0.25, atol=1e-6)
    averaged.exchange(params)
    np.testing.assert_array_equal(params, average)
    averaged.exchange(params)
    np.testing.assert_array_equal(params, start - 1)
    np.testing.assert_array_equal(averaged.state["average"], average)


def test_an_average_has_the_state_of_its_optimizer_too():
    adam = Adam(SIZE)
    state = Averaged(adam, 0.9, np.zeros(SIZE, np.float32)).state
    assert list(state) == ["m", "v", "average", "num_updates"]
    assert state["m"] is adam.state["m"]
