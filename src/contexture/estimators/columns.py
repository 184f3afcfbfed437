"""What scikit-learn's users hand over - arrays, and frames with columns of text - as numbers and codes.

A numeric or boolean column stays as it is; a column of text, categories or objects becomes codes into the categories
that `fit` saw. A missing cell, and a category never seen, is NaN. Dates become days since 1970-01-01.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from contexture.errors import InputError
from contexture.protocols import Column

_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True, slots=True)
class FrameColumns:
    """The columns of the frame or array seen by `fit`, in order."""

    columns: tuple[Column, ...]

    @classmethod
    def of_frame(cls, frame: Any) -> "FrameColumns":
        """Infer what each column of a pandas frame holds."""
        return cls(tuple(_column(str(name), frame.iloc[:, place]) for place, name in enumerate(frame.columns)))

    @classmethod
    def of_array(cls, num_columns: int) -> "FrameColumns":
        """Numeric columns x1, x2, ..."""
        return cls(tuple(Column(name=f"x{place + 1}") for place in range(num_columns)))

    def encode(self, frame: Any) -> Float64[np.ndarray, "rows columns"]:
        """The cells of a frame with these columns as numbers and codes; InputError names a column that is not so."""
        parts = [_cells(column, frame.iloc[:, place]) for place, column in enumerate(self.columns)]
        return np.stack(parts, axis=1) if parts else np.empty((len(frame), 0))


def has_text(x: Any) -> bool:
    """Whether x is a pandas frame with a column that is not numeric."""
    if not (hasattr(x, "iloc") and hasattr(x, "columns")):
        return False
    return any(not _is_number(x.iloc[:, place]) for place in range(x.shape[1]))


def _is_number(series: Any) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return bool(is_numeric_dtype(series.dtype) or is_bool_dtype(series.dtype))


def _is_date(series: Any) -> bool:
    from pandas.api.types import is_datetime64_any_dtype

    return bool(is_datetime64_any_dtype(series.dtype))


def _column(name: str, series: Any) -> Column:
    if _is_number(series) or _is_date(series):
        return Column(name=name)
    return Column(name=name, kind="categorical", categories=tuple(sorted({str(cell) for cell in series.dropna()})))


def _cells(column: Column, series: Any) -> Float64[np.ndarray, " rows"]:
    if column.kind == "numeric":
        if _is_date(series):
            days = series.dt.tz_localize(None).to_numpy().astype("datetime64[ns]") - np.datetime64(0, "ns")
            return np.where(np.isnat(days), np.nan, days / _DAY)
        try:
            return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
        except (TypeError, ValueError) as error:
            raise InputError(f"column {column.name!r} held numbers in fit, and now it does not: {error}") from error
    codes = {category: float(code) for code, category in enumerate(column.categories)}
    missing = series.isna().to_numpy()
    return np.array(
        [np.nan if gone else codes.get(str(cell), np.nan) for cell, gone in zip(series, missing, strict=True)]
    )
