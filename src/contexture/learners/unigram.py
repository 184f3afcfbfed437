"""The commonest token so far: what counting alone, without order, can say.

    logit(t, v) = log (1 + number of v among the tokens up to t)

Legend: batch = sequences, time = tokens.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.learners.certain import runs
from contexture.protocols import LearnerCard


@dataclass(frozen=True, kw_only=True, slots=True)
class Unigram:
    """Says what was common so far in the segment, each token counted once more than it was seen.

    >>> Unigram(vocabulary=3).logits(torch.tensor([[2, 2]])).softmax(-1)[0, 1].tolist()  # doctest: +ELLIPSIS
    [0.2..., 0.2..., 0.6...]
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="unigram", summary="Says the commonest token so far.", kind="classical", targets=frozenset()
    )

    vocabulary: int

    @classmethod
    def example(cls) -> Self:
        """A vocabulary of 16 tokens."""
        return cls(vocabulary=16)

    def logits(
        self, tokens: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """The logarithm of one more than the count."""
        counts = F.one_hot(tokens, self.vocabulary).cumsum(1)
        if segments is not None:
            stretch = runs(tokens, segments)
            place = torch.arange(tokens.shape[1], device=tokens.device)
            new = torch.ones_like(tokens, dtype=torch.bool)
            new[:, 1:] = stretch[:, 1:] != stretch[:, :-1]
            start = torch.where(new, place, 0).cummax(1).values
            before = F.pad(counts, (0, 0, 1, 0))[:, :-1]
            counts = counts - before.gather(1, start.unsqueeze(-1).expand_as(counts))
        return (counts + 1).float().log()
