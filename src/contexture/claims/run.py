"""What a claim is run with: scale, seeds, generators, device, and trained models that are kept.

seeds >= 3;   generator = f(seed, purpose, ...);   setting = the value for this scale, recorded with the result
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from contexture.claims.models import ModelCache
from contexture.errors import InputError
from contexture.protocols import Pairs, Task
from contexture.randomness import generator
from contexture.training.config import TrainingConfig

Scale = Literal["smoke", "cpu", "long", "gpu"]
SCALES: tuple[Scale, ...] = ("smoke", "cpu", "long", "gpu")
LEAST_SEEDS = 3

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The conditions under which claims are measured.

    >>> Run(seeds=(0, 1, 2)).setting("episodes", smoke=8, cpu=1000)
    8
    """

    scale: Scale = "smoke"
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"
    models: ModelCache = field(default_factory=ModelCache)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise InputError(f"no scale is named {self.scale!r}: there are {', '.join(SCALES)}")
        if len(set(self.seeds)) < LEAST_SEEDS:
            raise InputError(f"claims need at least {LEAST_SEEDS} different seeds, not {len(set(self.seeds))}")

    def setting(self, name: str, *, smoke: Value, cpu: Value, long: Value | None = None) -> Value:
        """The value of a setting at this scale, which is recorded; `long` (and gpu) take cpu's unless given."""
        value = smoke if self.scale == "smoke" else cpu if self.scale == "cpu" or long is None else long
        self.settings[name] = value
        return value

    def generator(self, seed: int, *address: int | str) -> torch.Generator:
        """A generator of its own for a seed and a purpose."""
        return generator("claim", seed, *address, device=self.device)

    def each(self, measure: Callable[[int], Tensor]) -> Tensor:
        """What `measure` gives for each seed, stacked: [seeds, ...]."""
        return torch.stack([measure(seed) for seed in self.seeds])

    def sample(self, task: Task, episodes: int, *, seed: int, purpose: str = "evaluate") -> Pairs:
        """Fresh episodes of a task over pairs, the same for whatever is measured on them."""
        drawn = task.sample(episodes, generator=self.generator(seed, purpose))
        if not isinstance(drawn, Pairs):
            raise InputError(f"the episodes of {task.card.name!r} are tokens, not pairs")
        return drawn

    def train(self, configs: Sequence[TrainingConfig]) -> list[nn.Module]:
        """Models trained as one cohort, or taken from the cache if they have been before."""
        return self.models.train(configs)

    def kept(self, config: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """Tensors that `make` computes, or those kept from an earlier run with the same configuration."""
        return self.models.kept(config, make)
