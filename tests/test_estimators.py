"""scikit-learn's face of the shipped learner: its own checks, frames, saving, and rows that do not see each other."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.utils.estimator_checks import parametrize_with_checks

from contexture.errors import CheckpointError
from contexture.estimators.in_context import ContextClassifier, ContextRegressor
from contexture.estimators.saving import load, save

Estimator = ContextClassifier | ContextRegressor


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([ContextClassifier(num_members=2), ContextRegressor(num_members=2)])
def test_scikit_learns_own_checks_pass(estimator: Estimator, check: Any) -> None:
    check(estimator)


def iris() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x, y = load_iris(return_X_y=True)
    return x[::3], y[::3], x[1::3], y[1::3]


def diabetes() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x, y = load_diabetes(return_X_y=True)
    return x[:150], y[:150], x[150:300], y[150:300]


@pytest.mark.parametrize(("cls", "data"), [(ContextClassifier, iris), (ContextRegressor, diabetes)])
def test_a_row_is_predicted_alike_alone_and_among_others(cls: type[Estimator], data: Any) -> None:
    x, y, queries, _ = data()
    fitted = cls().fit(x, y)
    verb = fitted.predict_proba if isinstance(fitted, ContextClassifier) else fitted.predict
    scale = 1 if cls is ContextClassifier else float(np.std(y))
    alone = np.concatenate([verb(queries[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone, verb(queries)[:5], rtol=0, atol=1e-7 * scale)


def frame(rows: int, *, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    draw = np.random.default_rng(seed)
    town = draw.choice(["north", "south", "west"], rows)
    size = draw.uniform(10, 50, rows)
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(draw.integers(0, 365, rows), unit="D")
    y = size + np.where(town == "west", 40.0, 0.0)
    x = pd.DataFrame({"town": pd.Series(town, dtype=object), "size": size, "new": draw.random(rows) < 0.5, "day": day})
    x.loc[0, "town"], x.loc[1, "size"] = None, np.nan
    return x, y


def test_a_frame_with_text_and_dates_goes_straight_in() -> None:
    x, y = frame(120, seed=0)
    queries, truth = frame(60, seed=1)
    fitted = ContextRegressor().fit(x, y)
    assert fitted.score(queries[2:], truth[2:]) > 0.8
    without_town = ContextRegressor().fit(x.drop(columns="town"), y)
    assert without_town.score(queries[2:].drop(columns="town"), truth[2:]) < 0.7
    queries.loc[3, "town"] = "moon"
    assert np.isfinite(fitted.predict(queries)).all()
    with pytest.raises(ValueError, match="frame with columns of text"):
        fitted.predict(np.zeros((3, 4)))


def test_intervals_are_ordered_and_widen_with_their_level() -> None:
    x, y, queries, truth = diabetes()
    fitted = ContextRegressor().fit(x, y)
    narrow, wide = fitted.predict_interval(queries, level=0.5), fitted.predict_interval(queries, level=0.9)
    assert (wide[:, 0] < narrow[:, 0]).all()
    assert (narrow[:, 1] < wide[:, 1]).all()
    covered = ((wide[:, 0] < truth) & (truth < wide[:, 1])).mean()
    assert 0.8 < covered < 0.98


@pytest.mark.parametrize("names", [np.array(["a", "b", "c"]), np.array([2, 5, 9])])
def test_a_saved_classifier_predicts_as_before(tmp_path: Path, names: np.ndarray) -> None:
    x, y, queries, _ = iris()
    fitted = ContextClassifier(num_members=2).fit(x, names[y])
    save(fitted, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert isinstance(again, ContextClassifier)
    np.testing.assert_array_equal(again.predict_proba(queries), fitted.predict_proba(queries))
    np.testing.assert_array_equal(again.predict(queries), fitted.predict(queries))


def test_a_saved_regressor_over_a_frame_predicts_as_before(tmp_path: Path) -> None:
    x, y = frame(40, seed=0)
    fitted = ContextRegressor(num_members=2).fit(x, y)
    save(fitted, tmp_path / "saved")
    np.testing.assert_array_equal(load(tmp_path / "saved").predict(x), fitted.predict(x))


def test_a_damaged_save_is_refused(tmp_path: Path) -> None:
    x, y, _, _ = iris()
    save(ContextClassifier(num_members=1).fit(x, y), tmp_path / "saved")
    weights = tmp_path / "saved" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        load(tmp_path / "saved")


def test_beyond_the_limits_one_sentence_says_so() -> None:
    draw = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at most 10 classes"):
        ContextClassifier().fit(draw.random((60, 3)), np.arange(60) % 12)
    with pytest.raises(ValueError, match="1 to 100 columns"):
        ContextRegressor().fit(draw.random((60, 101)), draw.random(60))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ContextRegressor(num_members=1).fit(draw.random((900, 2)), draw.random(900))
