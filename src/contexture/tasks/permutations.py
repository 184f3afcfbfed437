"""Permutations composed one after another: the word problem of a symmetric group, asked at every step.

    target(t) = g_1 g_2 ... g_t,   tokens are the elements of S_n in lexicographic order, 0 the identity

Merrill, Petty and Sabharwal 2024, "The Illusion of State in State-Space Models": for S_5 no model of constant depth in
TC0 can do it at every length, however large its state; S_3 is the smallest group in which order matters.

Legend: batch = sequences, time = length.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.group_product import GroupProduct, symmetric
from contexture.learners.shift import Shift
from contexture.protocols import SequenceLearner, TaskCard, Tokens
from contexture.tasks.draws import at_least, integers


@dataclass(frozen=True, kw_only=True, slots=True)
class Permutations:
    """Track a permutation; the oracle carries one element of the group.

    In S_3, where 1 and 2 exchange neighbours and 5 reverses, a drawn sequence of 5:

    >>> drawn = Permutations(degree=3, length=5).sample(1, generator=torch.Generator().manual_seed(1))
    >>> drawn.ids[0].tolist(), drawn.targets[0].tolist()
    ([1, 5, 0, 2, 1], [1, 3, 3, 5, 4])
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="permutations",
        summary="Say at every step the product of all permutations so far.",
        paper="Merrill et al., The Illusion of State in State-Space Models, arXiv:2404.08819",
        year=2024,
        episodes="tokens",
        metric="error-rate",
    )

    degree: int = 5
    length: int = 16

    def __post_init__(self) -> None:
        at_least(1, length=self.length)
        if not 2 <= self.degree <= 5:
            raise InputError(f"permutations of 2 to 5 things can be composed, not of {self.degree}")

    @property
    def vocabulary(self) -> int:
        """The elements of the group."""
        return math.factorial(self.degree)

    @property
    def chance(self) -> float:
        """Every element is as likely at every step."""
        return 1 - 1 / self.vocabulary

    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        """Draw elements; every position is scored."""
        ids = integers(batch, self.length, below=self.vocabulary, generator=generator)
        table = _table(self.degree).to(ids.device)
        product, products = torch.zeros_like(ids[:, 0]), []
        for element in ids.unbind(1):
            product = table[product, element]
            products.append(product)
        mask = torch.ones_like(ids).bool()
        return Tokens(ids=ids, targets=torch.stack(products, 1), mask=mask, vocabulary=self.vocabulary)

    def oracle(self) -> SequenceLearner:
        """The running product."""
        return GroupProduct(table=symmetric(self.degree))

    def baselines(self) -> Mapping[str, SequenceLearner]:
        """The present permutation, which forgets all before it."""
        return {"present-permutation": Shift(vocabulary=self.vocabulary)}


@lru_cache
def _table(degree: int) -> Tensor:
    return torch.tensor(symmetric(degree))
