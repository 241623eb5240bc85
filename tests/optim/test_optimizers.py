"""Every optimizer against its textbook formula, the book's figures, and what training relies on.

The formulas are written out of place, in float64, as the papers print them.
"""

import math
import tracemalloc

import numpy as np
import pytest

from distnet.optim import OPTIMIZERS, make_optimizer
from distnet.optim.optimizers import BLOCK, squared_norm

SIZE = 2 * BLOCK + 617  # two whole blocks and a short one


# One update: (p, g, lr, t, hyper-parameters h, state s) -> new p. `s` maps names to vectors.


def sgd(p, g, lr, t, h, s):
    return p - lr * g


def momentum(p, g, lr, t, h, s):
    s["v"] = h["momentum"] * s["v"] - lr * g
    return p + s["v"]


def nesterov(p, g, lr, t, h, s):
    mu, v = h["momentum"], s["v"]
    s["v"] = mu * v - lr * g
    return p + mu * mu * v - (1 + mu) * lr * g


def adagrad(p, g, lr, t, h, s):
    s["h"] = s["h"] + g * g
    return p - lr * g / (np.sqrt(s["h"]) + h["eps"])


def rmsprop(p, g, lr, t, h, s):
    s["h"] = h["decay_rate"] * s["h"] + (1 - h["decay_rate"]) * g * g
    return p - lr * g / (np.sqrt(s["h"]) + h["eps"])


def adam(p, g, lr, t, h, s):
    s["m"] = h["beta1"] * s["m"] + (1 - h["beta1"]) * g
    s["v"] = h["beta2"] * s["v"] + (1 - h["beta2"]) * g * g
    m_hat = s["m"] / (1 - h["beta1"] ** t)
    v_hat = s["v"] / (1 - h["beta2"] ** t)
    return p - lr * m_hat / (np.sqrt(v_hat) + h["eps"])


def adam_of_the_book(p, g, lr, t, h, s):
    lr_t = lr * math.sqrt(1 - h["beta2"] ** t) / (1 - h["beta1"] ** t)
    s["m"] = s["m"] + (1 - h["beta1"]) * (g - s["m"])
    s["v"] = s["v"] + (1 - h["beta2"]) * (g * g - s["v"])
    return p - lr_t * s["m"] / (np.sqrt(s["v"]) + h["eps_hat"])


# Those of whole arrays also get the penalty, weight decay times p, by itself.


def lars(p, g, penalty, lr, t, h, s):
    ratio = h["trust"] * np.linalg.norm(p) / (np.linalg.norm(g) + np.linalg.norm(penalty))
    s["v"] = h["momentum"] * s["v"] - lr * ratio * (g + penalty)
    return p + s["v"]


def lamb(p, g, penalty, lr, t, h, s):
    direction = adam(np.zeros_like(p), g, -1.0, t, h, s) + penalty
    return p - lr * np.linalg.norm(p) / np.linalg.norm(direction) * direction


# name: the formula and hyper-parameters that all leave their mark on the result.
CASES = {
    "sgd": (sgd, {}),
    "momentum": (momentum, {"momentum": 0.7}),
    "nesterov": (nesterov, {"momentum": 0.7}),
    "adagrad": (adagrad, {"eps": 0.1}),
    "rmsprop": (rmsprop, {"decay_rate": 0.8, "eps": 0.1}),
    "adam": (adam, {"beta1": 0.7, "beta2": 0.9, "eps": 0.1}),
    "adamw": (adam, {"beta1": 0.7, "beta2": 0.9, "eps": 0.1}),
    "lars": (lars, {"momentum": 0.7, "trust": 0.5}),
    "lamb": (lamb, {"beta1": 0.7, "beta2": 0.9, "eps": 0.1}),
}
WEIGHT_DECAY = 0.05
NUM_UPDATES = 6

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
ELEMENTWISE = [name for name, optimizer in OPTIMIZERS.items() if optimizer.elementwise]
LAYERWISE = [name for name in OPTIMIZERS if name not in ELEMENTWISE]
SEGMENTS = [(0, 617), (617, 617), (617, 900), (900, SIZE)]  # one of them longer than a block


def learning_rate(t):
    return 0.1 / t


def random_vectors(num, size=SIZE, dtype=np.float64):
    return np.random.default_rng(0).standard_normal((num, size)).astype(dtype)


def random_mask(size=SIZE):
    return (np.random.default_rng(1).random(size) < 0.5).astype(np.float32)


def run(optimizer, params, gradients, first=1):
    for t, grads in enumerate(gradients, first):
        optimizer.step(params, grads, learning_rate(t), t)
    return params


def run_formula(name, hyper, params, gradients, decayed, segments=((0, SIZE),)):
    params, decayed = params.astype(np.float64), decayed.astype(np.float64)
    state = [dict.fromkeys(("m", "v", "h"), np.zeros(stop - start)) for start, stop in segments]
    for t, grads in enumerate(np.asarray(gradients, np.float64), 1):
        penalty = WEIGHT_DECAY * decayed * params
        for (start, stop), s in zip(segments, state, strict=True):
            if start < stop:
                piece = slice(start, stop)
                vectors = params[piece], grads[piece], penalty[piece]
                params[piece] = formula_of(name, *vectors, learning_rate(t), t, hyper, s)
    return params


def formula_of(name, p, g, penalty, lr, t, hyper, state):
    formula = CASES[name][0]
    if name in LAYERWISE:
        return formula(p, g, penalty, lr, t, hyper, state)
    if name == "adamw":
        return formula(p, g, lr, t, hyper, state) - lr * penalty
    return formula(p, g + penalty, lr, t, hyper, state)


def test_every_optimizer_has_its_formula_here():
    assert CASES.keys() == OPTIMIZERS.keys()


@every_optimizer
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 3e-6)])
def test_follows_its_formula(name, dtype, tolerance):
    start, *gradients = random_vectors(1 + NUM_UPDATES, dtype=dtype)
    hyper, decayed = CASES[name][1], random_mask()
    optimizer = make_optimizer(
        name,
        SIZE,
        dtype=dtype,
        weight_decay=WEIGHT_DECAY,
        decayed=decayed,
        segments=SEGMENTS,
        **hyper,
    )
    kept = [grads.copy() for grads in gradients]
    params = run(optimizer, start.copy(), gradients)
    expected = run_formula(name, hyper, start, gradients, decayed, SEGMENTS)
    np.testing.assert_allclose(params, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(gradients, kept)


@pytest.mark.parametrize(
    ("name", "which"), [(name, which) for name in CASES for which in CASES[name][1]]
)
def test_formulas_tell_a_hyper_parameter_that_is_off_by_a_thousandth(name, which):
    start, *gradients = random_vectors(1 + NUM_UPDATES, size=100)
    hyper = CASES[name][1]
    wrong = {**hyper, which: hyper[which] * 1.001}
    params = run(make_optimizer(name, 100, dtype=np.float64, **wrong), start.copy(), gradients)
    expected = run_formula(name, hyper, start, gradients, np.zeros(100), [(0, 100)])
    assert np.abs(params - expected).max() > 1e-6


# Book section 6.1, on f(x, y) = x²/20 + y² from (-7, 2): where 30 updates end, to the digits of its
# program (none published for the last two), and the book's defaults for the formula.
BOOK = {
    "sgd": (sgd, 0.95, {}, {}, (-0.350393, 0.084782)),
    "momentum": (momentum, 0.1, {}, {"momentum": 0.9}, (0.896414, 0.088086)),
    "adagrad": (adagrad, 1.5, {}, {"eps": 1e-7}, (-0.120162, 2.49e-17)),
    "adam": (
        adam_of_the_book,
        0.3,
        {"eps_hat": 1e-7},
        {"beta1": 0.9, "beta2": 0.999, "eps_hat": 1e-7},
        (0.136007, 0.318245),
    ),
    "nesterov": (nesterov, 0.1, {}, {"momentum": 0.9}, None),
    "rmsprop": (rmsprop, 0.1, {}, {"decay_rate": 0.99, "eps": 1e-7}, None),
}


@pytest.mark.parametrize("name", BOOK)
def test_trajectory_of_the_book(name):
    formula, lr, hyper, defaults, figures = BOOK[name]
    optimizer = make_optimizer(name, 2, dtype=np.float64, **hyper)
    slope = np.array([0.1, 2.0])
    params, expected = np.array([-7.0, 2.0]), np.array([-7.0, 2.0])
    state = dict.fromkeys(("m", "v", "h"), np.zeros(2))
    for t in range(1, 31):
        optimizer.step(params, slope * params, lr, t)
        expected = formula(expected, slope * expected, lr, t, defaults, state)
        np.testing.assert_allclose(params, expected, rtol=0, atol=1e-9)
    if figures:
        np.testing.assert_allclose(params, figures, rtol=0, atol=5.1e-7)


def test_momentum_on_a_parabola_is_a_power_of_a_matrix():
    # With gradient 2 p: (p, v) -> (p + mu v - 2 lr p, mu v - 2 lr p).
    mu, lr = 0.9, 0.1
    matrix = np.array([[1 - 2 * lr, mu], [-2 * lr, mu]])
    params = np.array([3.0])
    optimizer = make_optimizer("momentum", 1, dtype=np.float64, momentum=mu)
    for t in range(1, 41):
        optimizer.step(params, 2 * params, lr, t)
    expected = np.linalg.matrix_power(matrix, 40) @ [3.0, 0.0]
    np.testing.assert_allclose([params[0], optimizer.state["v"][0]], expected, rtol=1e-12)


def test_nesterov_is_the_method_that_looks_ahead():
    # Sutskever et al. 2013, equations 3 and 4; the parameters held are the point looked ahead to.
    mu, lr, slope = 0.9, 0.1, np.array([0.1, 2.0])
    position, velocity = np.array([-7.0, 2.0]), np.zeros(2)
    params = position.copy()
    optimizer = make_optimizer("nesterov", 2, dtype=np.float64, momentum=mu)
    for t in range(1, 31):
        velocity = mu * velocity - lr * slope * (position + mu * velocity)
        position = position + velocity
        optimizer.step(params, slope * params, lr, t)
        np.testing.assert_allclose(params, position + mu * velocity, rtol=0, atol=1e-12)


def test_eps_of_adam_is_added_after_the_bias_is_corrected():
    # The first update has m_hat = g and v_hat = g², so with g = eps it is half of lr.
    params, grads = np.zeros(1), np.full(1, 1e-8)
    make_optimizer("adam", 1, dtype=np.float64).step(params, grads, 0.5, 1)
    np.testing.assert_allclose(params, [-0.25], rtol=1e-12)


def test_decay_of_adamw_is_decoupled_from_the_gradient():
    params, no_gradient = np.array([1.0, -4.0]), np.zeros(2)
    make_optimizer("adamw", 2, dtype=np.float64, weight_decay=0.5).step(params, no_gradient, 0.1, 1)
    np.testing.assert_allclose(params, [0.95, -3.8], rtol=1e-15)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_undecayed_elements_never_feel_the_decay(name):
    start, *gradients = random_vectors(1 + NUM_UPDATES, dtype=np.float32)
    decayed = random_mask()
    plain = run(make_optimizer(name, SIZE), start.copy(), gradients)
    masked = run(
        make_optimizer(name, SIZE, weight_decay=0.1, decayed=decayed), start.copy(), gradients
    )
    whole = run(make_optimizer(name, SIZE, weight_decay=0.1), start.copy(), gradients)
    np.testing.assert_array_equal(masked, np.where(decayed == 1, whole, plain))
    assert np.mean(whole != plain) > 0.9


@pytest.mark.parametrize("name", LAYERWISE)
def test_an_array_that_does_not_decay_or_is_zero_has_no_trust_ratio(name):
    # Four arrays of two: an ordinary one, one that does not decay, zeros, one without gradient.
    params = np.array([3.0, 4.0, 3.0, 4.0, 0.0, 0.0, 3.0, 4.0])
    grads = np.array([0.3, 0.4, 0.3, 0.4, 0.3, 0.4, 0.0, 0.0])
    decayed = np.array([1, 1, 0, 0, 1, 1, 1, 1], np.float32)
    segments = [(i, i + 2) for i in range(0, 8, 2)]
    optimizer = make_optimizer(
        name, 8, dtype=np.float64, weight_decay=1e-9, decayed=decayed, segments=segments
    )
    before = params.copy()
    optimizer.step(params, grads, 0.1, 1)
    moved = before - params
    plain = 0.1 * grads if name == "lars" else 0.1 * np.sign(grads)
    np.testing.assert_allclose(moved[2:6], plain[2:6], rtol=1e-4)
    length = np.linalg.norm(moved[:2])
    expected = 0.1 * 5 * (optimizer.hyper["trust"] if name == "lars" else 1)
    assert length == pytest.approx(expected, rel=1e-6)
    no_slope = np.abs(moved[6:]).max()
    assert no_slope <= expected and np.isfinite(no_slope)


@pytest.mark.parametrize("name", LAYERWISE)
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_a_step_is_in_proportion_to_the_array_and_not_to_the_gradient(name, scale):
    start, gradient = random_vectors(2, size=100)
    steps = []
    for p, g in ((start, gradient), (scale * start, gradient), (start, scale * gradient)):
        params = p.copy()
        hyper = {"eps": 1e-12} if name == "lamb" else {}
        make_optimizer(name, 100, dtype=np.float64, **hyper).step(params, g, 0.1, 1)
        steps.append(params - p)
    np.testing.assert_allclose(steps[1], scale * steps[0], rtol=1e-6)
    np.testing.assert_allclose(steps[2], steps[0], rtol=1e-6)


@every_optimizer
def test_a_gradient_that_is_too_long_is_scaled_down_to_the_limit(name):
    start, *gradients = random_vectors(1 + NUM_UPDATES)
    limit = 1.01 * np.linalg.norm(gradients[0])
    gradients = [grads * (0.5 + t) for t, grads in enumerate(gradients)]  # all but one too long
    settings = {"dtype": np.float64, "weight_decay": 0.01, "segments": SEGMENTS}
    clipped = run(make_optimizer(name, SIZE, clip_norm=limit, **settings), start.copy(), gradients)
    short = [grads * min(1, limit / np.linalg.norm(grads)) for grads in gradients]
    expected = run(make_optimizer(name, SIZE, **settings), start.copy(), short)
    np.testing.assert_allclose(clipped, expected, rtol=1e-12, atol=1e-12)
    unclipped = run(make_optimizer(name, SIZE, **settings), start.copy(), gradients)
    assert np.abs(clipped - unclipped).max() > 1e-6


@every_optimizer
def test_a_gradient_that_is_short_enough_keeps_its_bits(name):
    start, *gradients = random_vectors(1 + NUM_UPDATES, dtype=np.float32)
    clipped = run(make_optimizer(name, SIZE, clip_norm=1e9), start.copy(), gradients)
    plain = run(make_optimizer(name, SIZE), start.copy(), gradients)
    np.testing.assert_array_equal(bits(clipped), bits(plain))


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, SIZE])
def test_squared_norm(size):
    vector = np.random.default_rng(3).standard_normal(size).astype(np.float32)
    expected = math.fsum(x * x for x in vector.astype(np.float64).tolist())
    assert squared_norm(vector, np.empty(BLOCK)) == pytest.approx(expected, rel=1e-13)
    huge = np.full(size, 3e38, np.float32)
    assert squared_norm(huge, np.empty(BLOCK)) == pytest.approx(
        size * float(huge.max(initial=0)) ** 2
    )


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("cut", [1, 617, BLOCK, SIZE // 2, SIZE])
def test_pieces_of_a_vector_get_the_bits_of_the_whole(name, cut):
    start, *gradients = random_vectors(1 + NUM_UPDATES, dtype=np.float32)
    decayed = random_mask()
    whole = make_optimizer(name, SIZE, weight_decay=0.01, decayed=decayed)
    expected = run(whole, start.copy(), gradients)
    for piece in (slice(0, cut), slice(cut, SIZE)):
        mask = decayed[piece]
        optimizer = make_optimizer(name, mask.size, weight_decay=0.01, decayed=mask)
        params = run(optimizer, start[piece].copy(), [grads[piece] for grads in gradients])
        np.testing.assert_array_equal(bits(params), bits(expected[piece]))
        for slot, vector in optimizer.state.items():
            np.testing.assert_array_equal(bits(vector), bits(whole.state[slot][piece]))


@pytest.mark.parametrize("name", LAYERWISE)
def test_arrays_of_a_vector_get_the_bits_of_the_whole(name):
    start, *gradients = random_vectors(1 + NUM_UPDATES, dtype=np.float32)
    expected = run(
        make_optimizer(name, SIZE, weight_decay=0.01, segments=SEGMENTS), start.copy(), gradients
    )
    for piece in (slice(*segment) for segment in SEGMENTS):
        optimizer = make_optimizer(name, piece.stop - piece.start, weight_decay=0.01)
        params = run(optimizer, start[piece].copy(), [grads[piece] for grads in gradients])
        np.testing.assert_array_equal(bits(params), bits(expected[piece]))


def bits(vector):
    return vector.view(np.uint32)


@every_optimizer
def test_continues_from_a_checkpoint_with_the_same_bits(name):
    start, *gradients = random_vectors(1 + NUM_UPDATES, dtype=np.float32)
    uninterrupted = run(make_optimizer(name, SIZE, weight_decay=0.01), start.copy(), gradients)

    before = make_optimizer(name, SIZE, weight_decay=0.01)
    params = run(before, start.copy(), gradients[:3])
    checkpoint = {slot: vector.copy() for slot, vector in before.state.items()}

    after = make_optimizer(name, SIZE, weight_decay=0.01)
    assert list(after.state) == list(checkpoint)
    for slot, vector in checkpoint.items():
        after.state[slot][:] = vector
    params = run(after, params, gradients[3:], first=4)
    np.testing.assert_array_equal(bits(params), bits(uninterrupted))


@every_optimizer
def test_a_step_allocates_no_vector(name):
    params, grads = random_vectors(2, dtype=np.float32)
    optimizer = make_optimizer(
        name, SIZE, weight_decay=0.01, decayed=random_mask(), clip_norm=1.0, segments=SEGMENTS
    )
    optimizer.step(params, grads, 0.1, 1)
    tracemalloc.start()
    optimizer.step(params, grads, 0.1, 2)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4 * BLOCK / 8  # an eighth of one block: small Python objects only


@every_optimizer
def test_an_empty_vector_has_nothing_to_update(name):
    empty = np.zeros(0, np.float32)
    make_optimizer(name, 0, weight_decay=0.1).step(empty, empty, 0.1, 1)


def test_unknown_optimizer_is_rejected():
    with one_line_error("unknown optimizer 'sdg', expected one of sgd, .*; did you mean sgd"):
        make_optimizer("sdg", 3)


@every_optimizer
def test_unknown_hyper_parameter_is_rejected(name):
    with one_line_error("has no hyper-parameter 'betas', only .*weight_decay"):
        make_optimizer(name, 3, betas=0.9)


HYPER_PARAMETERS = [
    (name, hyper)
    for name in OPTIMIZERS
    for hyper in [*OPTIMIZERS[name].options, "weight_decay", "clip_norm"]
]


@pytest.mark.parametrize(("name", "hyper"), HYPER_PARAMETERS)
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_hyper_parameter_out_of_range_is_rejected(name, hyper, value):
    with one_line_error(f": {hyper}: found {value}, expected a number >"):
        make_optimizer(name, 3, **{hyper: value})


@pytest.mark.parametrize(
    ("name", "hyper"),
    [(n, h) for n, h in HYPER_PARAMETERS if not h.startswith(("eps", "weight", "clip", "trust"))],
)
def test_rate_of_one_is_rejected(name, hyper):
    with one_line_error(f": {hyper}: found 1.0, expected a number >= 0 and < 1"):
        make_optimizer(name, 3, **{hyper: 1.0})


def test_eps_of_zero_is_rejected():
    with one_line_error("Adam: eps: found 0.0, expected a number >= 1e-37 and <= 1"):
        make_optimizer("adam", 3, eps=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": -1.0}, "Adam: lr: found -1.0, expected a number >= 0"),
        ({"lr": math.nan}, "Adam: lr: found nan"),
        ({"t": 0}, "Adam: t is 0, expected the number of the update, from 1"),
        ({"params": np.ones(4, np.float32)}, r"Adam: params has shape \(4,\) and dtype float32"),
        ({"grads": np.ones(3)}, r"grads has shape \(3,\) and dtype float64, expected \(3,\)"),
    ],
)
def test_step_rejects_what_does_not_fit_and_changes_nothing(change, message):
    optimizer = make_optimizer("adam", 3)
    params = np.ones(3, np.float32)
    fitting = {"params": params, "grads": params.copy(), "lr": 0.1, "t": 1}
    with one_line_error(message):
        optimizer.step(**{**fitting, **change})
    assert params.tolist() == [1, 1, 1]
    assert not optimizer.state["m"].any()


def test_decay_mask_of_another_length_is_rejected():
    with one_line_error(r"SGD: decayed has shape \(2,\), expected \(3,\)"):
        make_optimizer("sgd", 3, decayed=np.ones(2, np.float32))


@pytest.mark.parametrize(
    "segments", [[(0, 2)], [(0, 2), (1, 3)], [(1, 3)], [(0, 1), (2, 3)], [(0, 4)], []]
)
def test_segments_that_are_not_those_of_the_vector_are_rejected(segments):
    with one_line_error(
        "SGD: segments: found .*, expected those of arrays one after another, from"
    ):
        make_optimizer("sgd", 3, segments=segments)


def one_line_error(message):
    return pytest.raises(ValueError, match=f"^(?!.*\n).*{message}")
