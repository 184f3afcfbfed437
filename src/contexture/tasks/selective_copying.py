"""Selective copying: tokens strewn among noise, to be said in order once the noise has ended.

    . . x1 . x2 . . x3 | ? ? ?      (. noise, token 0;  ? a question, token 1);   the target at the i-th question is x_i

In the form of Poli et al. 2024, "Mechanistic Design and Scaling of Hybrid Architectures", where the questions do not
give away what was answered; there 16 tokens of a vocabulary of 16 in 256. What to keep depends on the token itself.

Legend: batch = sequences, time = length + num_tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.errors import InputError
from contexture.learners.selective_copy import SelectiveCopy
from contexture.learners.unigram import Unigram
from contexture.protocols import SequenceLearner, TaskCard, Tokens
from contexture.tasks.draws import at_least, integers, subsets


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectiveCopying:
    """Say what was not noise, in order; the oracle keeps exactly that.

    A drawn sequence, 2 tokens among 4 of noise:

    >>> task = SelectiveCopying(vocabulary=8, length=6, num_tokens=2)
    >>> drawn = task.sample(1, generator=torch.Generator().manual_seed(2))
    >>> drawn.ids[0].tolist()
    [2, 0, 5, 0, 0, 0, 1, 1]
    >>> drawn.targets[0].tolist()
    [0, 0, 0, 0, 0, 0, 2, 5]
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="selective-copying",
        summary="Tokens strewn among noise, to be said in order afterwards.",
        paper="Poli et al., Mechanistic Design and Scaling of Hybrid Architectures, arXiv:2403.17844",
        year=2024,
        episodes="tokens",
        metric="error-rate",
    )

    vocabulary: int = 16
    length: int = 48
    num_tokens: int = 16

    def __post_init__(self) -> None:
        at_least(1, num_tokens=self.num_tokens)
        at_least(3, vocabulary=self.vocabulary)
        if self.length < self.num_tokens:
            raise InputError(f"{self.num_tokens} tokens do not fit into a length of {self.length}")

    @property
    def chance(self) -> float:
        """The error rate of one constant answer: all tokens but noise and question are as likely."""
        return 1 - 1 / (self.vocabulary - 2)

    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        """Draw sequences; the scored positions are the questions at the end."""
        kept = 2 + integers(batch, self.num_tokens, below=self.vocabulary - 2, generator=generator)
        places = subsets(batch, self.length, self.num_tokens, generator=generator).sort(1).values
        shown = torch.zeros(batch, self.length, dtype=torch.int64, device=kept.device)
        shown.scatter_(1, places, kept)
        blank = torch.zeros_like(shown)
        return Tokens(
            ids=torch.cat([shown, torch.ones_like(kept)], 1),
            targets=torch.cat([blank, kept], 1),
            mask=torch.cat([blank, torch.ones_like(kept)], 1).bool(),
            vocabulary=self.vocabulary,
        )

    def oracle(self) -> SequenceLearner:
        """The n-th token that was not noise, at the n-th question."""
        return SelectiveCopy(vocabulary=self.vocabulary)

    def baselines(self) -> Mapping[str, SequenceLearner]:
        """The commonest token, which is noise or question."""
        return {"unigram": Unigram(vocabulary=self.vocabulary)}
