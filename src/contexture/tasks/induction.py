"""Induction heads: one trigger, the token after it, and much later the trigger again.

    x .. x 0 y x .. x 0,   the target at the end is y

The trigger is token 0; all others are random and without meaning. Fu et al. 2023, "Hungry Hungry Hippos: Towards
Language Modeling with State Space Models", after the heads of Olsson et al. 2022.

Legend: batch = sequences, time = length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.learners.recall import InductionHead
from contexture.learners.unigram import Unigram
from contexture.protocols import SequenceLearner, TaskCard, Tokens
from contexture.tasks.draws import at_least, integers


@dataclass(frozen=True, kw_only=True, slots=True)
class Induction:
    """Recall what followed the one trigger; the oracle is an induction head.

    A drawn sequence of 8 tokens:

    >>> drawn = Induction(vocabulary=8, length=8).sample(1, generator=torch.Generator().manual_seed(2))
    >>> drawn.ids[0].tolist()
    [3, 4, 0, 3, 5, 1, 7, 0]
    >>> drawn.targets[0].tolist()
    [0, 0, 0, 0, 0, 0, 0, 3]
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="induction",
        summary="Recall the token after the only trigger when the trigger comes again.",
        paper="Fu et al., Hungry Hungry Hippos, arXiv:2212.14052",
        year=2022,
        episodes="tokens",
        metric="error-rate",
    )

    vocabulary: int = 16
    length: int = 32

    def __post_init__(self) -> None:
        at_least(3, vocabulary=self.vocabulary, length=self.length)

    @property
    def chance(self) -> float:
        """The error rate of one constant answer: all tokens but the trigger are as likely."""
        return 1 - 1 / (self.vocabulary - 1)

    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        """Draw sequences; slices: gap [batch, time], the tokens between the two triggers."""
        ids = 1 + integers(batch, self.length, below=self.vocabulary - 1, generator=generator)
        place = integers(batch, 1, below=self.length - 2, generator=generator)
        ids.scatter_(1, place, 0)
        ids[:, -1] = 0
        blank = torch.zeros_like(ids)
        last = torch.full_like(place, self.length - 1)
        return Tokens(
            ids=ids,
            targets=blank.scatter(1, last, ids.gather(1, place + 1)),
            mask=blank.bool().scatter(1, last, True),
            vocabulary=self.vocabulary,
            slices={"gap": blank.scatter(1, last, last - place)},
        )

    def oracle(self) -> SequenceLearner:
        """The token after the latest earlier occurrence of the one that is read."""
        return InductionHead(vocabulary=self.vocabulary)

    def baselines(self) -> Mapping[str, SequenceLearner]:
        """The commonest token."""
        return {"unigram": Unigram(vocabulary=self.vocabulary)}
