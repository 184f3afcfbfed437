r"""Classification of recurring items: K classes in space, a label for each, contexts in which classes come in bursts.

    mean_k ~ N(0, I / d),  label_k = k mod L        the same in all episodes: a world, drawn by a seed of its own
    x = (mean_k + e n) / sqrt(1 + e^2),  n ~ N(0, I / d)

N / B classes are drawn, each in proportion to r^-a for its rank r, and the context of N items holds each of them B
times, in random order; the last item is of one of these classes. With B = 0 every item's class is drawn by itself. A
label can be known from the world (in the weights) or from an earlier item of the class (in the context). `fresh` leaves
the context alone: every episode draws means and labels anew. Reddy 2023, arXiv:2312.03002, after Chan et al. 2022,
arXiv:2205.05055; there the last item alone is asked for, here every one is.

Legend: batch = episodes, time = N + 1 items, features = d.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.nearest_neighbour import NearestNeighbour
from contexture.learners.oracles.known_classes import KnownClasses
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.randomness import generator as derived
from contexture.tasks.draws import above_zero, at_least, class_schema, integers, normal
from contexture.tasks.references import class_baselines


@lru_cache(maxsize=16)
def means(num_classes: int, num_features: int, seed: int) -> Float[Tensor, "classes features"]:
    """Where a world's classes lie."""
    drawn: Tensor = normal(num_classes, num_features, generator=derived(seed, "classes", num_classes))
    scaled: Tensor = drawn / num_features**0.5
    return scaled


@dataclass(frozen=True, kw_only=True, slots=True)
class BurstyClassification:
    """Items of `num_classes` classes under `num_labels` labels, each class `burst` times in a context.

    skew is the exponent a of Zipf's law, spread the e of the items around their means.
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="bursty-classification",
        summary="Name an item's label, from known classes or from an earlier item of its class.",
        paper="Reddy: The mechanistic basis of data dependence and abrupt learning, arXiv:2312.03002",
        year=2023,
        episodes="pairs",
        metric="error-rate",
    )

    num_features: int = 16
    num_points: int = 9
    num_classes: int = 256
    num_labels: int = 8
    burst: int = 2
    skew: float = 0.0
    spread: float = 0.1
    fresh: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features)
        at_least(2, num_points=self.num_points, num_labels=self.num_labels)
        at_least(0, burst=self.burst, skew=self.skew)
        above_zero(spread=self.spread)
        if self.burst and (self.num_points - 1) % self.burst:
            raise InputError(f"a context of {self.num_points - 1} items cannot hold classes {self.burst} times each")
        if self.num_classes < 1 or self.num_classes % self.num_labels:
            raise InputError(f"{self.num_classes} classes do not share {self.num_labels} labels evenly")

    @property
    def num_drawn(self) -> int:
        """How many classes are drawn for a context."""
        return (self.num_points - 1) // self.burst if self.burst else self.num_points

    @property
    def labels(self) -> Int[Tensor, " classes"]:
        """The label of every class of the world."""
        return torch.arange(self.num_classes) % self.num_labels

    @property
    def shares(self) -> Float[Tensor, " classes"]:
        """How often each class is drawn."""
        ranks = torch.arange(1, self.num_classes + 1, dtype=torch.float64)
        return ranks**-self.skew / (ranks**-self.skew).sum()

    @property
    def chance(self) -> float:
        """The error rate of the commonest label."""
        if self.fresh:
            return 1 - 1 / self.num_labels
        of_labels = torch.zeros(self.num_labels, dtype=torch.float64).index_add(0, self.labels, self.shares)
        return 1 - float(of_labels.max())

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: classes [batch, time], those of an episode's own where they are fresh."""
        classes = self._classes(batch, generator)
        rows = torch.arange(batch, device=generator.device).unsqueeze(1)
        if self.fresh:
            drawn = normal(batch, self.num_drawn, self.num_features, generator=generator) / self.num_features**0.5
            centres = drawn[rows, classes]
            y = integers(batch, self.num_drawn, below=self.num_labels, generator=generator).gather(1, classes)
        else:
            centres = means(self.num_classes, self.num_features, self.seed).to(generator.device)[classes]
            y = self.labels.to(generator.device)[classes]
        noise = normal(*centres.shape, generator=generator) / self.num_features**0.5
        x = (centres + self.spread * noise) / (1 + self.spread**2) ** 0.5
        schema = class_schema(self.num_features, self.num_labels)
        return Pairs(x=x, y=y, schema=schema, latents={"classes": classes})

    def _classes(self, batch: int, generator: torch.Generator) -> Int[Tensor, "batch time"]:
        """The class of every item."""
        device, count = generator.device, self.num_drawn
        if self.fresh:
            drawn = torch.arange(count, device=device).expand(batch, -1)
        elif self.skew:
            shares = self.shares.to(device).expand(batch, -1)
            drawn = torch.multinomial(shares, count, replacement=True, generator=generator)
        else:
            drawn = integers(batch, count, below=self.num_classes, generator=generator)
        if not self.burst:
            return drawn
        order = torch.rand(batch, self.num_points - 1, generator=generator, device=device).argsort(1)
        context = drawn.repeat_interleave(self.burst, 1).gather(1, order)
        last = context.gather(1, integers(batch, 1, below=self.num_points - 1, generator=generator))
        return torch.cat((context, last), 1)

    def oracle(self) -> Learner:
        """The known classes; where they are fresh, the label of the nearest earlier item."""
        if self.fresh:
            return NearestNeighbour()
        return KnownClasses(
            means=means(self.num_classes, self.num_features, self.seed),
            labels=self.labels,
            shares=self.shares,
            spread=self.spread,
        )

    def baselines(self) -> Mapping[str, Learner]:
        """Those of classifications: among them the nearest neighbour, which knows the context alone."""
        return class_baselines()
