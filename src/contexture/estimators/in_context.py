"""The pretrained in-context learner with scikit-learn's face: `fit` encodes the context, `predict` only reads it.

    ContextClassifier().fit(x, y).predict_proba(x_new)          ContextRegressor().fit(x, y).predict_interval(x_new)

Cells may be missing; a pandas frame may hold columns of text, categories and dates. What is predicted for a row does
not depend on the other rows of the call.
"""

from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from contexture.errors import InputError
from contexture.estimators.columns import FrameColumns, has_text
from contexture.learners.saved import load_named
from contexture.learners.table_transformer import FittedTables, TableTransformerLearner
from contexture.protocols import Column, Pairs, Prediction, Schema

Cells = Float64[np.ndarray, "rows columns"]


class _InContextEstimator(BaseEstimator):  # type: ignore[misc]
    """What the classifier and the regressor share."""

    def __init__(self, *, model: str = "tables", num_members: int = 4) -> None:
        self.model = model
        self.num_members = num_members

    def __sklearn_tags__(self) -> Any:
        """Missing cells are allowed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _fit_context(self, x: Cells, y: torch.Tensor, target: Column) -> None:
        schema = Schema(features=self.columns_.columns, target=target)
        self.context_ = Pairs(x=torch.tensor(x)[None], y=y[None], schema=schema)
        self._encode()

    def _encode(self) -> None:
        learner = load_named(self.model)
        if not isinstance(learner, TableTransformerLearner):
            raise InputError(f"the model {self.model!r} does not predict tables")
        self.fitted_: FittedTables = TableTransformerLearner(learner.model, num_members=self.num_members).fit(
            self.context_
        )

    def _read(self, x: Any, y: Any) -> tuple[Cells, Any]:
        """Validate what `fit` is given, and learn what the columns hold."""
        if has_text(x):
            _, y = validate_data(self, x, y, skip_check_array=True)
            self.columns_ = FrameColumns.of_frame(x)
            cells = _finite(self.columns_.encode(x))
            y = np.asarray(y)
            if len(y) != len(cells):
                raise InputError(f"x has {len(cells)} rows, but y has {len(y)}")
            return cells, y
        x, y = validate_data(self, x, y, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2)
        self.columns_ = FrameColumns.of_array(x.shape[1])
        return _finite(x), y

    def _queries(self, x: Any) -> torch.Tensor:
        check_is_fitted(self)
        if any(column.kind == "categorical" for column in self.columns_.columns) or has_text(x):
            if not hasattr(x, "iloc"):
                raise InputError("fit saw a frame with columns of text, so give a frame with the same columns")
            validate_data(self, x, reset=False, skip_check_array=True)
            cells = self.columns_.encode(x)
        else:
            cells = validate_data(self, x, reset=False, dtype=np.float64, ensure_all_finite="allow-nan")
        return torch.tensor(_finite(cells))[None]

    def _predict(self, x: Any) -> Prediction:
        queries = self._queries(x)
        return self.fitted_.predict(queries)


class ContextClassifier(ClassifierMixin, _InContextEstimator):  # type: ignore[misc]
    """A classifier that learns a table in the forward pass of a pretrained transformer.

    model: a shipped learner's name, or the folder of one; num_members: passes with different orders of the columns and
    classes that are averaged. At most 10 classes and 100 columns.

    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> bool(ContextClassifier().fit(x[::2], y[::2]).score(x[1::2], y[1::2]) > 0.9)
    True
    """

    def fit(self, x: Any, y: Any) -> Self:
        """Encode the examples x [rows, columns] with their classes y [rows]; ValueError says what cannot be used."""
        cells, y = self._read(x, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y holds one class, {self.classes_[0]!r}, and telling classes apart needs at least two")
        target = Column(name="y", kind="categorical", categories=tuple(map(str, self.classes_)))
        self._fit_context(cells, torch.from_numpy(codes.astype(np.int64)), target)
        return self

    def predict_proba(self, x: Any) -> Float64[np.ndarray, "rows classes"]:
        """Probabilities of the classes, in the order of `classes_`."""
        return self._predict(x).value[0].numpy()

    def predict(self, x: Any) -> Shaped[np.ndarray, " rows"]:
        """The most probable class of each row."""
        probabilities = self.predict_proba(x)
        chosen: np.ndarray = self.classes_[probabilities.argmax(axis=1)]
        return chosen


class ContextRegressor(RegressorMixin, _InContextEstimator):  # type: ignore[misc]
    """A regressor that learns a table in the forward pass of a pretrained transformer.

    model: a shipped learner's name, or the folder of one; num_members: passes with different orders of the columns that
    are averaged. At most 100 columns.

    >>> from sklearn.datasets import load_diabetes
    >>> x, y = load_diabetes(return_X_y=True)
    >>> bool(ContextRegressor().fit(x[:200], y[:200]).score(x[200:], y[200:]) > 0.4)
    True
    """

    def fit(self, x: Any, y: Any) -> Self:
        """Encode the examples x [rows, columns] with their targets y [rows]; ValueError says what cannot be used."""
        cells, y = self._read(x, y)
        try:
            numbers = np.asarray(y, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"y has to hold numbers for a regression: {error}") from error
        if not np.isfinite(numbers).all():
            raise InputError("y holds a missing or infinite number")
        self._fit_context(cells, torch.tensor(numbers), Column(name="y"))
        return self

    def predict(self, x: Any) -> Float64[np.ndarray, " rows"]:
        """The predictive mean of each row."""
        return self._predict(x).value[0].numpy()

    def predict_interval(self, x: Any, *, level: float = 0.8) -> Float64[np.ndarray, "rows 2"]:
        """The interval of each row in which a share `level` of outcomes should fall."""
        if not 0 < level < 1:
            raise InputError(f"a level lies between 0 and 1, not at {level}")
        interval = self._predict(x).interval(level)
        assert interval is not None
        return np.stack([bound[0].numpy() for bound in interval], axis=1)


def _finite(cells: Cells) -> Cells:
    if np.isinf(cells).any():
        raise InputError("Input X contains infinity: give finite numbers, or NaN where a cell is missing")
    return cells
