"""The script that measures on photographs of digits: what it photographs can be read again."""

from pathlib import Path

import numpy as np

import distnet
from distnet.data.handwriting import as_mnist
from distnet.experiments import load

script = load(Path(__file__).resolve().parents[2] / "docs/measurements/photographs.py")


def test_every_paper_has_the_digit_on_it():
    digit = distnet.load_dataset("mnist").test.inputs[0, 0]
    rng = np.random.Generator(np.random.Philox(key=0))
    for _, *paper in script.PAPERS:
        seen = script.photograph(digit, *paper, rng)
        found = as_mnist(seen)
        assert np.corrcoef(found.ravel(), digit.ravel())[0, 1] > 0.85
