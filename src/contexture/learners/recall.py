"""Recall over tokens: what followed an earlier occurrence of the token that is read now.

    lookup:          the token after the *first* occurrence in the segment (the optimum on associative recall, where
                     pairs come first and keys do not repeat among them)
    induction head:  the token after the *latest* occurrence (Olsson et al. 2022); a stray filler can mislead it

Both find the occurrence by a stable sort, in O(time log time), and give uniform logits to an unseen token.

Legend: batch = sequences, time = tokens.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.learners.certain import certain, runs
from contexture.protocols import LearnerCard


def first_occurrence(ids: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """The position at which the token at t stood first in its segment (t itself if it is new)."""
    order, starts = _groups(ids, segments)
    position = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    start = torch.where(starts, position, 0).cummax(1).values
    return torch.empty_like(order).scatter(1, order, order.gather(1, start))


def latest_occurrence(ids: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """The latest earlier position in the segment of the token at t (t itself if it is new)."""
    order, starts = _groups(ids, segments)
    earlier = torch.where(starts, order, order.roll(1, 1))
    return torch.empty_like(order).scatter(1, order, earlier)


def _groups(ids: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
    """Positions sorted by (segment, token, time), and where in that order a new token begins."""
    stretch = runs(ids, segments)
    by_token = ids.argsort(dim=1, stable=True)
    order = by_token.gather(1, stretch.gather(1, by_token).argsort(dim=1, stable=True))
    tokens, parts = ids.gather(1, order), stretch.gather(1, order)
    starts = torch.ones_like(ids, dtype=torch.bool)
    starts[:, 1:] = (tokens[:, 1:] != tokens[:, :-1]) | (parts[:, 1:] != parts[:, :-1])
    return order, starts


def _recalled(ids: Tensor, found: Tensor, vocabulary: int) -> Tensor:
    """Logits that name the token after `found`, uniform where `found` is the position itself."""
    position = torch.arange(ids.shape[1], device=ids.device)
    followed = ids.gather(1, (found + 1).clamp(max=ids.shape[1] - 1))
    return certain(followed, vocabulary=vocabulary, known=found < position)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """Recalls the token after the first occurrence in the segment of the token read."""

    card: ClassVar[LearnerCard] = LearnerCard(
        name="lookup",
        summary="Recalls what followed the first occurrence of the token that is read.",
        kind="classical",
        targets=frozenset(),
    )

    vocabulary: int

    @classmethod
    def example(cls) -> Self:
        """A vocabulary of 16 tokens."""
        return cls(vocabulary=16)

    def logits(
        self, tokens: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """30 nats for the recalled token, 0 for the others."""
        found = first_occurrence(tokens, torch.zeros_like(tokens) if segments is None else segments)
        return _recalled(tokens, found, self.vocabulary)


@dataclass(frozen=True, kw_only=True, slots=True)
class InductionHead:
    """Recalls the token after the latest earlier occurrence in the segment of the token read."""

    card: ClassVar[LearnerCard] = LearnerCard(
        name="induction-head",
        summary="Recalls what followed the latest earlier occurrence of the token that is read.",
        paper="Olsson et al.: In-context learning and induction heads",
        year=2022,
        kind="classical",
        targets=frozenset(),
    )

    vocabulary: int

    @classmethod
    def example(cls) -> Self:
        """A vocabulary of 16 tokens."""
        return cls(vocabulary=16)

    def logits(
        self, tokens: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """30 nats for the recalled token, 0 for the others."""
        found = latest_occurrence(tokens, torch.zeros_like(tokens) if segments is None else segments)
        return _recalled(tokens, found, self.vocabulary)
