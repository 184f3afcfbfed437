"""The table transformer against four baselines on the development tables, which are real and never in a test.

    python benchmarks/tabular_development.py FOLDER [LEARNER] --sizes 30,100,300 --splits 3 --json out.json

FOLDER holds one NAME.npz per table: x [rows, columns] with NaN for a missing cell and codes in categorical columns,
cat [columns] (bool), y [rows] (class codes, or numbers), k (the number of classes, 0 for a regression). The tables are
named in src/contexture/weights/README.md. LEARNER is a saved learner's folder; without it, the one that ships.
Printed per kind of target and context size: mean loss (log-loss, or RMSE over the deviation), mean rank, and the median
of the loss over the best baseline's; for a regression, how often the 80 % and 95 % intervals cover.
"""

import argparse
import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from contexture.learners.saved import load_named
from contexture.protocols import Column, Pairs, Schema

BASELINES = ("linear", "knn", "forest", "boosting")
MAX_QUERIES = 200


class Table(NamedTuple):
    """A development table in memory."""

    name: str
    x: np.ndarray
    categorical: np.ndarray
    y: np.ndarray
    num_classes: int


def read(folder: Path) -> list[Table]:
    """Every table of the folder, by name."""
    tables = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as held:
            tables.append(Table(path.stem, held["x"], held["cat"], held["y"], int(held["k"])))
    return tables


def splits(table: Table, sizes: list[int], count: int) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """(split, size, rows of the context, rows asked about), the same for every learner."""
    rows = len(table.y)
    held_back = min(MAX_QUERIES, rows // 3)
    for split in range(count):
        order = np.random.default_rng(100 + split).permutation(rows)
        for size in sizes:
            if size <= rows - held_back:
                yield split, size, order[held_back : held_back + size], order[:held_back]


def schema(table: Table) -> Schema:
    """The table's schema, with categories named by their codes."""
    features = []
    for index, is_category in enumerate(table.categorical):
        codes = int(np.nanmax(table.x[:, index])) + 1 if is_category else 0
        names = tuple(str(code) for code in range(codes))
        features.append(Column(name=f"x{index}", kind="categorical" if is_category else "numeric", categories=names))
    target = Schema.classes(1, table.num_classes).target if table.num_classes else Column(name="y")
    return Schema(features=tuple(features), target=target)


def transformer(learner: Any, table: Table, shown: np.ndarray, asked: np.ndarray) -> dict[str, float]:
    """The scores of the learner, with the coverage of its intervals."""
    y = torch.tensor(table.y[shown])[None]
    context = Pairs(x=torch.tensor(table.x[shown])[None], y=y.long() if table.num_classes else y, schema=schema(table))
    said = learner.predict(context, torch.tensor(table.x[asked])[None])
    scores = {"loss": loss(table, asked, said.value[0].numpy())}
    for level in () if table.num_classes else (0.8, 0.95):
        low, high = said.interval(level)
        inside = (low[0].numpy() <= table.y[asked]) & (table.y[asked] <= high[0].numpy())
        scores[f"coverage-{level}"] = float(inside.mean())
    return scores


def loss(table: Table, asked: np.ndarray, value: np.ndarray) -> float:
    """Log-loss with probabilities of at least 1e-4, or RMSE in units of the target's deviation."""
    y = table.y[asked]
    if not table.num_classes:
        return float(np.sqrt(((value - y) ** 2).mean()) / y.std())
    kept = np.clip(value, 1e-4, 1)
    kept /= kept.sum(axis=1, keepdims=True)
    return float(-np.log(kept[np.arange(len(y)), y.astype(int)]).mean())


def baseline(name: str, table: Table, shown: np.ndarray, asked: np.ndarray) -> dict[str, float]:
    """The scores of one of scikit-learn's learners."""
    from sklearn import ensemble, linear_model, neighbors
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    codes = make_pipeline(
        SimpleImputer(strategy="most_frequent", keep_empty_features=True), OneHotEncoder(handle_unknown="ignore")
    )
    columns = [("n", numbers, ~table.categorical), ("c", codes, table.categorical)]
    neighbours = min(7, len(shown) // 2)
    kind = "classes" if table.num_classes else "numbers"
    made: Any = {
        "linear-classes": lambda: linear_model.LogisticRegression(max_iter=300),
        "linear-numbers": lambda: linear_model.RidgeCV(np.logspace(-2, 3, 11)),
        "knn-classes": lambda: neighbors.KNeighborsClassifier(neighbours),
        "knn-numbers": lambda: neighbors.KNeighborsRegressor(neighbours),
        "forest-classes": lambda: ensemble.RandomForestClassifier(random_state=0),
        "forest-numbers": lambda: ensemble.RandomForestRegressor(random_state=0),
        "boosting-classes": lambda: ensemble.HistGradientBoostingClassifier(random_state=0),
        "boosting-numbers": lambda: ensemble.HistGradientBoostingRegressor(random_state=0),
    }[f"{name}-{kind}"]()
    model = make_pipeline(ColumnTransformer(columns), made)
    model.fit(table.x[shown], table.y[shown])
    if not table.num_classes:
        return {"loss": loss(table, asked, model.predict(table.x[asked]))}
    value = np.zeros((len(asked), table.num_classes))
    value[:, model.classes_.astype(int)] = model.predict_proba(table.x[asked])
    return {"loss": loss(table, asked, value)}


def summarise(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line per kind of target and size."""
    groups = defaultdict(list)
    for score in scores:
        groups[score["kind"], score["size"]].append(score)
    lines = []
    for (kind, size), members in sorted(groups.items()):
        names = ("transformer", *BASELINES)
        losses = np.array([[member[name]["loss"] for name in names] for member in members])
        line: dict[str, Any] = {"kind": kind, "size": size, "num_splits": len(members)}
        line["loss"] = dict(zip(names, losses.mean(axis=0).round(4).tolist(), strict=True))
        ranks = losses.argsort(axis=1).argsort(axis=1) + 1
        line["rank"] = dict(zip(names, ranks.mean(axis=0).round(2).tolist(), strict=True))
        line["over_best_baseline"] = round(float(np.median(losses[:, 0] / losses[:, 1:].min(axis=1))), 4)
        for level in (0.8, 0.95):
            covered = [member["transformer"].get(f"coverage-{level}") for member in members]
            if None not in covered:
                line[f"coverage-{level}"] = round(float(np.mean(covered)), 4)
        lines.append(line)
    return lines


def main() -> None:
    """Score every table, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("learner", nargs="?", default="tables")
    parser.add_argument("--sizes", default="30,100,300")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--json", type=Path)
    own = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    learner = load_named(own.learner)
    scores = []
    for table in read(own.folder):
        for split, size, shown, asked in splits(table, [int(size) for size in own.sizes.split(",")], own.splits):
            score: dict[str, Any] = {"table": table.name, "kind": "classes" if table.num_classes else "numbers"}
            score |= {"size": size, "split": split, "transformer": transformer(learner, table, shown, asked)}
            scores.append(score | {name: baseline(name, table, shown, asked) for name in BASELINES})
        print(table.name, file=sys.stderr, flush=True)
    summary = summarise(scores)
    for line in summary:
        print(json.dumps(line))
    if own.json:
        own.json.write_text(json.dumps({"schema": 1, "summary": summary, "scores": scores}), encoding="utf-8")


if __name__ == "__main__":
    main()
