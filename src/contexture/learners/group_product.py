"""The running product in a finite group: the optimum of state tracking, parity among it.

    s_t = s_{t-1} g_t,   s_0 = the identity, element 0

Legend: batch = sequences, time = tokens; a token is an element of the group.
"""

from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.learners.certain import certain, runs
from contexture.protocols import LearnerCard

Table = tuple[tuple[int, ...], ...]


def cyclic(order: int) -> Table:
    """The table of addition modulo `order`; of order 2, parity.

    >>> cyclic(2)
    ((0, 1), (1, 0))
    """
    return tuple(tuple((a + b) % order for b in range(order)) for a in range(order))


def symmetric(degree: int) -> Table:
    """The table of permutations of `degree` things, a then b, in lexicographic order; element 0 changes nothing.

    >>> symmetric(3)[1][2], symmetric(3)[2][1]
    (4, 3)
    """
    elements = list(permutations(range(degree)))
    number = {element: index for index, element in enumerate(elements)}
    return tuple(tuple(number[tuple(a[i] for i in b)] for b in elements) for a in elements)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupProduct:
    """Says the product of all elements so far in the segment; tokens outside the group change nothing.

    >>> GroupProduct(table=cyclic(2)).logits(torch.tensor([[1, 0, 1, 1]])).argmax(-1).tolist()
    [[1, 1, 0, 1]]
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="group-product",
        summary="Says the product of all elements of a finite group that it has read.",
        kind="classical",
        targets=frozenset(),
    )

    table: Table

    @classmethod
    def example(cls) -> Self:
        """Permutations of four things."""
        return cls(table=symmetric(4))

    @property
    def vocabulary(self) -> int:
        """The elements of the group."""
        return len(self.table)

    def logits(
        self, tokens: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """30 nats for the product, 0 for the other elements."""
        table = torch.tensor(self.table, device=tokens.device)
        product, last = torch.zeros_like(tokens[:, 0]), None
        products = []
        for element, stretch in zip(tokens.unbind(1), runs(tokens, segments).unbind(1), strict=True):
            if last is not None:
                product = torch.where(stretch == last, product, 0)
            product, last = table[product, element], stretch
            products.append(product)
        return certain(torch.stack(products, 1), vocabulary=len(self.table))
