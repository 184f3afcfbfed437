"""Tables of a few examples that claims show to learners, and what these say of every place of a line or plane.

    examples about -1 and +1 ─▶ learner ─▶ probability of the class on the right, at every x

Shapes: x [tables, examples] on a line, else [tables, examples, columns]; y [tables, examples]; places, queries alike.
"""

import torch
from torch import Tensor

from contexture.claims.run import Run
from contexture.learners.saved import load_shipped
from contexture.learners.table_transformer import TableTransformerLearner
from contexture.protocols import Learner, Pairs, Schema
from contexture.tasks.draws import normal


def table(num_members: int = 4) -> TableTransformerLearner:
    """The shipped learner, with so many orders of columns and classes in its ensemble."""
    shipped = load_shipped("tables")
    assert isinstance(shipped, TableTransformerLearner)
    return TableTransformerLearner(shipped.model, num_members=num_members, calibration=shipped.calibration)


def chances(learner: Learner, x: Tensor, y: Tensor, queries: Tensor, *, num_classes: int = 2) -> Tensor:
    """The probability of every class at every query, [tables, queries, classes]."""
    context = Pairs(x=x, y=y, schema=Schema.classes(x.shape[2], num_classes))
    said = learner.predict(context, queries.expand(x.shape[0], -1, -1)).probabilities
    assert said is not None
    return said.double()


def green(learner: Learner, x: Tensor, y: Tensor, places: Tensor) -> Tensor:
    """The probability of the second class of two at places of a line, [tables, places]; x is [tables, examples]."""
    asked = places.expand(x.shape[0], -1) if places.dim() == 1 else places
    return chances(learner, x.unsqueeze(2), y, asked.unsqueeze(2))[..., 1]


def two_sides(run: Run, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """`count` examples of either class about -1 and +1, [tables, 2 count]."""
    tables = run.setting("tables", smoke=2, cpu=48)
    away = 1 + 0.2 * normal(tables, 2 * count, generator=run.generator(seed, "examples"))
    y = torch.arange(2).repeat_interleave(count).expand(tables, -1).contiguous()
    return torch.where(y == 1, away, -away), y


def misses(said: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The squared error of each table's probabilities [tables, queries], and that of always saying one half.

    >>> error, zero = misses(torch.tensor([[0.2, 0.9]]), torch.tensor([0.0, 1.0]))
    >>> round(float(error), 3), float(zero)
    (0.025, 0.25)
    """
    return (said - right).square().mean(1), torch.full(said.shape[:1], 0.25, dtype=said.dtype)
