"""Temperatures for the table transformer, from the development tables alone; nothing is chosen by a test table.

    python benchmarks/tabular_calibration.py FOLDER [--learner tables] [--splits 3]     # print what each would do
    python benchmarks/tabular_calibration.py FOLDER --write LEARNER --classes 0.87 --power 0.125

FOLDER holds the tables of benchmarks/development_tables.py. Printed for classes: the log-loss; for numbers: the root
mean square error over the deviation, and the share of outcomes within the 80 % and 95 % intervals; after 30, 100 and
300 rows.
"""

import argparse
import json
import math
import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from contexture.learners.saved import load_named, save_learner
from contexture.learners.table_calibration import Calibration
from contexture.learners.table_transformer import FittedTables, TableTransformerLearner
from contexture.protocols import Pairs
from contexture.store.checkpoint import read_checkpoint
from tabular_development import Table, loss, read, schema, splits

TEMPERATURES = (0.75, 0.8, 0.85, 0.87, 0.9, 0.95, 1.0)
SIZES = (30, 100, 300)


def fitted(learner: TableTransformerLearner, table: Table, shown: np.ndarray) -> FittedTables:
    """The learner shown some rows of a table."""
    y = torch.tensor(table.y[shown])[None]
    x = torch.tensor(table.x[shown])[None]
    return learner.fit(Pairs(x=x, y=y.long() if table.num_classes else y, schema=schema(table)))


def scores(fit: FittedTables, table: Table, asked: np.ndarray) -> list[float]:
    """The log-loss; or the root mean square error over the deviation and two coverages."""
    said = fit.predict(torch.tensor(table.x[asked])[None])
    found = [loss(table, asked, said.value[0].numpy())]
    for level in () if table.num_classes else (0.8, 0.95):
        bounds = said.interval(level)
        assert bounds is not None
        low, high = bounds[0][0].numpy(), bounds[1][0].numpy()
        found.append(float(((low <= table.y[asked]) & (table.y[asked] <= high)).mean()))
    return found


def constant(temperature: float, size: int) -> Calibration:
    """One temperature for both kinds of target after `size` rows."""
    return Calibration(classes=temperature, rows=1, power=-math.log(temperature) / math.log(size))


def show(folder: Path, learner: TableTransformerLearner, num_splits: int) -> None:
    """One line per kind of target, size and temperature."""
    kept: dict[tuple[str, int, float], list[list[float]]] = defaultdict(list)
    for table in read(folder):
        kind = "classes" if table.num_classes else "numbers"
        for _, size, shown, asked in splits(table, list(SIZES), num_splits):
            fit = fitted(learner, table, shown)
            for temperature in TEMPERATURES:
                changed = replace(fit, calibration=constant(temperature, size))
                kept[kind, size, temperature].append(scores(changed, table, asked))
    for (kind, size, temperature), rows in sorted(kept.items()):
        means = np.round(np.mean(rows, axis=0), 4).tolist()
        names = ("log-loss",) if kind == "classes" else ("rmse", "coverage-80", "coverage-95")
        line = {"kind": kind, "size": size, "temperature": temperature, **dict(zip(names, means, strict=True))}
        print(json.dumps({**line, "num_splits": len(rows)}), flush=True)


def write(path: Path, calibration: Calibration) -> None:
    """Save the learner in `path` again, with these temperatures."""
    held = read_checkpoint(path)
    learner = load_named(path)
    assert isinstance(learner, TableTransformerLearner)
    save_learner(
        path,
        learner.model,
        learner=held.state["learner"],
        task=held.state["task"],
        config=learner.model.config,
        step=held.step,
        record=held.state["record"],
        calibration=calibration,
    )


def main() -> None:
    """Print what temperatures would do, or write some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--learner", default="tables")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--write", type=Path, help="the folder of a learner to write the temperatures into")
    parser.add_argument("--classes", type=float, default=1.0)
    parser.add_argument("--power", type=float, default=0.0)
    own = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if own.write:
        write(own.write, Calibration(classes=own.classes, power=own.power))
        return
    learner = load_named(own.learner)
    assert isinstance(learner, TableTransformerLearner)
    show(own.folder, learner, own.splits)


if __name__ == "__main__":
    main()
