"""What the ridge learners that choose their penalty share: the grid, and weights from singular values.

Shapes: along = U'y [batch, rank]; values [batch, rank]; right = V' [batch, rank, features]; penalty [batch].
"""

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.protocols import LearnerCard

PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(8, -9, -1))
"""From 10^4 down to 10^-4, two per decade, beside the sum of squared residuals of unit-scale columns."""


def checked(card: LearnerCard, penalties: tuple[float, ...]) -> None:
    """InputError unless there are penalties and all are positive."""
    if not penalties or not min(penalties) > 0:
        raise InputError(f"{card.name} needs positive penalties to choose from, but they are {penalties}")


def shrunken_weights(
    along: Float[Tensor, "batch rank"],
    values: Float[Tensor, "batch rank"],
    right: Float[Tensor, "batch rank features"],
    penalty: Float[Tensor, " batch"],
) -> Float[Tensor, "batch features"]:
    """(X'X + penalty I)^-1 X'y from the singular values of X."""
    return torch.einsum("br,brd->bd", along * values / (values.square() + penalty[:, None]), right)
