"""Running parity: whether the number of ones so far is odd, asked at every bit.

    target(t) = x_1 + ... + x_t  mod 2

The smallest state that has to be tracked, and never forgotten. Grazzi et al. 2024, "Unlocking State-Tracking in Linear
RNNs Through Negative Eigenvalues": a linear recurrence whose transitions have eigenvalues in [0, 1] alone cannot do it
at every length.

Legend: batch = sequences, time = length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.learners.group_product import GroupProduct, cyclic
from contexture.learners.shift import Shift
from contexture.protocols import SequenceLearner, TaskCard, Tokens
from contexture.tasks.draws import at_least, integers


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningParity:
    """Track parity over bits; the oracle carries one bit.

    >>> drawn = RunningParity(length=6).sample(1, generator=torch.Generator().manual_seed(0))
    >>> drawn.ids[0].tolist(), drawn.targets[0].tolist()
    ([0, 1, 1, 0, 1, 1], [0, 1, 0, 0, 1, 0])
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="running-parity",
        summary="Say at every bit whether the number of ones so far is odd.",
        paper="Grazzi et al., Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues, arXiv:2411.12537",
        year=2024,
        episodes="tokens",
        metric="error-rate",
    )

    length: int = 32

    def __post_init__(self) -> None:
        at_least(1, length=self.length)

    @property
    def vocabulary(self) -> int:
        """Two bits."""
        return 2

    @property
    def chance(self) -> float:
        """Either bit is as likely at every step."""
        return 0.5

    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        """Draw bits; every position is scored."""
        ids = integers(batch, self.length, below=2, generator=generator)
        return Tokens(ids=ids, targets=ids.cumsum(1) % 2, mask=torch.ones_like(ids).bool(), vocabulary=2)

    def oracle(self) -> SequenceLearner:
        """The sum so far, modulo two."""
        return GroupProduct(table=cyclic(2))

    def baselines(self) -> Mapping[str, SequenceLearner]:
        """The bit itself, which forgets all before it."""
        return {"present-bit": Shift(vocabulary=2)}
