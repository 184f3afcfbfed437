"""The number that the latest tokens spell: the optimum of compression.

    answer(t) = offset + sum_i digit(t - i) base^(i - 1),   i = 1 .. length

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
class PositionalCode:
    """Reads the tokens before the present one as digits, and says the token that stands for their number.

    >>> PositionalCode(base=2, length=3, offset=3).logits(torch.tensor([[1, 0, 1, 2]])).argmax(-1)[0, -1].item()
    8
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="positional-code",
        summary="Says the token that stands for the number which the latest tokens spell.",
        kind="classical",
        targets=frozenset(),
    )

    base: int
    length: int
    offset: int

    @classmethod
    def example(cls) -> Self:
        """Two digits below three."""
        return cls(base=3, length=2, offset=4)

    @property
    def vocabulary(self) -> int:
        """The tokens up to the last number's."""
        return self.offset + int(self.base**self.length)

    def logits(
        self, tokens: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """30 nats for the number's token, 0 for the others; uniform where the latest tokens are not all digits."""
        stretch, place = runs(tokens, segments), torch.arange(tokens.shape[1], device=tokens.device)
        number, known = torch.zeros_like(tokens), (place >= self.length).expand_as(tokens)
        for i in range(1, self.length + 1):
            digit = tokens.roll(i, 1)
            known = known & (digit < self.base) & (stretch.roll(i, 1) == stretch)
            number = number + digit * int(self.base ** (i - 1))
        return certain(torch.where(known, self.offset + number, 0), vocabulary=self.vocabulary, known=known)
