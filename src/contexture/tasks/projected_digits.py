r"""Endless classification tasks made of one set of images: a random projection of pixels, a permutation of labels.

    x = P_m (image - mean) / spread,  P_m [d, 61] with entries N(0, 1 / 61);   y = p_m(digit)

Task m is a projection and a permutation; an episode takes one of `num_tasks` that are drawn once, or with 0 a new one
every time. Of these, a share `bias` keeps the digits' own labels. The images are scikit-learn's handwritten digits, of
which two thirds are for training and the rest is `held_out`. Kirsch, Harrison, Sohl-Dickstein, Metz 2022,
arXiv:2212.04458, who project MNIST to its own size.

Legend: batch = episodes, time = images, features = d.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.randomness import generator as derived
from contexture.tasks.bundled import bundled_dataset
from contexture.tasks.draws import at_least, class_schema, integers, normal, uniform
from contexture.tasks.references import class_baselines

PIXELS = 61
"""Three of the 64 are blank in every image, and no columns of the table."""


class Images(NamedTuple):
    """Pixels of mean zero and unit spread over the training images, and digits."""

    pixels: Float[Tensor, "images pixels"]
    digits: Int[Tensor, " images"]


class Tasks(NamedTuple):
    """Projections and permutations, one of each for every task."""

    projections: Float[Tensor, "tasks features pixels"]
    permutations: Int[Tensor, "tasks classes"]


@lru_cache(maxsize=8)
def images(num_classes: int, held_out: bool) -> Images:
    """The images of the first digits: every third one is held out."""
    data = bundled_dataset("digits")
    pixels, digits = torch.as_tensor(data.x, dtype=torch.float64), torch.as_tensor(data.y, dtype=torch.int64)
    kept = digits < num_classes
    pixels, digits = pixels[kept], digits[kept]
    apart = torch.arange(len(digits)) % 3 == 2
    shown = pixels[~apart]
    scaled = (pixels - shown.mean(0)) / (shown - shown.mean(0)).square().mean().sqrt()
    chosen = apart if held_out else ~apart
    return Images(scaled[chosen], digits[chosen])


def draw(count: int, num_features: int, num_classes: int, bias: float, *, generator: torch.Generator) -> Tasks:
    """New tasks."""
    projections = normal(count, num_features, PIXELS, generator=generator) / PIXELS**0.5
    permutations = torch.rand(count, num_classes, generator=generator, device=generator.device).argsort(1)
    own = uniform(count, 1, generator=generator) < bias
    plain = torch.arange(num_classes, device=generator.device).expand_as(permutations)
    return Tasks(projections, torch.where(own, plain, permutations))


@lru_cache(maxsize=8)
def known(num_tasks: int, num_features: int, num_classes: int, bias: float, seed: int) -> Tasks:
    """The tasks that are drawn once."""
    generator = derived(seed, "projected digits", num_tasks, num_features, num_classes)
    return draw(num_tasks, num_features, num_classes, bias, generator=generator)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectedDigits:
    """Digits seen through a random projection under permuted labels: one of `num_tasks` ways, or always a new one."""

    card: ClassVar[TaskCard] = TaskCard(
        name="projected-digits",
        summary="Handwritten digits through a random projection, under permuted labels.",
        paper="Kirsch et al.: General-Purpose In-Context Learning by Meta-Learning Transformers, arXiv:2212.04458",
        year=2022,
        episodes="pairs",
        metric="log-loss",
    )

    num_features: int = 16
    num_points: int = 21
    num_classes: int = 4
    num_tasks: int = 0
    bias: float = 0.0
    held_out: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points)
        at_least(0, num_tasks=self.num_tasks, bias=self.bias)
        if not 2 <= self.num_classes <= 10 or self.bias > 1:
            raise InputError("there are 2 to 10 digits, and a bias is a share between 0 and 1")

    @property
    def shares(self) -> Float[Tensor, " classes"]:
        """How common each label is."""
        digits = images(self.num_classes, self.held_out).digits
        common = digits.bincount(minlength=self.num_classes).double() / len(digits)
        if not self.num_tasks:
            return self.bias * common + (1 - self.bias) / self.num_classes
        permutations = known(self.num_tasks, self.num_features, self.num_classes, self.bias, self.seed).permutations
        found = torch.zeros(self.num_classes, dtype=torch.float64)
        return found.index_add(0, permutations.flatten(), common.repeat(self.num_tasks)) / self.num_tasks

    @property
    def chance(self) -> float:
        """The entropy of the labels, in nats."""
        return float(torch.special.entr(self.shares).sum())

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: digits [batch, time], task [batch] where tasks are known."""
        pixels, digits = images(self.num_classes, self.held_out)
        latents: dict[str, Tensor] = {}
        if self.num_tasks:
            every = known(self.num_tasks, self.num_features, self.num_classes, self.bias, self.seed)
            latents["task"] = integers(batch, below=self.num_tasks, generator=generator)
            tasks = Tasks(*(part.to(generator.device)[latents["task"]] for part in every))
        else:
            tasks = draw(batch, self.num_features, self.num_classes, self.bias, generator=generator)
        chosen = integers(batch, self.num_points, below=len(digits), generator=generator)
        latents["digits"] = digits.to(generator.device)[chosen]
        return Pairs(
            x=pixels.to(generator.device)[chosen] @ tasks.projections.mT,
            y=tasks.permutations.gather(1, latents["digits"]),
            schema=class_schema(self.num_features, self.num_classes),
            latents=latents,
        )

    def oracle(self) -> None:
        """None: nobody knows the distribution of handwritten digits."""
        return None

    def baselines(self) -> Mapping[str, Learner]:
        """Those of classifications, which learn from the context alone."""
        return class_baselines()
