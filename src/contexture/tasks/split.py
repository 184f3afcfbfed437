"""One division of a table into rows to learn from and rows to be scored on."""

from dataclasses import dataclass

from contexture.errors import InputError
from contexture.protocols import Pairs

__all__ = ["Split"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Rows to learn from, in the order in which they are shown, and rows to be scored on.

    Both are a batch of one episode. Nothing in `train` depends on how many of its rows are shown.
    """

    train: Pairs
    test: Pairs

    def context(self, num_rows: int) -> Pairs:
        """The first rows of the training half; InputError where it holds fewer."""
        if not 0 <= num_rows <= self.train.time:
            raise InputError(f"the training half holds {self.train.time} rows, so {num_rows} cannot be shown")
        return self.train.prefix(num_rows)
