"""What a learner was trained on, column by column: enough to read a new table the same way, and to be kept as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from contexture.tables.columns import ColumnKind

__all__ = ["TableColumn", "TableSchema", "TargetKind"]

TargetKind = Literal["regression", "classification"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """One column: its name, its index in the file, and how its text becomes a number or a code."""

    name: str
    index: int
    kind: ColumnKind
    form: str = "number"
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSchema:
    """The features in order, the target (categorical: a class), and the file's columns that are neither."""

    features: tuple[TableColumn, ...]
    target: TableColumn
    has_header: bool = True
    num_columns: int
    dropped: tuple[str, ...] = ()

    @property
    def task(self) -> TargetKind:
        """Whether the target is a number or a class."""
        return "classification" if self.target.kind == "categorical" else "regression"

    def as_json(self) -> dict[str, Any]:
        """Return the schema as what JSON can hold.

        >>> target = TableColumn(name="y", index=0, kind="numeric")
        >>> schema = TableSchema(features=(), target=target, num_columns=1)
        >>> TableSchema.from_json(schema.as_json()) == schema
        True
        """
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TableSchema":
        """Return the schema that `as_json` wrote."""
        rest = {**document, "dropped": tuple(document["dropped"])}
        rest["target"] = _column(document["target"])
        rest["features"] = tuple(map(_column, document["features"]))
        return cls(**rest)


def _column(document: Mapping[str, Any]) -> TableColumn:
    return TableColumn(**{**document, "categories": tuple(document["categories"])})
