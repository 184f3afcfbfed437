"""Score the shipped table learner against tuned baselines on the test tables, and publish the result.

    python benchmarks/tables.py --data FOLDER [--only glass wine] [--output results/tables.json]

Every table is divided three times into halves (classes in proportion); learners see the first 20, 50, 100, 200 and 500
rows of the training half, as far as it holds them, and are scored on at most 500 held-out rows. Numbers are scored by
the squared error relative to the variance, classes by the log loss. Each baseline's settings are chosen by three-fold
cross-validation on its context, from the grids printed below (ridge by leave-one-out, the Gaussian process by
evidence). One file per table is kept beside the output while the run lasts, so that it can be stopped and goes on.
"""

import argparse
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contexture.evaluation.metrics import Truth, find
from contexture.learners.classical.gaussian_process import GaussianProcess
from contexture.learners.classical.majority import Majority
from contexture.learners.classical.mean import Mean
from contexture.learners.saved import load_named
from contexture.learners.standardized import Standardized
from contexture.learners.table_transformer import TableTransformerLearner
from contexture.models.table_transformer import TableTransformer
from contexture.protocols import Learner, Pairs, Prediction
from contexture.randomness import generator
from contexture.store.environment import environment
from contexture.store.results import write_result
from contexture.tables import read_dataset
from contexture.tasks.tables import BUNDLED, TableTask

SIZES = (20, 50, 100, 200, 500)
SPLITS = 3
FOLDS = 3
GRIDS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "ridge": {"alpha": tuple(10.0**p for p in range(-3, 5))},
    "logistic": {"C": (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)},
    "knn": {"n_neighbors": (1, 3, 5, 10, 20, 40), "weights": ("uniform", "distance")},
    "random-forest": {"min_samples_leaf": (1, 4), "max_features": (0.3, 1.0)},
    "boosting": {"learning_rate": (0.03, 0.1), "max_leaf_nodes": (4, 31)},
    "gaussian-process": {"length and noise": ("the grid of contexture's KernelGrid, by evidence",)},
}
FILES: Mapping[str, Mapping[str, Any]] = {
    "abalone": {"target": -1},
    "adult-test": {"target": -1},
    "auto_imports": {"target": -1},
    "banknote_authentication": {"target": -1},
    "breast-cancer-wisconsin": {"target": -1},
    "glass": {"target": -1},
    "haberman": {"target": -1},
    "housing": {"target": -1},
    "ionosphere": {"target": -1},
    "winequality-red": {"target": -1},
}
LINEAR = {"ridge": "linear", "logistic": "linear"}
GP_MOST = 1_000
"""Rows times classes beyond which a Gaussian-process classification is left out: minutes for one fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """A scikit-learn model whose settings are chosen by cross-validation on the context."""

    build: Callable[..., Any]
    grid: Mapping[str, tuple[Any, ...]]

    def predict(self, context: Pairs, queries: torch.Tensor) -> Prediction:
        encode = _encoder(context)
        x, y, asked = encode(context.x[0].numpy()), context.y[0].numpy(), encode(queries[0].numpy())
        num_classes = context.schema.num_classes
        settings = [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]
        usable = [each for each in settings if each.get("n_neighbors", 1) <= len(y) * (FOLDS - 1) // FOLDS]
        chosen = (
            min(usable, key=lambda each: self._validated(each, x, y, num_classes)) if len(usable) > 1 else usable[0]
        )
        said = torch.from_numpy(self._fitted(chosen, x, y, asked, num_classes))[None]
        return Prediction(probabilities=said) if num_classes else Prediction(mean=said)

    def _validated(self, settings: Mapping[str, Any], x: np.ndarray, y: np.ndarray, num_classes: int) -> float:
        losses = []
        for train, test in _folds(y, num_classes):
            said = self._fitted(settings, x[train], y[train], x[test], num_classes)
            if num_classes:
                losses.append(-np.log(np.clip(said[np.arange(len(test)), y[test]], 1e-6, 1)).mean())
            else:
                losses.append(np.square(said - y[test]).mean())
        return float(np.mean(losses))

    def _fitted(
        self, settings: Mapping[str, Any], x: np.ndarray, y: np.ndarray, asked: np.ndarray, num_classes: int
    ) -> np.ndarray:
        if num_classes and len(np.unique(y)) == 1:
            return np.eye(num_classes)[np.full(len(asked), y[0])]
        model = self.build(**settings).fit(x, y)
        if not num_classes:
            return np.asarray(model.predict(asked), dtype=np.float64)
        said = np.zeros((len(asked), num_classes))
        said[:, model.classes_] = model.predict_proba(asked)
        return said


def _encoder(context: Pairs) -> Callable[[np.ndarray], np.ndarray]:
    """Imputed, one-hot and standardised columns, by what the context holds."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    kinds = [column.kind for column in context.schema.features]
    numeric = [i for i, kind in enumerate(kinds) if kind == "numeric"]
    rest = [i for i, kind in enumerate(kinds) if kind != "numeric"]
    numbers = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    codes = make_pipeline(
        SimpleImputer(strategy="constant", fill_value=-1.0), OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    )
    encoder = ColumnTransformer([("numbers", numbers, numeric), ("codes", codes, rest)]).fit(context.x[0].numpy())
    return lambda cells: np.asarray(encoder.transform(cells), dtype=np.float64)


def _folds(y: np.ndarray, num_classes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Three folds; rows are dealt out class by class, so that a rare class is in as many folds as it can be."""
    draw = np.random.default_rng(0)
    order = draw.permutation(len(y))
    if num_classes:
        order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(y), dtype=np.int64)
    fold[order] = np.arange(len(y)) % FOLDS
    for index in range(FOLDS):
        yield np.flatnonzero(fold != index), np.flatnonzero(fold == index)


def baselines(task: TableTask) -> dict[str, Any]:
    from sklearn import ensemble, linear_model, neighbors

    if task.dataset.classes:
        linear = Tuned(build=lambda C: linear_model.LogisticRegression(C=C, max_iter=500), grid=GRIDS["logistic"])
        knn, forest, boosting = (
            neighbors.KNeighborsClassifier,
            ensemble.RandomForestClassifier,
            ensemble.HistGradientBoostingClassifier,
        )
    else:
        linear = Tuned(build=linear_model.Ridge, grid=GRIDS["ridge"])
        knn, forest, boosting = (
            neighbors.KNeighborsRegressor,
            ensemble.RandomForestRegressor,
            ensemble.HistGradientBoostingRegressor,
        )
    return {
        "constant": Majority() if task.dataset.classes else Mean(),
        "logistic" if task.dataset.classes else "ridge": linear,
        "knn": Tuned(build=knn, grid=GRIDS["knn"]),
        "random-forest": Tuned(
            build=lambda **settings: forest(n_estimators=100, random_state=0, **settings), grid=GRIDS["random-forest"]
        ),
        "boosting": Tuned(
            build=lambda **settings: boosting(random_state=0, early_stopping=False, **settings), grid=GRIDS["boosting"]
        ),
        "gaussian-process": Standardized(GaussianProcess()),
    }


def tasks(data: Path) -> Iterator[tuple[str, Callable[[], TableTask]]]:
    for name in BUNDLED:
        yield name, lambda name=name: TableTask(dataset=TableTask.bundled(name).dataset, most_held_out=500)
    for name, reading in FILES.items():
        path = data / f"{name}.csv"
        yield (
            name,
            lambda path=path, reading=reading: TableTask(dataset=read_dataset(path, **reading), most_held_out=500),
        )


def random_weights(learner: TableTransformerLearner) -> TableTransformerLearner:
    model = TableTransformer(learner.model.config, generator=generator(0, "random weights"))
    return TableTransformerLearner(model.eval().requires_grad_(False), num_members=learner.num_members)


def measure(task: TableTask, learners: Mapping[str, Learner], say: Callable[[str], None]) -> dict[str, Any]:
    """Losses by learner, size and split, and what the transformer's intervals cover."""
    metric = find(task.card.metric)
    classes = bool(task.dataset.classes)
    found: dict[str, Any] = {"metric": metric.name, "rows": task.dataset.num_rows, "losses": {}, "auc": {}, "cover": {}}
    for number, split in enumerate(task.splits(SPLITS, seed=0)):
        for size in (n for n in SIZES if n <= task.num_train):
            shown = split.context(size)
            scale = None
            if not classes:
                scale = (split.test.y - split.train.y.mean(1, keepdim=True)).square().mean(1, keepdim=True)
            truth = Truth(y=split.test.y, scale=scale)
            for name, learner in learners.items():
                if name == "gaussian-process" and classes and size * len(task.dataset.classes) > GP_MOST:
                    continue
                started = time.monotonic()
                said = learner.predict(shown, split.test.x)
                place = found["losses"].setdefault(name, {}).setdefault(str(size), [])
                place.append(metric(said, truth).mean().item())
                if classes:
                    auc = find("roc-auc")(said, truth).mean().item()
                    found["auc"].setdefault(name, {}).setdefault(str(size), []).append(None if math.isnan(auc) else auc)
                elif name == "transformer":
                    for level in (80, 95):
                        share = find(f"coverage-{level}")(said, truth).mean().item()
                        found["cover"].setdefault(str(level), {}).setdefault(str(size), []).append(share)
                say(f"split {number + 1}, {size} rows, {name}: {place[-1]:.4f} in {time.monotonic() - started:.1f} s")
    return found


def summarise(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Mean ranks and the median ratio to the best tuned baseline, for each size; coverage; random weights.

    Ridge and logistic regression are ranked as one, "linear": each stands for numbers or for classes alone.
    """
    summary: dict[str, Any] = {"mean rank": {}, "median loss over the best baseline's": {}, "tables": {}}
    for size in map(str, SIZES):
        ranks: dict[str, list[float]] = {}
        ratios, count = [], 0
        for table in tables.values():
            means = {name: statistics.fmean(by[size]) for name, by in table["losses"].items() if size in by}
            entrants = {name: loss for name, loss in means.items() if name != "random weights"}
            if not entrants:
                continue
            count += 1
            for name, loss in entrants.items():
                name = LINEAR.get(name, name)
                ranks.setdefault(name, []).append(1 + sum(other < loss for other in entrants.values()))
            best = min(loss for name, loss in entrants.items() if name != "transformer")
            ratios.append(entrants["transformer"] / best)
        if ratios:
            summary["mean rank"][size] = {name: round(statistics.fmean(r), 3) for name, r in sorted(ranks.items())}
            summary["median loss over the best baseline's"][size] = round(statistics.median(ratios), 4)
            summary["tables"][size] = count
    cover = {
        level: [share for t in tables.values() for shares in t["cover"].get(level, {}).values() for share in shares]
        for level in ("80", "95")
    }
    summary["coverage of intervals"] = {k: round(statistics.fmean(v), 4) for k, v in cover.items() if v}
    summary["coverage by size"] = {
        size: {level: round(statistics.fmean(shares), 4) for level, shares in _covered(tables, size).items()}
        for size in map(str, SIZES)
    }
    gains = [
        statistics.fmean(t["losses"]["constant"][size]) - statistics.fmean(t["losses"]["random weights"][size])
        for t in tables.values()
        for size in t["losses"]["constant"]
    ]
    summary["random weights"] = {
        "worse than the constant": sum(gain < 0 for gain in gains),
        "tables and sizes": len(gains),
        "largest gain over the constant": round(max(gains), 4),
    }
    return summary


def _covered(tables: Mapping[str, Any], size: str) -> dict[str, list[float]]:
    """The shares of held-out numbers within the intervals of each level, one for each table and split."""
    found: dict[str, list[float]] = {}
    for table in tables.values():
        for level, by_size in table["cover"].items():
            found.setdefault(level, []).extend(by_size.get(size, ()))
    return {level: shares for level, shares in found.items() if shares}


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the CSV files")
    parser.add_argument("--only", nargs="+", help="these tables alone")
    parser.add_argument("--model", default="tables", help="a shipped learner's name, or a folder")
    parser.add_argument("--output", type=Path, default=Path("results/tables.json"))
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    warnings.simplefilter("ignore")
    learner = load_named(options.model)
    assert isinstance(learner, TableTransformerLearner)
    parts = options.output.with_suffix(".parts")
    parts.mkdir(parents=True, exist_ok=True)
    began, found = time.monotonic(), {}
    for name, task in tasks(options.data):
        if options.only and name not in options.only:
            continue
        kept = parts / f"{name}.json"
        if not kept.exists():
            built = task()
            entrants = {**baselines(built), "transformer": learner, "random weights": random_weights(learner)}
            part = measure(
                built, entrants, lambda text, name=name: print(f"{name}: {text}", file=sys.stderr, flush=True)
            )
            kept.write_text(json.dumps(part, allow_nan=False), encoding="utf-8")
        found[name] = json.loads(kept.read_text(encoding="utf-8"))
    summary = summarise(found)
    result = {
        "summary": summary,
        "grids": {name: {key: list(values) for key, values in grid.items()} for name, grid in GRIDS.items()},
        "splits": SPLITS,
        "seconds": round(time.monotonic() - began, 1),
        "environment": environment(),
        "command": "python benchmarks/tables.py --data FOLDER",
        "tables": found,
    }
    write_result(options.output, result)
    print(json.dumps(summary, indent=1))
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
