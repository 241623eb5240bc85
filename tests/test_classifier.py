"""`distnet.Classifier` keeps scikit-learn's protocol, with it and without it, on any ranks."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest

import distnet
from distnet import Classifier, Conv2d, Linear, MaxPool2d, ReLU
from distnet.base.errors import DataError
from distnet.parallel import SerialCommunicator

pytestmark = pytest.mark.filterwarnings("ignore")  # of scikit-learn about its own future

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sklearn.base import clone, is_classifier
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils.estimator_checks import estimator_checks_generator

    # The one that is left out is for other array libraries than NumPy.
    CHECKS = [
        check
        for _, check in estimator_checks_generator(Classifier())
        if check.func.__name__ != "check_array_api_input"
    ]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.func.__name__)
def test_what_scikit_learn_asks_of_an_estimator(check):
    check(Classifier())


def digits(number: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Images of three patterns in noise, with names."""
    rng = np.random.default_rng(0)
    names = np.array(["bar", "cross", "dot"])[np.arange(number) % 3]
    patterns = {name: rng.integers(0, 2, (8, 8)) * 200 for name in ("bar", "cross", "dot")}
    images = np.stack([patterns[name] for name in names]) + rng.integers(0, 55, (number, 8, 8))
    return images.astype(np.uint8), names


LAYERS = [Conv2d(4, 3, pad=1), MaxPool2d(2), ReLU()]
SETTINGS = {"epochs": 3, "batch_size": 20, "micro_batch_size": 5, "lr": 0.01}


def test_images_and_names():
    images, names = digits()
    classifier = Classifier(LAYERS, **SETTINGS).fit(images, names)
    assert is_classifier(classifier)
    assert classifier.classes_.tolist() == ["bar", "cross", "dot"]
    assert classifier.score(images, names) > 0.9
    probabilities = classifier.predict_proba(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    best = classifier.classes_[probabilities.argmax(axis=1)]
    assert best.tolist() == classifier.predict(images).tolist()
    for same in (images[:, None], images[..., None]):
        assert classifier.predict(same).tolist() == best.tolist()


def test_what_it_does_is_fit():
    images, names = digits()
    classifier = Classifier(LAYERS, **SETTINGS).fit(images, names)
    layers = [Conv2d(4, 3, pad=1), MaxPool2d(2), ReLU(), Linear(3)]
    network = distnet.Network(layers, (1, 8, 8))
    labels = np.unique(names, return_inverse=True)[1]
    history = distnet.fit(network, images, labels, optimizer="adam", **SETTINGS)
    assert classifier.history_.params_sha256 == history.params_sha256
    again = classifier.fit(images, names).history_.params_sha256
    assert again == history.params_sha256, "anew, with the same layers"


def test_in_portable_arithmetic():
    images, names = digits()
    classifier = Classifier(LAYERS, arithmetic="portable", **SETTINGS).fit(images, names)
    layers = [Conv2d(4, 3, pad=1), MaxPool2d(2), ReLU(), Linear(3)]
    network = distnet.Network(layers, (1, 8, 8), arithmetic="portable")
    labels = np.unique(names, return_inverse=True)[1]
    history = distnet.fit(network, images, labels, optimizer="adam", **SETTINGS)
    assert classifier.history_.params_sha256 == history.params_sha256
    found = classifier.predict_proba(images)
    np.testing.assert_array_equal(
        found, distnet.nn.softmax(network.predict(images), network.arithmetic)
    )
    named = Classifier("two_layer", arithmetic="portable", epochs=1).fit(images, names)
    assert named.network_.arithmetic.rounds
    with pytest.raises(ValueError, match="arithmetic: found 'exact', expected one of float32, "):
        Classifier(LAYERS, arithmetic="exact").fit(images, names)


def test_cross_validation_search_and_pipeline():
    images, names = digits()
    classifier = Classifier(LAYERS, **SETTINGS)
    assert min(cross_val_score(classifier, images, names, cv=3)) > 0.8
    search = GridSearchCV(classifier, {"lr": [1e-9, 0.01]}, cv=3).fit(images, names)
    assert search.best_params_ == {"lr": 0.01}
    rows = images.reshape(len(images), -1).astype(float)
    pipeline = make_pipeline(StandardScaler(), Classifier(epochs=10))
    assert pipeline.fit(rows, names).score(rows, names) == 1


@pytest.mark.mpi(min_size=2)
def test_ranks_find_the_same(comm):
    images, names = digits()
    classifier = Classifier(LAYERS, comm=comm, **SETTINGS)
    scores = cross_val_score(classifier, images, names, cv=3)
    alone = Classifier(LAYERS, comm=SerialCommunicator(), **SETTINGS)
    assert scores.tolist() == cross_val_score(alone, images, names, cv=3).tolist()
    fitted = clone(classifier).fit(images, names).history_.params_sha256
    expected = alone.fit(images, names).history_.params_sha256
    assert comm.allgather(fitted) == [expected] * comm.size
    assert copy.deepcopy(comm) is comm


def test_a_network_by_name_and_its_file(tmp_path):
    images, names = digits()
    classifier = Classifier("two_layer", epochs=1).fit(images, names)
    classifier.save(tmp_path / "model.safetensors")
    network = distnet.load(tmp_path / "model.safetensors")
    assert network.classes == ("bar", "cross", "dot")
    assert network.predict(images).tolist() == classifier.network_.predict(images).tolist()


def test_parameters_are_shown_where_they_are_not_the_default():
    assert repr(Classifier()) == "Classifier()"
    assert repr(Classifier("lenet5", lr=0.1)) == "Classifier(layers='lenet5', lr=0.1)"
    with pytest.raises(
        ValueError, match=r"Invalid parameter 'rate'.*expected one of layers, epochs"
    ):
        Classifier().set_params(rate=1)
    with pytest.raises(ValueError, match="layers: found 'lenet', expected a list of layers or one"):
        Classifier("lenet").fit(*digits())


@pytest.mark.parametrize(
    ("X", "y", "says"),
    [
        (np.zeros((4, 3)), [0, 0, 0, 0], "y: found one class, 0, expected at least two"),
        (np.zeros((4, 3)), [0, 1], r"y: found shape \(2,\), expected \(4,\)"),
        (np.zeros((4, 2, 2), np.int64), [0, 1, 0, 1], "found int64, expected numbers"),
        (np.full((4, 3), np.nan), [0, 1, 0, 1], "X: found NaN or infinity"),
        (np.zeros((4, 3)), [0.5, 1, 0, 1], "Unknown label type: continuous"),
        (np.zeros((4, 3)), [None, 1, 0, 1], "Unknown label type: unknown"),
        (np.zeros((4, 3)), ["a", np.nan, "b", "a"], "y: found nan at place 1, expected text"),
        (np.zeros((0, 3)), [], "X: found an empty array"),
        (np.ma.masked_less(np.eye(4), 1), [0, 1, 0, 1], "X: found a masked array that lacks 12"),
        (np.eye(4), np.ma.masked_equal([0, 1, 0, 1], 1), "y: found a masked array that lacks 2"),
    ],
)
def test_what_cannot_be_used_is_one_line(X, y, says):
    with pytest.raises(DataError, match=says):
        Classifier().fit(X, y)


def test_a_fit_that_fails_leaves_what_an_earlier_one_has_found():
    images, names = digits()
    classifier = Classifier("two_layer", epochs=1).fit(images, names)
    before = classifier.predict_proba(images)
    for lr, labels in ((-1, names), (0.004, names[:1].repeat(len(names)))):
        with pytest.raises(ValueError, match="found"):
            classifier.set_params(lr=lr).fit(images, labels)
        assert classifier.predict_proba(images).tolist() == before.tolist()
        assert classifier.classes_.tolist() == ["bar", "cross", "dot"]


def test_other_images_than_it_was_fitted_for():
    classifier = Classifier(LAYERS, epochs=1).fit(*digits())
    with pytest.raises(DataError, match=r"found shape \(1, 7, 7\), expected \(1, 8, 8\)"):
        classifier.predict(np.zeros((2, 7, 7), np.uint8))


@pytest.mark.parametrize("fitted", [np.uint8, np.int64, bool])
@pytest.mark.parametrize("asked", [np.uint8, np.int16, np.int64])
def test_integers_mean_what_they_meant_in_fit(fitted, asked):
    images, names = digits()
    most = 1 if fitted is bool else 255
    rows = images.reshape(len(images), -1) // (255 // most)
    classifier = Classifier(epochs=2).fit(rows.astype(fitted), names)
    expected = classifier.predict_proba(rows.astype(fitted))
    np.testing.assert_array_equal(classifier.predict_proba(rows.astype(asked)), expected)


def test_integers_that_are_no_bytes_are_refused_after_bytes():
    images, names = digits()
    classifier = Classifier(epochs=1).fit(images.reshape(len(images), -1), names)
    with pytest.raises(DataError, match="found integers from 193 to 256, expected 0 to 255"):
        classifier.predict(np.arange(257)[None, -64:])


def test_it_works_without_scikit_learn():
    program = """
        import sys
        sys.modules["sklearn"] = None  # an import of it fails
        import numpy as np, distnet, warnings
        warnings.simplefilter("ignore")
        x = np.random.default_rng(0).normal(size=(40, 3))
        y = np.where(x[:, 0] > 0, "right", "left")
        classifier = distnet.Classifier(epochs=200)
        try:
            classifier.predict(x)
        except ValueError as error:
            print(type(error).__name__)
        print(classifier.fit(x, y[:, None]).score(x, y) > 0.9)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("NotFittedError\nTrue\n", "")
