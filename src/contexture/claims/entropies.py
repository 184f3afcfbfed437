"""Deep post-norm transformers trained at several rates, with the entropy of their attention looked at along the way.

    plain or reparametrised maps ─▶ a run for each seed and rate ─▶ entropies at eleven points, errors in the end

Eight layers 32 wide learn linear functions in context, by AdamW without warm-up or clipping.
Shapes: errors [seeds, rates, episodes]; entropies [seeds, rates, points, layers].
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from contexture.claims.run import Run
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.probes.attention import layer_entropies
from contexture.protocols import Pairs
from contexture.tasks.linear_regression import LinearRegression
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.loop import Trainer
from contexture.training.schedule import ScheduleConfig

RATES = (1e-3, 3e-3, 1e-2, 3e-2)
TASK = LinearRegression(num_features=3, num_points=8, noise=0.1)
POINTS = 10
Maps = Literal["plain", "spectral"]


def configs(run: Run, maps: Maps, steps: int) -> list[TrainingConfig]:
    """A run for each seed and rate, seeds outermost."""
    backbone = BackboneConfig(
        pattern="softmax*8", width=32, num_heads=2, expansion=2.0, residual="post-norm", maps=maps
    )
    return [
        TrainingConfig(
            task=TaskChoice(name="linear-regression", settings={"num_features": 3, "num_points": 8, "noise": 0.1}),
            model=PairsModelConfig(num_features=TASK.num_features, backbone=backbone),
            optimiser=OptimiserConfig(rate=rate),
            schedule=ScheduleConfig(shape="linear", warm_up=0, hold=0.5),
            steps=steps,
            batch=64,
            block=64,
            seed=seed,
            clip=None,
        )
        for seed in run.seeds
        for rate in RATES
    ]


def looks(steps: int) -> list[int]:
    """After how many steps the entropies are taken: at the start, at the end, and in between.

    >>> looks(20)
    [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    >>> looks(3)
    [0, 1, 2, 3]
    """
    return sorted({steps * point // POINTS for point in range(POINTS + 1)})


def trained(run: Run, maps: Maps) -> Mapping[str, Tensor]:
    """What became of every run: entropies [seeds, rates, points, layers], errors and zero_errors [.., episodes].

    The first of the points is before training; errors are those on the last example.
    """
    steps = run.setting("training steps", smoke=3, cpu=400)
    episodes = run.setting("prompts", smoke=64, cpu=1000)
    chosen = configs(run, maps, steps)

    def make() -> Mapping[str, Tensor]:
        trainer = Trainer(chosen)
        drawn = run.sample(TASK, 64, seed=0, purpose="entropy")
        entropies = []
        for step in range(steps + 1):
            if step in looks(steps):
                entropies.append(_entropies(trainer, drawn))
            if step < steps:
                trainer.step(step)
        errors, zero_errors = _errors(run, trainer, episodes)
        shape = (len(run.seeds), len(RATES))
        return {
            "entropies": torch.unflatten(torch.stack(entropies, 1), 0, shape),
            "errors": torch.unflatten(errors, 0, shape),
            "zero_errors": torch.unflatten(zero_errors, 0, shape),
        }

    return run.kept({"sigma-reparam": [one.to_json() for one in chosen], "prompts": episodes}, make)


def _entropies(trainer: Trainer, drawn: Pairs) -> Tensor:
    """The mean relative entropy of every member's layers, [members, layers]."""
    models = [model.eval() for model in trainer.plain_models() if isinstance(model, PairsModel)]
    return torch.stack([layer_entropies(model, drawn) for model in models])


@torch.no_grad()
def _errors(run: Run, trainer: Trainer, episodes: int) -> tuple[Tensor, Tensor]:
    """Squared errors on the last example, and those of zero, [members, episodes]."""
    errors, zero = [], []
    for config, model in zip(trainer.configs, trainer.plain_models(), strict=True):
        drawn = run.sample(TASK, episodes, seed=config.seed).to(dtype=torch.float32)
        said = model.eval()(drawn.x, drawn.y).mean
        errors.append((said - drawn.y)[:, -1].square().double())
        zero.append(drawn.y[:, -1].square().double())
    return torch.stack(errors), torch.stack(zero)
