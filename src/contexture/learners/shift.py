"""The token that stood a fixed number of places ago: the optimum where a sequence is said again after that delay.

    answer(t) = ids(t - distance)

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
class Shift:
    """Says the token of `distance` places ago; 0 says the token that is read.

    >>> Shift(distance=2, vocabulary=8).logits(torch.tensor([[5, 3, 4, 6]])).argmax(-1)[0, 2:].tolist()
    [5, 3]
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="shift",
        summary="Says the token that stood a fixed number of places ago.",
        kind="classical",
        targets=frozenset(),
    )

    vocabulary: int
    distance: int = 0

    @classmethod
    def example(cls) -> Self:
        """A vocabulary of 16 tokens, three places ago."""
        return cls(vocabulary=16, distance=3)

    def logits(
        self, tokens: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """30 nats for that token, 0 for the others; uniform where the segment is not so old."""
        stretch, place = runs(tokens, segments), torch.arange(tokens.shape[1], device=tokens.device)
        known = (stretch == stretch.roll(self.distance, 1)) & (place >= self.distance)
        return certain(tokens.roll(self.distance, 1), vocabulary=self.vocabulary, known=known)
