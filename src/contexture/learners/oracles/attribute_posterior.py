r"""The label of an item when one of its attributes decides it, and nobody says which: Bayes' rule over the attributes.

    an item has A attributes of V values;  y_t = p(value of attribute a in item t),  a uniform,  p a random permutation
    P(y_1..y_n | a) = product over the values seen first of 1 / (labels left),  or 0 where a does not fit
    P(y | x, examples) = sum_a P(a | examples) (the value's label if it was seen, else 1 / (labels left) for those left)

Items are known by what they look like: `codes` holds each item's vector, in the order of their values counted in base
V, and an item is taken for the one whose vector is nearest.

Legend: B = batch, T = time, A = attributes, V = values and labels, D = features.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.inputs import classification, numeric
from contexture.protocols import LearnerCard, Pairs, Prediction


def attribute_values(num_attributes: int, num_values: int) -> Int[Tensor, "items attributes"]:
    """The values of every item's attributes.

    >>> attribute_values(2, 2).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    return torch.cartesian_prod(*[torch.arange(num_values)] * num_attributes).view(-1, num_attributes)


def _corners() -> Tensor:
    return F.pad(attribute_values(2, 3).double(), (0, 1))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AttributePosterior:
    """Probabilities of labels, averaged over which attribute decides; uniform where no attribute fits.

    By default items stand at the corners of a grid of three by three.
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="attribute-posterior",
        summary="The label of an item's deciding attribute, by Bayes' rule over which attribute that is.",
        paper="Fu et al.: How does representation impact in-context learning, arXiv:2309.06054",
        year=2023,
        kind="classical",
        targets=frozenset({"classification"}),
        invariances=frozenset({"example-order", "label-names"}),
    )

    num_attributes: int = 2
    num_values: int = 3
    codes: Float[Tensor, "items features"] = field(default_factory=_corners)

    def __post_init__(self) -> None:
        if len(self.codes) != self.num_values**self.num_attributes:
            raise InputError(f"{self.num_values} values of {self.num_attributes} attributes do not make these items")

    @classmethod
    def example(cls) -> Self:
        """Nine items of two attributes."""
        return cls()

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Labels of every query after all of the context."""
        x, y = classification(self.card, context)
        queries = numeric(self.card, context.schema, queries)
        counts, evidence = self._seen(self.values(x), y, context.schema.num_classes)
        after = counts[:, -1:].expand(-1, queries.shape[1], -1, -1, -1), evidence[:, -1:]
        return Prediction(probabilities=self._say(self.values(queries), *after))

    def prequential(self, episodes: Pairs) -> Prediction:
        """Labels of every item after those before it."""
        x, y = classification(self.card, episodes)
        values = self.values(x)
        counts, evidence = self._seen(values, y, episodes.schema.num_classes)
        return Prediction(probabilities=self._say(values, counts[:, :-1], evidence[:, :-1]))

    def attributes(self, episodes: Pairs) -> Float[Tensor, "batch time attributes"]:
        """How likely each attribute is to decide, after the examples before each."""
        x, y = classification(self.card, episodes)
        _, evidence = self._seen(self.values(x), y, episodes.schema.num_classes)
        return _shares(evidence[:, :-1])

    def values(self, x: Float[Tensor, "batch time features"]) -> Int[Tensor, "batch time attributes"]:
        """The attributes' values of the items that look most like x; InputError for vectors of another size."""
        if x.shape[2] != self.codes.shape[1]:
            raise InputError(f"items have {self.codes.shape[1]} features, not {x.shape[2]}")
        nearest = torch.cdist(x, self.codes.to(x)).argmin(2)
        return attribute_values(self.num_attributes, self.num_values).to(x.device)[nearest]

    def _seen(self, values: Tensor, y: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        """Labels met with each value [B, T + 1, A, V, labels], 0 or 1, and log P(labels so far | a) [B, T + 1, A]."""
        label = F.one_hot(y, num_classes).double()
        met = torch.einsum("btav,btl->btavl", F.one_hot(values, self.num_values).double(), label)
        counts = F.pad(met.cumsum(1).clamp(max=1), (0, 0, 0, 0, 0, 0, 1, 0))
        said = self._each(values, counts[:, :-1])
        right = (said * label.unsqueeze(2)).sum(3)
        return counts, F.pad(right.log().cumsum(1), (0, 0, 1, 0))

    def _each(self, values: Tensor, counts: Tensor) -> Float[Tensor, "batch time attributes labels"]:
        """What each attribute says of the items if it decides."""
        place = values[..., None, None].expand(*values.shape, 1, counts.shape[-1])
        own = counts.gather(3, place).squeeze(3)
        left = 1 - counts.amax(3)
        new = left / left.sum(3, keepdim=True).clamp(min=1)
        return torch.where(own.any(3, keepdim=True), own, new)

    def _say(self, values: Tensor, counts: Tensor, evidence: Tensor) -> Float[Tensor, "batch time labels"]:
        said = (_shares(evidence).unsqueeze(3) * self._each(values, counts)).sum(2)
        total = said.sum(2, keepdim=True)
        return torch.where(total > 0, said / total.clamp(min=1e-300), 1 / said.shape[2])


def _shares(evidence: Float[Tensor, "batch time attributes"]) -> Float[Tensor, "batch time attributes"]:
    """The posterior over attributes: all alike where none fits."""
    fits = evidence.isfinite().any(2, keepdim=True)
    return torch.where(fits, evidence, 0.0).softmax(2)
