"""What a learner takes in: fp64 tensors of the right kind, or one sentence saying what is not.

Shapes: x [batch, time, features]; y [batch, time]; queries [batch, queries, features].
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.protocols import LearnerCard, Pairs, Schema, Target

LARGEST_BLOCK = 2**22
"""How many fp64 numbers one intermediate tensor may hold (32 MiB) before the batch is worked off in blocks."""


def regression(card: LearnerCard, pairs: Pairs) -> tuple[Float[Tensor, "batch time features"], Tensor]:
    """The numeric examples of a regression, in fp64; InputError for classes, categories, missing cells."""
    return numeric(card, pairs.schema, pairs.x), targets(card, pairs)


def targets(card: LearnerCard, pairs: Pairs) -> Float[Tensor, "batch time"]:
    """The numeric targets of a regression, in fp64."""
    require(card, pairs.schema, "regression")
    y = pairs.y.to(torch.float64)
    _require_finite(card, y, "y")
    return y


def classification(
    card: LearnerCard, pairs: Pairs
) -> tuple[Float[Tensor, "batch time features"], Int[Tensor, "batch time"]]:
    """The numeric examples of a classification: x in fp64, y int64 codes."""
    return numeric(card, pairs.schema, pairs.x), classes(card, pairs)


def classes(card: LearnerCard, pairs: Pairs) -> Int[Tensor, "batch time"]:
    """The int64 codes of a classification; InputError where a code stands for no class."""
    require(card, pairs.schema, "classification")
    y = pairs.y.to(torch.int64)
    if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < pairs.schema.num_classes:
        raise InputError(
            f"the classes of {pairs.schema.target.name!r} are coded 0 to {pairs.schema.num_classes - 1}, "
            f"but y holds {int(y.min())} to {int(y.max())}"
        )
    return y


def numeric(card: LearnerCard, schema: Schema, x: Float[Tensor, "batch rows features"]) -> Tensor:
    """The rows in fp64; InputError for categorical columns and for cells that are missing or infinite."""
    if x.shape[-1] != len(schema.features):
        raise InputError(f"{card.name} was shown {len(schema.features)} features, but the queries have {x.shape[-1]}")
    for column in schema.features:
        if column.kind != "numeric":
            raise InputError(
                f"{card.name} takes numeric columns, but {column.name!r} is categorical: wrap it in Standardized"
            )
    x = x.to(torch.float64)
    _require_finite(card, x, "x")
    return x


def require(card: LearnerCard, schema: Schema, target: Target) -> None:
    """InputError unless the schema's target is of the kind asked for."""
    if schema.task != target:
        found = "a class" if schema.task == "classification" else "a number"
        raise InputError(f"{card.name} does {target}, but the target {schema.target.name!r} is {found}")


def blocks(batch: int, numbers_per_episode: int) -> Iterator[slice]:
    """Slices of the batch, of about one size, none needing more than `LARGEST_BLOCK` numbers (or one episode)."""
    size = max(1, LARGEST_BLOCK // max(1, numbers_per_episode))
    count = -(-batch // size)
    return (slice(i * batch // count, (i + 1) * batch // count) for i in range(count))


def _require_finite(card: LearnerCard, values: Tensor, name: str) -> None:
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        where = ", ".join(str(int(index)) for index in (~finite).nonzero()[0])
        raise InputError(
            f"{card.name} takes finite numbers, but {name}[{where}] is missing or infinite: wrap it in Standardized"
        )
