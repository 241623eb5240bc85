"""Style transfer: its distances and gradients, where tiles lie, the same bits on any ranks."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from distnet.base import elementary
from distnet.base.arithmetic import Float, Portable, portable
from distnet.base.errors import DataError
from distnet.nn import AvgPool2d, Conv2d, GlobalAvgPool2d, Linear, MicroBatch, Network, ReLU, Tanh
from distnet.nn.gradient_check import numerical_gradient, relative_error
from distnet.objectives import StyleTransfer
from distnet.objectives.canvas import DARKEST, Canvas
from distnet.objectives.likeness import Likeness, as_floats, style_of
from distnet.objectives.style import total_variation
from distnet.parallel import SerialCommunicator
from distnet.training.fit import fit

TAPS = {"style_taps": ("tanh1", "tanh2"), "content_tap": "tanh2"}


def network(dtype=np.float64, activation=Tanh, seed=5) -> Network:
    layers = [Conv2d(4, 3, pad=1), activation(), AvgPool2d(2), Conv2d(5, 3, pad=1), activation()]
    return Network([*layers, GlobalAvgPool2d(), Linear(3)], (3, 8, 8), seed=seed, dtype=dtype)


def pictures(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).random(shape).astype(dtype)


def two(dtype=np.float64, seeds=(5,), **options) -> StyleTransfer:
    """Two pictures, and styles of other sizes, compared by a network of each seed."""
    styles = [pictures(3, 6, 8, seed=1, dtype=dtype), pictures(3, 10, 4, seed=2, dtype=dtype)]
    contents = pictures(2, 3, 8, 12, dtype=dtype)
    networks = [network(dtype, seed=seed) for seed in seeds]
    return StyleTransfer(networks, contents, styles, **TAPS, **options)


def test_a_picture_is_at_no_distance_from_itself():
    net, picture = network(), pictures(3, 8, 12)
    seen = Likeness(net, picture.shape, **TAPS)
    style = style_of(net, picture, **TAPS)
    assert seen.distances(picture, seen.content(picture), style) == (0, 0)
    turned = np.ascontiguousarray(picture[:, ::-1, ::-1])
    content, style = seen.distances(turned, seen.content(picture), style)
    assert content > 10 * style > 0


@pytest.mark.parametrize(
    ("tile", "seeds", "mirrored"),
    [(None, (5,), False), (6, (5,), False), (6, (5, 7), False), (6, (5, 7), True)],
)
def test_gradients_equal_central_differences(tile, seeds, mirrored):
    trained = two(seeds=seeds, style_weight=3.0, smoothness=0.7, tile=tile, mirrored=mirrored)
    x, targets, at = *trained.tiles, MicroBatch(seed=3, step=4)
    values = trained.parameters.values
    chosen = np.random.default_rng(6).choice(values.size, 120, replace=False)
    part = values[chosen].copy()

    def loss() -> float:
        values[chosen] = part
        return float(trained.gradients(x, targets, at)[0])

    loss()
    found = trained.parameters.grads[chosen].copy()
    assert relative_error(found, numerical_gradient(loss, part)) < 1e-7
    assert np.abs(found).max() > 1e-3


def test_what_several_networks_find_is_the_mean():
    at, found = MicroBatch(seed=3, step=4), []
    for seeds in ((5,), (7,), (5, 7)):
        trained = two(seeds=seeds, smoothness=0)
        sums = trained.gradients(*trained.tiles, at)
        found.append(np.concatenate([sums, trained.parameters.grads]))
    one, other, both = found
    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-10, atol=1e-14)
    assert not np.allclose(one, other)


def test_who_sees_mirrored_pictures_is_as_one_with_mirrored_kernels():
    trained = two(smoothness=0, mirrored=True)
    at = MicroBatch(seed=3, step=4)
    x, _ = trained.tiles
    drawn = [trained._drawn_mirrors(tile, at)[0] for tile in x]
    assert 0 not in drawn and len(set(drawn)) == 2  # both are mirrored, each in its way
    sums = trained.gradients(*trained.tiles, at)
    expected, grads = 0, np.zeros_like(trained.canvas.logits.grad)
    styles = [pictures(3, 6, 8, seed=1), pictures(3, 10, 4, seed=2)]
    for tile, mirror in enumerate(drawn):
        net = network()
        for layer in (net.body.layers[0], net.body.layers[3]):
            kernels = layer.weight.value
            kernels[...] = kernels[:, *trained._mirrors[mirror]].copy()
        net.parameters.refresh()
        other = StyleTransfer(net, trained.contents, styles, **TAPS, smoothness=0)
        expected = expected + other.gradients(x[tile : tile + 1], x[:1], at, divisor=2)
        grads += other.canvas.logits.grad
    np.testing.assert_allclose(trained.canvas.logits.grad, grads, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(sums, expected, rtol=1e-9)


def test_an_evaluation_sees_nothing_mirrored():
    plain, mirrored = (two(mirrored=each) for each in (False, True))
    np.testing.assert_array_equal(plain.measure(*plain.tiles), mirrored.measure(*mirrored.tiles))
    at = MicroBatch(seed=3, step=4)
    assert not np.allclose(
        plain.gradients(*plain.tiles, at), mirrored.gradients(*mirrored.tiles, at)
    )


def test_each_picture_has_its_own_weight_of_the_style():
    at, grads = MicroBatch(seed=3, step=4), []
    for weight in (2.0, 9.0, [2.0, 9.0]):
        trained = two(style_weight=weight)
        trained.gradients(*trained.tiles, at)
        grads.append(trained.canvas.logits.grad.copy())
    np.testing.assert_array_equal(grads[2], [grads[0][0], grads[1][1]])
    with pytest.raises(ValueError, match="style_weight: found 3 numbers, expected 1 or 2"):
        two(style_weight=[1.0, 2.0, 3.0])


def test_at_least_one_network_is_needed():
    with pytest.raises(ValueError, match="found no network"):
        two(seeds=())


def test_total_variation_by_hand():
    picture = np.array([[[0.0, 1.0], [0.0, 3.0]]])
    total, gradient = total_variation(picture)
    assert total == (0 + 4) / 2 + (1 + 9) / 2
    assert (
        relative_error(gradient, numerical_gradient(lambda: total_variation(picture)[0], picture))
        < 1e-7
    )


def test_parts_of_a_batch_add_up():
    trained = two(tile=5)
    x, targets = trained.tiles
    assert len(x) == 2 * 2 * 3
    whole = trained.gradients(x, targets, MicroBatch(step=2))
    gradient, divisor = trained.parameters.grads.copy(), trained.divisor(targets)
    sums, gradients = [], []
    for number, part in enumerate((slice(0, 1), slice(1, 7), slice(7, 12))):
        at = MicroBatch(step=2, number=number)
        sums.append(trained.gradients(x[part], targets[part], at, divisor))
        gradients.append(trained.parameters.grads.copy())
    np.testing.assert_allclose(sum(sums), whole, rtol=1e-13)
    np.testing.assert_allclose(sum(gradients), gradient, rtol=1e-12, atol=1e-16)
    metrics = trained.metrics(whole[0], whole[1:], len(x))
    assert metrics["content"] == pytest.approx(whole[1] / 12)


def test_tiles_lie_inside_and_elsewhere_in_each_step():
    trained = two(tile=5)
    seen = np.zeros((2, 8, 12), int)
    starts = set()
    for step in range(60):
        for tile in trained.tiles.inputs.tolist():
            number, _, rows, columns = trained.grid.place(tile, MicroBatch(step=step))
            assert rows.stop - rows.start == columns.stop - columns.start == 5
            assert rows.start >= 0 <= columns.start and rows.stop <= 8 and columns.stop <= 12
            seen[number, rows, columns] += 1
            starts.add((rows.start, columns.start))
    assert len(starts) > 20
    assert seen.min() > 5  # every pixel has a say


def test_a_tile_larger_than_the_picture_is_the_picture():
    whole, tiled = two(), two(tile=100)
    assert tiled.grid.tile_shape == (8, 12) and len(tiled.tiles.inputs) == 2
    for one, other in ((whole, tiled), (tiled, whole)):
        expected = other.gradients(*other.tiles, MicroBatch())
        np.testing.assert_array_equal(one.gradients(*one.tiles, MicroBatch()), expected)


def test_pictures_begin_as_the_contents_and_stay_between_0_and_1():
    trained = two()
    inside = np.clip(pictures(2, 3, 8, 12), 0.02, 0.98)
    np.testing.assert_allclose(trained.pictures, inside, atol=1e-12)
    before = trained.measure(*trained.tiles)
    fit(trained, *trained.tiles, steps=20, optimizer="adam", lr=0.5, batch_size=2)
    after = trained.measure(*trained.tiles)
    assert after[0] < before[0] and after[2] < before[2] / 5
    assert 0 < trained.pictures.min() < trained.pictures.max() < 1


def test_bytes_mean_0_to_1():
    np.testing.assert_array_equal(
        as_floats(np.array([0, 51, 255], np.uint8)), np.float32([0, 0.2, 1])
    )


@pytest.mark.parametrize("pixels", [np.array([0.5, 1.5]), np.array([-0.1]), np.array([np.nan])])
def test_floats_that_are_no_pixels_are_refused(pixels):
    with pytest.raises(DataError, match="expected 0 to 1"):
        as_floats(pixels)


def test_as_many_styles_as_contents_are_needed():
    with pytest.raises(ValueError, match=r"found contents \(2, 3, 8, 12\) and 1 styles"):
        StyleTransfer(network(), pictures(2, 3, 8, 12), [pictures(3, 8, 8)], **TAPS)


def test_in_portable_arithmetic_it_finds_nearly_the_same():
    losses = []
    for arithmetic in ("float32", "portable"):
        networks = [network(np.float32, seed=seed).compute_in(arithmetic) for seed in (5, 7)]
        styles = [pictures(3, 6, 8, seed=1), pictures(3, 10, 4, seed=2)]
        trained = StyleTransfer(networks, pictures(2, 3, 8, 12), styles, **TAPS, tile=6)
        assert trained.parameters.arithmetic.name == arithmetic
        history = fit(
            trained, *trained.tiles, steps=20, optimizer="adam", lr=portable(lambda step: 0.1)
        )
        losses.append(history.losses)
        assert trained.measure(*trained.tiles)[0] / len(trained.tiles.inputs) < history.losses[0]
    np.testing.assert_allclose(*losses, rtol=0.01)
    assert losses[0][-1] < 0.7 * losses[0][0]


def test_in_portable_arithmetic_sums_have_no_order():
    layers = [Conv2d(4, 1), Tanh(), GlobalAvgPool2d(), Linear(3)]
    exact, rounded = ([], [])
    for seed in range(20):
        picture = pictures(3, 9, 11, seed=seed)
        turned = np.ascontiguousarray(picture[:, ::-1, ::-1])
        for arithmetic, found in ((Portable(), exact), (Float(), rounded)):
            net = Network(copy.deepcopy(layers), (3, 9, 11), arithmetic=arithmetic)
            seen = Likeness(net, picture.shape, ["tanh1"], "tanh1")
            both = [
                (seen.content(each).variance, total_variation(each, arithmetic)[0])
                for each in (picture, turned)
            ]
            found.append(both[0] == both[1])
    assert all(exact) and not all(rounded)


def test_pixels_are_made_of_portable_numbers():
    canvas = Canvas(pictures(1, 3, 8, 12), Portable())
    logits = canvas.logits.value.copy()
    picture = pictures(1, 3, 8, 12).clip(DARKEST, 1 - DARKEST)
    np.testing.assert_array_equal(logits, elementary.log(picture / (1 - picture)))
    np.testing.assert_array_equal(canvas.pixels(), 1 / (1 + elementary.exp(-logits)))


def test_networks_of_two_arithmetics_are_refused():
    networks = [network(np.float32), network(np.float32).compute_in("portable")]
    with pytest.raises(ValueError, match=r"found Float\(\) and Portable\(bits=12\), expected"):
        StyleTransfer(networks, pictures(1, 3, 8, 12), [pictures(3, 8, 8)], **TAPS)


def test_a_network_in_16_bits_is_looked_through_in_floats():
    net = network(np.float32).compute_in("float16")
    assert Likeness(net, (3, 8, 12), **TAPS).features.network.arithmetic.name == "float32"


def test_the_same_distances_and_gradients_as_pytorch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch, the extra `torch`")
    net = network(activation=ReLU)
    taps = {"style_taps": ("relu1", "relu2"), "content_tap": "relu2"}
    content, style = pictures(1, 3, 8, 12), pictures(3, 6, 8, seed=1)
    trained = StyleTransfer(net, content, [style], **taps, style_weight=3.0, smoothness=0.7)
    trained.parameters.values += np.random.default_rng(4).standard_normal(288)
    sums = trained.gradients(*trained.tiles, MicroBatch())

    weights = {name: torch.from_numpy(each.copy()) for name, each in net.parameters.named().items()}

    def features(x):
        found = []
        for number in (1, 2):
            x = torch.nn.functional.avg_pool2d(x, 2) if found else x
            w, b = weights[f"conv{number}.weight"], weights[f"conv{number}.bias"]
            x = torch.relu(torch.nn.functional.conv2d(x, w, b, padding=1))
            found.append(x)
        return found

    def gram(f):
        flat = f.flatten(2)[0]
        return flat @ flat.T / flat.shape[1]

    logits = torch.from_numpy(trained.canvas.logits.value.copy()).requires_grad_()
    picture = torch.sigmoid(logits)
    known = features(torch.from_numpy(content))[-1]
    wanted = [gram(f) for f in features(torch.from_numpy(style[None]))]
    found = features(picture)
    of_content = ((found[-1] - known) ** 2).mean() / known.var(correction=0)
    of_style = sum(
        ((gram(f) - g) ** 2).sum() / (g**2).sum() for f, g in zip(found, wanted, strict=True)
    )
    variation = sum((torch.diff(picture, dim=dim) ** 2).mean() for dim in (2, 3))
    loss = of_content + 3.0 * of_style / 2 + 0.7 * variation
    loss.backward()
    np.testing.assert_allclose(
        sums, [loss.item(), of_content.item(), of_style.item() / 2], rtol=1e-12
    )
    np.testing.assert_allclose(
        trained.canvas.logits.grad, logits.grad.numpy(), rtol=1e-9, atol=1e-14
    )


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize(("tile", "mirrored"), [(None, False), (5, True)])
def test_the_same_bits_on_one_two_and_three_ranks(tile, mirrored, comm):
    """Two pictures, or twelve tiles of them, dealt out to one, two and three ranks."""
    results = []
    pair = comm.split(int(comm.rank < 2))
    for group in (SerialCommunicator(), pair, comm):
        trained = two(np.float32, (5, 7), tile=tile, mirrored=mirrored)
        size = len(trained.tiles.inputs)
        history = fit(
            trained,
            *trained.tiles,
            steps=5,
            optimizer="adam",
            lr=0.1,
            batch_size=size,
            micro_batch_size=1,
            comm=group,
        )
        results.append((history, trained.pictures))
    for history, found in results[1:]:
        assert history == results[0][0]
        np.testing.assert_array_equal(found, results[0][1])
    assert results[0][0].losses[-1] < results[0][0].losses[0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"style_weight": [1, -2]}, "found style_weight -2, expected a finite number >= 0"),
        ({"style_weight": np.nan}, "found style_weight nan"),
        ({"smoothness": -1}, "found smoothness -1, expected a finite number >= 0"),
        ({"style_taps": []}, "found style_taps"),
        ({"style_taps": "tanh1"}, "found style_taps 'tanh1', expected names of layers"),
    ],
)
def test_options_that_cannot_be_are_one_line(options, expected):
    styles = [pictures(3, 6, 8)] * 2
    with pytest.raises(ValueError, match=expected):
        StyleTransfer(network(), pictures(2, 3, 8, 12), styles, **{**TAPS, **options})


def test_pictures_in_which_nothing_is_seen_are_refused():
    """Distances are divided by what is seen in them."""
    seen, black = pictures(1, 3, 8, 12), np.zeros((1, 3, 8, 12))
    with pytest.raises(DataError, match="style: found a picture in which the network sees nothing"):
        StyleTransfer(network(), seen, list(black), **TAPS)
    with pytest.raises(DataError, match="contents: found a picture that looks the same everywhere"):
        StyleTransfer(network(), black, list(seen), **TAPS)


def test_a_copy_is_refused():
    with pytest.raises(TypeError, match="StyleTransfer: found a copy or a pickle"):
        copy.deepcopy(two())
