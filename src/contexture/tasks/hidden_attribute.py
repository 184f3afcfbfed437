r"""Items of several attributes, one of which decides the label: which one, the context alone reveals.

    an item is a value for each of A attributes;  y = p(value of attribute a),  a and the permutation p new every time

What an item looks like is the same in all episodes. `look` says how:

    attributes   a one-hot vector for each attribute: nothing is left to learn of items
    mixed        a fixed network of these, W tanh(U one-hots), with attributes that have to be unmixed
    arbitrary    a random vector for each item, which says nothing of its attributes by itself

Fu, Yang, Wang, Lu, Zheng 2023, arXiv:2309.06054, whose items are pictures of shapes; ours are vectors.
Legend: batch = episodes, time = items, features = A V.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.oracles.attribute_posterior import AttributePosterior, attribute_values
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.randomness import generator as derived
from contexture.tasks.draws import at_least, class_schema, integers, normal
from contexture.tasks.references import class_baselines

Look = Literal["attributes", "mixed", "arbitrary"]
LOOKS: tuple[Look, ...] = ("attributes", "mixed", "arbitrary")


@lru_cache(maxsize=16)
def looks(num_attributes: int, num_values: int, look: Look, seed: int) -> Float[Tensor, "items features"]:
    """The vector of every item."""
    one_hot = F.one_hot(attribute_values(num_attributes, num_values), num_values).flatten(1).double()
    if look == "attributes":
        return one_hot
    draw, size = derived(seed, "looks", look), one_hot.shape[1]
    if look == "arbitrary":
        own: Tensor = normal(len(one_hot), size, generator=draw) * (num_attributes / size) ** 0.5
        return own
    hidden = torch.tanh(2 * one_hot @ normal(size, 4 * size, generator=draw))
    mixed: Tensor = hidden @ normal(4 * size, size, generator=draw) * (num_attributes / size) ** 0.5 / (4 * size) ** 0.5
    return mixed


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenAttribute:
    """The label is a hidden attribute's value under another name; all of both are drawn for each episode."""

    card: ClassVar[TaskCard] = TaskCard(
        name="hidden-attribute",
        summary="Name an item's label, which one of its attributes decides; the examples reveal which.",
        paper="Fu et al.: How does representation impact in-context learning, arXiv:2309.06054",
        year=2023,
        episodes="pairs",
        metric="log-loss",
    )

    num_attributes: int = 3
    num_values: int = 4
    num_points: int = 13
    look: Look = "mixed"
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(2, num_attributes=self.num_attributes, num_values=self.num_values, num_points=self.num_points)
        if self.look not in LOOKS:
            raise InputError(f"items do not look {self.look!r}: there are {', '.join(LOOKS)}")

    @property
    def codes(self) -> Float[Tensor, "items features"]:
        """The vector of every item."""
        return looks(self.num_attributes, self.num_values, self.look, self.seed)

    @property
    def num_features(self) -> int:
        """The size of an item's vector."""
        return self.num_attributes * self.num_values

    @property
    def chance(self) -> float:
        """The log-loss of even odds: labels are names without meaning."""
        return math.log(self.num_values)

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: attribute [batch], values [batch, time, attributes]."""
        item = integers(batch, self.num_points, below=len(self.codes), generator=generator)
        attribute = integers(batch, below=self.num_attributes, generator=generator)
        names = torch.rand(batch, self.num_values, generator=generator, device=generator.device).argsort(1)
        values = attribute_values(self.num_attributes, self.num_values).to(generator.device)[item]
        deciding = values.gather(2, attribute.view(-1, 1, 1).expand(-1, self.num_points, 1)).squeeze(2)
        return Pairs(
            x=self.codes.to(generator.device)[item],
            y=names.gather(1, deciding),
            schema=class_schema(self.num_features, self.num_values),
            latents={"attribute": attribute, "values": values},
        )

    def oracle(self) -> Learner:
        """Bayes' rule over the attributes, by one who knows the items."""
        return AttributePosterior(num_attributes=self.num_attributes, num_values=self.num_values, codes=self.codes)

    def baselines(self) -> Mapping[str, Learner]:
        """Those of classifications."""
        return class_baselines()
