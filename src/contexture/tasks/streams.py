"""Pairs in their order, whose meaning may change on the way: tables, river's streams, permuted digits.

Permuted digits (after the permuted streams of Kirkpatrick et al., 2017, arXiv:1612.00796, with the labels in place of
the pixels): handwritten digits come in a random order, and every 500 of them the ten labels trade places at random.
What was learned of images stays true; what their classes are called does not.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from contexture.errors import InputError
from contexture.randomness import generator
from contexture.tables.dataset import Dataset
from contexture.tasks.bundled import bundled_dataset

Row = Mapping[str, Any]

PERMUTED_DIGITS = "permuted-digits"
RIVER = {
    "bananas": ("Bananas", "Which of two banana-shaped clusters 5,300 points in the plane belong to."),
    "phishing": ("Phishing", "Which of 1,250 web pages are for phishing (Abdelhamid et al. 2014)."),
    "image-segments": ("ImageSegments", "What 2,310 patches of outdoor images show, of seven classes."),
    "trump-approval": ("TrumpApproval", "Approval of a president over 1,001 days, from five polls."),
    "chick-weights": ("ChickWeights", "The weight of chicks on four diets, 578 times."),
}
"""River's streams that come with it and have one target: its class and what it holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """Features and targets in their order; drifts: the pairs at which the law is known to change."""

    source: str
    target: str
    kind: Literal["regression", "classification"]
    rows: tuple[Row, ...] = field(repr=False)
    targets: tuple[Any, ...] = field(repr=False)
    drifts: tuple[int, ...] = ()

    @property
    def digest(self) -> str:
        """What tells these pairs from any others."""
        return hashlib.sha256(repr((self.kind, self.rows, self.targets)).encode()).hexdigest()[:16]

    def describe(self) -> str:
        """One line for the terminal."""
        changes = f", {len(self.drifts)} known changes" if self.drifts else ""
        return f"{self.source}: {len(self.rows):,} pairs, {self.kind} of {self.target}{changes}"


def known_streams() -> dict[str, str]:
    """The streams that have a name, each with a sentence."""
    digits = "Handwritten digits whose labels trade places every 500 images."
    return {PERMUTED_DIGITS: digits, **{name: sentence for name, (_, sentence) in RIVER.items()}}


def named_stream(name: str) -> Stream:
    """The stream of a name in `known_streams`; InputError for any other, or without river where it is needed."""
    if name == PERMUTED_DIGITS:
        return permuted_digits()
    if name in RIVER:
        return _river_stream(name)
    raise InputError(f"no stream is named {name!r}: there are {', '.join(known_streams())}, and any table's file")


def table_stream(data: Dataset) -> Stream:
    """The rows of a table in their order; a missing cell is left out, a category is its text."""
    columns, rows = data.schema.features, []
    for cells in data.x.tolist():
        row = {}
        for column, cell in zip(columns, cells, strict=True):
            if not math.isnan(cell):
                row[column.name] = column.categories[int(cell)] if column.kind == "categorical" else cell
        rows.append(row)
    classes = data.schema.task == "classification"
    targets = [data.classes[code] for code in data.y.tolist()] if classes else [float(value) for value in data.y]
    return Stream(
        source=data.source,
        target=data.schema.target.name,
        kind=data.schema.task,
        rows=tuple(rows),
        targets=tuple(targets),
    )


def permuted_digits(*, num_pairs: int = 10_000, every: int = 500, seed: int = 0) -> Stream:
    """Digits in passes of random order; the labels trade places every so many pairs.

    >>> stream = permuted_digits(num_pairs=1200)
    >>> len(stream.rows), stream.drifts, stream.targets[:3]
    (1200, (500, 1000), ('5', '3', '6'))
    """
    if num_pairs < 1 or every < 1:
        raise InputError(f"a stream has pairs, and labels stay for one at least, not {num_pairs} and {every}")
    plain = table_stream(bundled_dataset("digits"))
    source, count = generator(seed, PERMUTED_DIGITS), len(plain.rows)
    passes = [torch.randperm(count, generator=source) for _ in range(-(-num_pairs // count))]
    order = torch.cat(passes)[:num_pairs].tolist()
    labels = sorted(set(plain.targets))
    names, targets = list(labels), []
    for place, index in enumerate(order):
        if place and place % every == 0:
            names = [labels[code] for code in torch.randperm(len(labels), generator=source).tolist()]
        targets.append(names[labels.index(plain.targets[index])])
    return Stream(
        source=PERMUTED_DIGITS,
        target="label",
        kind="classification",
        rows=tuple(plain.rows[index] for index in order),
        targets=tuple(targets),
        drifts=tuple(range(every, num_pairs, every)),
    )


def _river_stream(name: str) -> Stream:
    try:
        from river import datasets
    except ImportError as error:
        raise InputError(f"the stream {name!r} is river's: python -m pip install 'contexture[river]'") from error
    found = getattr(datasets, RIVER[name][0])()
    pairs = list(found)
    numbers = found.task == "Regression"
    return Stream(
        source=name,
        target=str(getattr(found, "target", "target")),
        kind="regression" if numbers else "classification",
        rows=tuple(row for row, _ in pairs),
        targets=tuple(float(y) if numbers else y for _, y in pairs),
    )
