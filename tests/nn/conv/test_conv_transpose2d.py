"""ConvTranspose2d: the adjoint of Conv2d, and bilinear interpolation as one starts with it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_table import build, images

from distnet.nn import Conv2d, ConvTranspose2d, Network, Upsample


@st.composite
def geometries(draw):
    """Options, which Conv2d takes too, the image's shape, the number of filters."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    options = {"stride": draw(st.integers(1, 3)), "pad": draw(st.integers(0, 1))}
    sides = [draw(st.integers(2, 5)) for _ in range(2)]
    return kernel, options, (draw(st.integers(1, 3)), *sides), draw(st.integers(1, 3))


@settings(max_examples=150)
@given(geometries(), st.integers(1, 3), st.integers(0, 99))
def test_it_is_the_adjoint_of_a_convolution(geometry, n, seed):
    """<T x, z> = <x, conv z> with the same weight, whose filters are the channels of x."""
    kernel, options, shape, filters = geometry
    try:
        layer = build(ConvTranspose2d(filters, kernel, bias=False, **options), shape)
    except ValueError:
        return  # nothing is left of the output
    convolution = build(Conv2d(shape[0], kernel, algorithm="im2col", **options), layer.output_shape)
    convolution.weight.value[...] = layer.weight.value
    convolution.bias.value[...] = 0
    convolution.refresh()
    x, z = images((n, *shape), seed=seed), images((n, *layer.output_shape), seed=seed + 1)
    y = layer.forward(x)
    assert np.vdot(y, z) == pytest.approx(np.vdot(x, convolution.forward(z)), abs=1e-10)
    np.testing.assert_allclose(y, convolution.backward(x), atol=1e-12)
    np.testing.assert_allclose(layer.backward(z), convolution.forward(z), atol=1e-12)


def test_values_are_those_of_pytorch():
    """conv_transpose2d of 1 to 4 with the kernel 1 to 4, stride 2, output_padding 1, bias 10."""
    layer = build(ConvTranspose2d(1, 2, stride=2, output_padding=1), (1, 2, 2))
    layer.weight.value[...] = [[[[1, 2], [3, 4]]]]
    layer.bias.value[...] = 10
    y = layer.forward(np.array([[[[1.0, 2], [3, 4]]]]))
    expected = [
        [11, 12, 12, 14, 10],
        [13, 14, 16, 18, 10],
        [13, 16, 14, 18, 10],
        [19, 22, 22, 26, 10],
        [10, 10, 10, 10, 10],
    ]
    np.testing.assert_array_equal(y, [[expected]])


@pytest.mark.parametrize("scale", [2, 4])
def test_it_starts_as_bilinear_interpolation(scale):
    """Inside; at the border a convolution sees zeros, where interpolation goes on."""
    layer = ConvTranspose2d(3, 2 * scale, stride=scale, pad=scale // 2, bias=False, init="bilinear")
    net, x = Network([layer], (3, 5, 6), dtype=np.float64), images((2, 3, 5, 6))
    expected = build(Upsample(scale, mode="bilinear"), (3, 5, 6)).forward(x)
    inside = np.s_[:, :, scale:-scale, scale:-scale]
    np.testing.assert_allclose(net.predict(x)[inside], expected[inside], atol=1e-12)
    assert net.output_shape == expected.shape[1:]


def test_he_keeps_the_scale_of_relu():
    net = Network([ConvTranspose2d(32, 4, stride=2, pad=1)], (64, 8, 8))
    x = np.maximum(np.random.default_rng(0).standard_normal((10, 64, 8, 8)), 0)
    assert net.predict(x)[:, :, 2:-2, 2:-2].var() == pytest.approx(2 * (x**2).mean(), rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_padding": 1}, "found output_padding 1, expected less than the stride, 1"),
        ({"stride": 0}, "found stride 0"),
        ({"pad": 3}, r"found pad \(3, 3\), expected that some pixels are left"),
        ({"init": "best"}, "found init 'best'"),
    ],
)
def test_impossible_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=f"ConvTranspose2d: {message}"):
        ConvTranspose2d(2, 3, **options).build((1, 3, 3))
