"""Recall of phrases: keys of several tokens, and values of several tokens after them.

    key tokens | value tokens | key tokens | value tokens ...

The tokens below `num_keys` are those of keys; a record is a run of them and the run of value tokens that follows. The
answer at t is what came next in the first earlier record with the same key: the first token of its value once a key
stands whole, and within a value its next token.

Legend: batch = sequences, time = tokens.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contexture.learners.certain import certain, runs
from contexture.protocols import LearnerCard


@dataclass(frozen=True, kw_only=True, slots=True)
class PhraseLookup:
    """Recalls, token by token, the value of a key that may be of several tokens.

    >>> learner = PhraseLookup(vocabulary=8, num_keys=4)
    >>> learner.logits(torch.tensor([[0, 1, 5, 6, 1, 7, 0, 1, 5]])).argmax(-1)[0, -2:].tolist()
    [5, 6]
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="phrase-lookup",
        summary="Recalls the value of a key where both are phrases of several tokens.",
        kind="classical",
        targets=frozenset(),
    )

    vocabulary: int
    num_keys: int

    @classmethod
    def example(cls) -> Self:
        """A vocabulary of 16 tokens, four of which make keys."""
        return cls(vocabulary=16, num_keys=4)

    def logits(
        self, tokens: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """30 nats for the recalled token, 0 for the others; uniform where the key is new."""
        is_key = tokens < self.num_keys
        time = tokens.shape[1]
        matches = self._matches(tokens, is_key, runs(tokens, segments))
        # After a key's last token comes a value, so a longer key that begins alike is no match.
        ends = F.pad(~is_key[:, 1:], (0, 1))
        earlier = torch.ones(time, time, dtype=torch.bool, device=tokens.device).tril(-1)
        found = matches & earlier & (ends.unsqueeze(1) | ~is_key.unsqueeze(2))
        place = found.long().argmax(2)
        answers = tokens.gather(1, (place + 1).clamp(max=time - 1))
        return certain(answers, vocabulary=self.vocabulary, known=found.any(2))

    def _matches(
        self, tokens: Tensor, is_key: Bool[Tensor, "batch time"], stretch: Int[Tensor, "batch time"]
    ) -> Bool[Tensor, "batch time time"]:
        """Whether positions t and s stand at the same place of records whose keys are equal that far."""
        first = torch.ones_like(is_key)
        first[:, 1:] = stretch[:, 1:] != stretch[:, :-1]
        starts = is_key.clone()
        starts[:, 1:] &= first[:, 1:] | ~is_key[:, :-1]
        goes_on = ~starts & ~first
        before, rows = torch.zeros_like(is_key), []
        for t in range(tokens.shape[1]):
            now = slice(t, t + 1)
            alike = (is_key == is_key[:, now]) & ((tokens == tokens[:, now]) | ~is_key)
            alike &= stretch == stretch[:, now]
            continued = goes_on & F.pad(before[:, :-1], (1, 0))
            before = alike & torch.where(starts[:, now], starts, continued & goes_on[:, now])
            rows.append(before)
        return torch.stack(rows, 1)
