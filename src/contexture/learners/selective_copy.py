"""The n-th token that was not noise, at the n-th question: the optimum of selective copying.

Legend: batch = sequences, time = tokens.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.learners.certain import certain, runs
from contexture.protocols import LearnerCard


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectiveCopy:
    """Keeps every token but noise in order, and says the n-th of them when asked for the n-th time.

    >>> learner = SelectiveCopy(vocabulary=8, noise=0, ask=1)
    >>> learner.logits(torch.tensor([[0, 5, 0, 3, 1, 1]])).argmax(-1)[0, 4:].tolist()
    [5, 3]
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="selective-copy",
        summary="Says the tokens that were not noise, in their order, one at each question.",
        kind="classical",
        targets=frozenset(),
    )

    vocabulary: int
    noise: int = 0
    ask: int = 1

    @classmethod
    def example(cls) -> Self:
        """A vocabulary of 16 tokens."""
        return cls(vocabulary=16)

    def logits(
        self, tokens: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """30 nats for the token asked for, 0 for the others; uniform elsewhere and where there is none."""
        stretch = runs(tokens, segments)
        content, asked = (tokens != self.noise) & (tokens != self.ask), tokens == self.ask
        shown, question = self._numbers(content, stretch), self._numbers(asked, stretch)
        same = asked.unsqueeze(2) & content.unsqueeze(1) & (stretch.unsqueeze(2) == stretch.unsqueeze(1))
        same &= question.unsqueeze(2) == shown.unsqueeze(1)
        earlier = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).tril(-1)
        found = same & earlier
        answers = tokens.gather(1, found.long().argmax(2))
        return certain(answers, vocabulary=self.vocabulary, known=found.any(2))

    @staticmethod
    def _numbers(chosen: Tensor, stretch: Tensor) -> Tensor:
        """How many chosen tokens there were in the stretch, up to and including each position."""
        counts = chosen.long().cumsum(1)
        new = torch.ones_like(chosen)
        new[:, 1:] = stretch[:, 1:] != stretch[:, :-1]
        # Counts never fall, so the largest seen at a stretch's start is that of the latest start.
        before = torch.where(new, counts - chosen.long(), 0).cummax(1).values
        return counts - before
