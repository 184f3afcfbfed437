"""Models that claims look at while they are trained: what is seen at marks along the way, beside the trained models.

steps of a cohort ─▶ at every mark: look(models) ─▶ names with a number for each member, kept with the weights
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contexture.claims.run import Run
from contexture.training.config import TrainingConfig
from contexture.training.loop import Trainer

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Watched(Generic[Model]):
    """Trained models, the steps at which they were looked at, and what was seen: [members, marks] by name."""

    models: list[Model]
    steps: tuple[int, ...]
    seen: dict[str, Float[Tensor, "members marks"]]

    def first(self, name: str, level: float) -> Float[Tensor, " members"]:
        """The step at which `name` first reaches a level, by straight lines between marks.

        A member that never does is given the last step and as much more of it as its best is short of the level.
        """
        seen, steps = self.seen[name].double(), torch.tensor(self.steps, dtype=torch.float64)
        reached = seen >= level
        after = reached.int().argmax(1)
        before = (after - 1).clamp(min=0)
        low, high = (seen.gather(1, place.unsqueeze(1)).squeeze(1) for place in (before, after))
        share = ((level - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        beyond = steps[-1] * (2 - seen.amax(1) / level)
        return torch.where(reached.any(1), torch.lerp(steps[before], steps[after], share), beyond)


def watch(
    run: Run,
    configs: Sequence[TrainingConfig],
    *,
    kind: type[Model],
    every: int,
    look: Callable[[list[Model]], dict[str, Float[Tensor, " members"]]],
) -> Watched[Model]:
    """Train a cohort and look at its members before the first step and after every `every` steps.

    Models are kept under their configurations, `every` and the name of `look`.
    """
    steps = configs[0].steps
    marks = tuple(range(0, steps + 1, every))
    about = {"watched": look.__qualname__, "every": every, "configurations": [config.to_json() for config in configs]}

    def make() -> dict[str, Tensor]:
        trainer = Trainer(configs)
        seen = [look(_members(trainer, kind))]
        for step in range(steps):
            trainer.step(step)
            if (step + 1) % every == 0:
                seen.append(look(_members(trainer, kind)))
        made = {f"seen/{name}": torch.stack([one[name] for one in seen], 1) for name in seen[0]}
        for index, model in enumerate(trainer.plain_models()):
            made |= {f"{index}/{name}": value.detach() for name, value in model.state_dict().items()}
        return made

    held = run.kept(about, make)
    models = []
    for index, config in enumerate(configs):
        model = config.build_model(generator=torch.Generator().manual_seed(0))
        assert isinstance(model, kind)
        prefix = f"{index}/"
        own = {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
        model.load_state_dict(own)
        models.append(model.eval().requires_grad_(False))
    seen = {name.removeprefix("seen/"): value for name, value in held.items() if name.startswith("seen/")}
    return Watched(models=models, steps=marks, seen=seen)


def _members(trainer: Trainer, kind: type[Model]) -> list[Model]:
    return [model.eval() for model in trainer.plain_models() if isinstance(model, kind)]
