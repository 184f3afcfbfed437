"""A table ready to learn from: features as numbers and codes, the target as numbers or classes, what was inferred."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from contexture.tables.frame import listed
from contexture.tables.schema import TableSchema
from contexture.tables.values import DATE_FORMS

__all__ = ["Dataset"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Rows of features and targets.

    x: float64, numbers and codes of categories, NaN where missing; y: float64 for a number, int64 codes for a class.
    `lines` are the rows' lines in the file, for messages; `findings` say what was inferred.
    """

    schema: TableSchema
    x: Float64[np.ndarray, "rows features"]
    y: Shaped[np.ndarray, " rows"]
    source: str
    lines: Int64[np.ndarray, " rows"]
    findings: tuple[str, ...] = ()

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return len(self.x)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; none for a number."""
        return self.schema.target.categories

    def rows(self, chosen: Int64[np.ndarray, " chosen"] | Sequence[int] | slice) -> "Dataset":
        """Return the chosen rows, in the order asked; the schema stays that of the whole."""
        return replace(self, x=self.x[chosen], y=self.y[chosen], lines=self.lines[chosen])

    def describe(self) -> list[str]:
        """Return what was read and inferred, one sentence a line, for the user to check."""
        counts = Counter(column.kind for column in self.schema.features)
        kinds = " and ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), reverse=True))
        missing = np.isnan(self.x).sum(axis=0)
        gaps = [f"{column.name} {count}" for column, count in zip(self.schema.features, missing, strict=True) if count]
        named = [
            f"{column.name} ({len(column.categories)})"
            for column in self.schema.features
            if column.kind == "categorical"
        ]
        lines = [
            f"{self.source}: {self.num_rows} rows, {len(self.schema.features)} features: {kinds}",
            f"target {self.schema.target.name}: {self._target_words()}",
        ]
        lines += [f"categorical features (and how many categories): {listed(named)}"] if named else []
        lines += [f"missing cells: {listed(gaps)}"] if gaps else []
        return [*lines, *self.findings]

    def _target_words(self) -> str:
        if self.schema.task == "regression":
            dated = self.schema.target.form in DATE_FORMS
            unit = " days since 1970-01-01" if dated else ""
            return f"a number from {self.y.min():g} to {self.y.max():g}{unit}"
        counts = np.bincount(self.y, minlength=len(self.classes))
        shown = [f"{name} {count}" for name, count in zip(self.classes, counts, strict=True)]
        return f"a class, of {len(self.classes)} (rows of each: {listed(shown)})"
