"""Compression: all that was read, named by one token at the end.

    d1 d2 .. dn c,   the target at c is the token that stands for the number d1 d2 .. dn in base b

The model must bring the whole string, in its order, into one vector. Poli et al. 2024, "Mechanistic Design and Scaling
of Hybrid Architectures", decode that vector by a network of its own; here one of b^n tokens is asked for instead, so
that any model over tokens can be scored.

Legend: batch = sequences, time = n + 1 tokens; digits are the tokens 0..b-1, c is b, numbers follow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.errors import InputError
from contexture.learners.positional_code import PositionalCode
from contexture.learners.unigram import Unigram
from contexture.protocols import SequenceLearner, TaskCard, Tokens
from contexture.tasks.draws import at_least, integers

MOST = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Compression:
    """Name a string of digits by one token; the oracle spells its number.

    A drawn sequence: the bits 1 1 0, the token 2 that asks, and 3 + 6 = 9.

    >>> drawn = Compression(base=2, num_digits=3).sample(1, generator=torch.Generator().manual_seed(1))
    >>> drawn.ids[0].tolist()
    [1, 1, 0, 2]
    >>> drawn.targets[0].tolist()
    [0, 0, 0, 9]
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="compression",
        summary="Name a whole string of digits by one token at its end.",
        paper="Poli et al., Mechanistic Design and Scaling of Hybrid Architectures, arXiv:2403.17844",
        year=2024,
        episodes="tokens",
        metric="error-rate",
    )

    base: int = 2
    num_digits: int = 10

    def __post_init__(self) -> None:
        at_least(2, base=self.base)
        at_least(1, num_digits=self.num_digits)
        if self.base**self.num_digits > MOST:
            raise InputError(
                f"{self.num_digits} digits below {self.base} spell {self.base**self.num_digits} numbers, and at most "
                f"{MOST} can be named"
            )

    @property
    def vocabulary(self) -> int:
        """Digits, the token that asks, and numbers."""
        return self.base + 1 + int(self.base**self.num_digits)

    @property
    def chance(self) -> float:
        """The error rate of one constant number."""
        return 1 - float(self.base**-self.num_digits)

    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        """Draw strings."""
        digits = integers(batch, self.num_digits, below=self.base, generator=generator)
        places = torch.arange(self.num_digits - 1, -1, -1, device=digits.device)
        number = (digits * self.base**places).sum(1, keepdim=True)
        blank = torch.zeros_like(digits)
        return Tokens(
            ids=torch.cat([digits, torch.full_like(number, self.base)], 1),
            targets=torch.cat([blank, self.base + 1 + number], 1),
            mask=torch.cat([blank, torch.ones_like(number)], 1).bool(),
            vocabulary=self.vocabulary,
        )

    def oracle(self) -> SequenceLearner:
        """The token for the number that the digits spell."""
        return PositionalCode(base=self.base, length=self.num_digits, offset=self.base + 1)

    def baselines(self) -> Mapping[str, SequenceLearner]:
        """The commonest token."""
        return {"unigram": Unigram(vocabulary=self.vocabulary)}
