"""A classifier in scikit-learn's habits: `fit`, `predict`, `score`, parameters to search over.

It keeps scikit-learn's protocol without needing it, so that `cross_val_score`, `GridSearchCV` and
pipelines take it (scikit-learn, "Developing scikit-learn estimators").
"""

from __future__ import annotations

import copy
import inspect
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from distnet.base.arithmetic import Arithmetic
from distnet.base.arrays import Array, Shape
from distnet.base.errors import DataError
from distnet.base.images import as_array
from distnet.data.arrays import channels_first, expect_one_kind
from distnet.models import MODELS
from distnet.nn import Layer, Linear, Network, ReLU, softmax
from distnet.parallel import Communicator
from distnet.program import fit
from distnet.training.files.model_file import save

HIDDEN_SIZE = 100  # of the network that is taken if none is given


class NotFittedError(ValueError, AttributeError):
    """`fit` has to be called first; the bases are those of scikit-learn's error of this name."""


class Classifier:
    """Tells classes apart, with a network that is made when the data are there.

    layers: a list of layers, after which a `Linear` for the classes comes by itself; the name of
    one of MODELS; or None for a hidden layer of 100 units.
    epochs, optimizer, lr, batch_size, micro_batch_size, weight_decay, seed, progress, comm: as
    `distnet.fit` has them. On ranks every one calls the same methods with the same arrays and its
    `comm`, and has the same network afterwards.
    arithmetic: in which the network computes, as `distnet.Network` has it, such as "portable".

    After `fit`: classes_ `(K,)`, the labels as they were given, in order; network_; history_;
    n_features_in_, of rows `(N, D)`. A network that is fitted again starts anew, with the same seed
    and so with the same result.
    """

    def __init__(
        self,
        layers: Sequence[Layer] | str | None = None,
        *,
        epochs: int = 100,
        optimizer: str = "adam",
        lr: float = 0.004,
        batch_size: int = 100,
        micro_batch_size: int | None = None,
        weight_decay: float = 0.0,
        arithmetic: str | Arithmetic = "float32",
        seed: int = 0,
        progress: bool = False,
        comm: Communicator | None = None,
    ) -> None:
        self.layers, self.epochs, self.optimizer, self.lr = layers, epochs, optimizer, lr
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.weight_decay, self.arithmetic, self.seed = weight_decay, arithmetic, seed
        self.progress, self.comm = progress, comm

    def fit(self, X: Any, y: Any) -> Self:
        """Trains on images `(N, H, W)`, `(N, C, H, W)`, `(N, H, W, C)` or rows `(N, D)`.

        Bytes (uint8) mean 0 to 1, floats are taken as they are, other integers in rows too. What
        integers mean here they mean afterwards, whichever type of them comes then. y: `(N,)` labels
        of any kind that has an order: numbers, text. Raises DataError, a ValueError, for everything
        else.
        """
        inputs = _inputs(X)
        labels = _labels(y, len(inputs))
        classes, targets = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise DataError(
                f"y: found one class, {labels.tolist()[0]!r:.40}, expected at least two"
            )
        network = self._network(inputs.shape[1:], len(classes))
        history = fit(
            network,
            inputs,
            targets,
            epochs=self.epochs,
            optimizer=self.optimizer,
            lr=self.lr,
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            weight_decay=self.weight_decay,
            seed=self.seed,
            progress=self.progress,
            comm=self.comm,
        )
        # All at the end: a fit that fails leaves what an earlier one has found as it was.
        self.classes_, self.network_, self.history_ = classes, network, history
        self.n_features_in_ = int(np.prod(inputs.shape[1:]))
        self._fitted_type = as_array(X, "X").dtype
        return self

    def predict(self, X: Any) -> Array:
        """The class of each of N samples, `(N,)`, as the labels were given."""
        return self.classes_of(self._logits(X))

    def predict_proba(self, X: Any) -> Array:
        """How probable each class is, `(N, K)`, in the order of classes_."""
        return softmax(self._logits(X), self.network_.arithmetic)

    def score(self, X: Any, y: Any) -> float:
        """The accuracy on samples X with labels y, 0 to 1."""
        found = self.predict(X)
        return float(np.mean(found == _labels(y, len(found))))

    def save(self, path: str) -> None:
        """Writes the network with the names of the classes, for `distnet.load` and `predict`."""
        self._check_fitted()
        save(self.network_, path, classes=tuple(map(str, self.classes_.tolist())))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What the constructor was given, by name."""
        names = [name for name in inspect.signature(type(self)).parameters]
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Self:
        """Changes what the constructor was given; raises ValueError for another name."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self!r}: expected one of "
                    f"{', '.join(known)}"
                )
            setattr(self, name, value)
        return self

    def classes_of(self, logits: Array) -> Array:
        """The labels of the largest of the logits `(N, K)`."""
        return self.classes_[logits.argmax(axis=1)]

    def _network(self, shape: Shape, num_classes: int) -> Network:
        if isinstance(self.layers, str):
            if self.layers not in MODELS:
                raise ValueError(
                    f"layers: found {self.layers!r:.60}, expected a list of layers or one of "
                    f"{', '.join(MODELS)}"
                )
            network = MODELS[self.layers](shape, num_classes, seed=None)
            return network.compute_in(self.arithmetic, seed=self.seed)
        hidden = [Linear(HIDDEN_SIZE), ReLU()] if self.layers is None else self.layers
        # Copies: a layer has one place in one network, and parameters stay as they were given.
        layers = [*copy.deepcopy(list(hidden)), Linear(num_classes)]
        return Network(layers, shape, seed=self.seed, arithmetic=self.arithmetic)

    def _logits(self, X: Any) -> Array:
        self._check_fitted()
        inputs, shape = _inputs(X, self._fitted_type), self.network_.input_shape
        if inputs.shape[1:] != shape:
            found = int(np.prod(inputs.shape[1:]))
            raise DataError(
                f"X has {found} features, but Classifier is expecting {self.n_features_in_} "
                f"features as input: found shape {inputs.shape[1:]}, expected {shape}"
            )
        return self.network_.predict(inputs)

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise _sklearns("NotFittedError", NotFittedError)(
                "This Classifier instance is not fitted yet. Call 'fit' with appropriate arguments "
                "before using this estimator."
            )

    def __repr__(self) -> str:
        """What differs from the defaults."""
        parameters = inspect.signature(type(self)).parameters.items()
        given = [
            f"{name}={getattr(self, name)!r:.60}"
            for name, parameter in parameters
            if getattr(self, name) is not parameter.default
            and getattr(self, name) != parameter.default
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks an estimator; it alone calls this, so it is there."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(three_d_array=True),
        )


def _inputs(X: Any, fitted: np.dtype[Any] | None = None) -> Array:
    """Images `(N, C, H, W)` or rows `(N, D)`; the words of errors are those of scikit-learn.

    fitted: the type of what `fit` was given, which says what integers mean.
    """
    if hasattr(X, "toarray"):
        raise DataError("X: found a sparse matrix, expected a dense array: X.toarray()")
    array = as_array(X, "X")
    if array.dtype.kind == "c":
        raise DataError("X: Complex data not supported, found complex numbers, expected reals")
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except TypeError as error:
            raise TypeError(f"X: found objects, expected numbers: {error}") from None
        except ValueError as error:
            raise DataError(f"X: found objects, expected numbers: {error}") from None
    if array.ndim < 2:
        raise DataError(
            f"X: Expected 2D array, got shape {array.shape}. Reshape your data: X[None] is a "
            "single sample, X[:, None] samples of a single feature"
        )
    if 0 in array.shape:
        features = f" 0 feature(s) (shape={array.shape}) while a minimum of 1 is required."
        raise DataError(f"X: found an empty array {array.shape}, Found array with{features}")
    if array.dtype.kind in "iu" and array.ndim == 2:
        of_fit = fitted if fitted is not None and fitted.kind in "iub" else array.dtype
        array = _integers(array, of_fit)
    if array.dtype.kind not in "fub":
        raise DataError(f"X: found {array.dtype}, expected numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError("X: found NaN or infinity, expected numbers that are finite")
    return channels_first(array, what="X")


def _integers(rows: Array, fitted: np.dtype[Any]) -> Array:
    """Rows of integers with the meaning of those of `fit`, which were of that type.

    A table that was read again, or cut, often comes with smaller or larger integers.
    """
    if fitted != np.uint8:
        return rows.astype(np.float64)
    if not 0 <= rows.min() <= rows.max() <= 255:
        raise DataError(
            f"X: found integers from {rows.min()} to {rows.max()}, expected 0 to 255, the bytes "
            "(uint8) that fit was given"
        )
    return rows.astype(np.uint8, copy=False)


def _labels(y: Any, number: int) -> Array:
    """`(N,)`, of a kind that has an order."""
    if y is None:
        raise DataError("y: requires y to be passed, but the target y is None")
    labels = as_array(y, "y")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = _column(labels)
    if labels.ndim != 1 or len(labels) != number:
        raise DataError(f"y: found shape {labels.shape}, expected ({number},), one for each sample")
    expect_one_kind(y, labels, "y")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise DataError("y: found NaN or infinity in Input y, expected labels")
        if (labels != np.round(labels)).any():
            raise DataError("Unknown label type: continuous. y: found fractions, expected classes")
    if labels.dtype == object:
        kinds = {type(value) for value in labels}
        if len(kinds) > 1 or not kinds <= {str, int, bool, float}:
            raise DataError("Unknown label type: unknown. y: found objects, expected one kind")
    return labels


def _column(labels: Array) -> Array:
    """A column `(N, 1)` is taken, and said, as scikit-learn does."""
    kind = _sklearns("DataConversionWarning", UserWarning)
    text = "A column-vector y was passed when a 1d array was expected; it was taken as (N,)"
    warnings.warn(text, kind, stacklevel=5)
    return labels[:, 0]


def _sklearns(name: str, own: type[Any]) -> type[Any]:
    """The class of that name in scikit-learn, for programs that have imported it; else `own`."""
    return getattr(sys.modules.get("sklearn.exceptions"), name, own)
