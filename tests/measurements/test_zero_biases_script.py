"""What docs/fast-convolution.md says of biases that are exactly zero, before the first update."""

from pathlib import Path

from distnet.experiments import load

script = load(Path(__file__).resolve().parents[2] / "docs/measurements/zero_biases.py")


def test_only_f4_has_another_gradient_at_the_kink():
    errors = script.measure(updates=(0,))[0]
    assert max(errors["im2col"]) < 1e-5
    assert max(errors["winograd2"]) < 1e-5
    whole, weights, biases = errors["winograd4"]
    assert whole < 0.1
    assert weights < 1e-5
    assert biases > 0.01, "the documented caveat has gone: correct the page"
