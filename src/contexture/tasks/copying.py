"""Copying: a string of random tokens, and then the same string again.

    x1 x2 .. xn | x1 x2 .. xn,   the bar (token 0) and every copied token but the last asked for the one that follows

Jelassi et al. 2024, "Repeat After Me: Transformers are Better than State Space Models at Copying": what has to be kept
grows with n, whatever the mechanism.

Legend: batch = sequences, time = 2 n tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.learners.recall import InductionHead
from contexture.learners.shift import Shift
from contexture.protocols import SequenceLearner, TaskCard, Tokens
from contexture.tasks.draws import at_least, integers


@dataclass(frozen=True, kw_only=True, slots=True)
class Copying:
    """Say a string again; the oracle says the token of n places ago.

    A drawn sequence of 3 tokens:

    >>> drawn = Copying(vocabulary=8, num_tokens=3).sample(1, generator=torch.Generator().manual_seed(1))
    >>> drawn.ids[0].tolist()
    [1, 4, 5, 0, 1, 4]
    >>> drawn.targets[0].tolist()
    [0, 0, 0, 1, 4, 5]
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="copying",
        summary="A string of random tokens, to be said again.",
        paper="Jelassi et al., Repeat After Me, arXiv:2402.01032",
        year=2024,
        episodes="tokens",
        metric="error-rate",
    )

    vocabulary: int = 32
    num_tokens: int = 24

    def __post_init__(self) -> None:
        at_least(1, num_tokens=self.num_tokens)
        at_least(3, vocabulary=self.vocabulary)

    @property
    def chance(self) -> float:
        """The error rate of one constant answer: all tokens but the bar are as likely."""
        return 1 - 1 / (self.vocabulary - 1)

    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        """Draw sequences; the scored positions are the last n."""
        string = 1 + integers(batch, self.num_tokens, below=self.vocabulary - 1, generator=generator)
        blank = torch.zeros_like(string)
        return Tokens(
            ids=torch.cat([string, blank[:, :1], string[:, :-1]], 1),
            targets=torch.cat([blank, string], 1),
            mask=torch.cat([blank, blank + 1], 1).bool(),
            vocabulary=self.vocabulary,
        )

    def oracle(self) -> SequenceLearner:
        """The token of n places ago."""
        return Shift(vocabulary=self.vocabulary, distance=self.num_tokens)

    def baselines(self) -> Mapping[str, SequenceLearner]:
        """An induction head, which a repeated token misleads."""
        return {"induction-head": InductionHead(vocabulary=self.vocabulary)}
