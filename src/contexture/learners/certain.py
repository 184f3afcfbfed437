"""Logits of learners that know the answer or know nothing: one token far above the others, or all of them alike.

Legend: batch = sequences, time = tokens.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CERTAINTY = 30.0
"""The logit of the answer in nats, all others having 0."""


def certain(
    answers: Int[Tensor, "batch time"], *, vocabulary: int, known: Bool[Tensor, "batch time"] | None = None
) -> Float[Tensor, "batch time vocabulary"]:
    """Logits that name the answers, uniform where they are not known.

    >>> certain(torch.tensor([[2, 0]]), vocabulary=3, known=torch.tensor([[True, False]])).tolist()
    [[[0.0, 0.0, 30.0], [0.0, 0.0, 0.0]]]
    """
    certainty = torch.full(answers.shape, CERTAINTY, device=answers.device)
    if known is not None:
        certainty = torch.where(known, certainty, 0.0)
    logits = torch.zeros(*answers.shape, vocabulary, device=answers.device)
    return logits.scatter(-1, answers.unsqueeze(-1), certainty.unsqueeze(-1))


def runs(tokens: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None) -> Int[Tensor, "batch time"]:
    """A number for each stretch of one segment, counted from 0 in every sequence.

    >>> runs(torch.zeros(1, 5, dtype=torch.int64), torch.tensor([[7, 7, 2, 2, 7]])).tolist()
    [[0, 0, 1, 1, 2]]
    """
    numbers = torch.zeros_like(tokens)
    if segments is not None:
        numbers[:, 1:] = (segments[:, 1:] != segments[:, :-1]).long()
    return numbers.cumsum(1)
