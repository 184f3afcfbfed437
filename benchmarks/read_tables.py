"""Rows per second of reading a CSV file and inferring its columns, beside pandas.read_csv.

Run: python benchmarks/read_tables.py [--rows N] [--repeats K]. Each file is generated anew; the best of K is shown.
"Read" is the text of every cell with its line; "dataset" adds kinds, values, categories and the target.
"""

import argparse
import platform
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from contexture.tables import read_table, table_dataset


def numbers(rng: random.Random) -> list[str]:
    return [f"{rng.gauss(0, 100):.5f}" for _ in range(12)]


def mixed(rng: random.Random) -> list[str]:
    words = [rng.choice(("red", "green", "?", '"light, blue"')) for _ in range(6)]
    return [*words, f"20{rng.randint(10, 30)}-0{rng.randint(1, 9)}-11", *(f"{rng.random():.4f}" for _ in range(5))]


def best(act: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(path: Path, num_rows: int, repeats: int) -> dict[str, float]:
    import pandas

    ways: dict[str, Callable[[], object]] = {
        "contexture read": lambda: read_table(path),
        "contexture dataset": lambda: table_dataset(read_table(path), target=-1),
        "pandas.read_csv": lambda: pandas.read_csv(path, na_values=["?"]),
        "pandas.read_csv, all text": lambda: pandas.read_csv(path, dtype=str, keep_default_na=False),
    }
    return {name: num_rows / best(act, repeats) for name, act in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000, help="rows of each generated file")
    parser.add_argument("--repeats", type=int, default=5, help="readings of each file; the best counts")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {options.rows} rows")
    with tempfile.TemporaryDirectory() as folder:
        for name, draw in {"12 numbers": numbers, "6 words, 1 date, 5 numbers": mixed}.items():
            rng = random.Random(0)
            path = Path(folder) / "table.csv"
            header = ",".join(f"column{index}" for index in range(12))
            path.write_text("\n".join([header, *(",".join(draw(rng)) for _ in range(options.rows))]) + "\n")
            print(f"\n{name} per row ({path.stat().st_size / 1e6:.1f} MB)")
            for way, rate in measure(path, options.rows, options.repeats).items():
                print(f"  {way:28s} {rate:12,.0f} rows/s")


if __name__ == "__main__":
    main()
