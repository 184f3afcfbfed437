"""Sequence models over pairs that claims train: one for each seed, as a cohort, kept and shared between claims."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from contexture.claims.run import Run
from contexture.models.kinds import AnyConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.models.set_mlp import SetMLP, SetMLPConfig
from contexture.protocols import Learner, Pairs
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.schedule import ScheduleConfig

SMOKE_STEPS = 3
MUON = OptimiserConfig(name="muon", rate=2e-3, matrix_rate=0.02)
"""The rates of the shipped linear-regression transformer."""

Predict = Callable[[Pairs], Tensor]
"""What is said of every y [episodes, time] from what came before it."""


def train_in_context(
    run: Run,
    backbone: AnyConfig,
    *,
    task: str,
    settings: Mapping[str, Any],
    num_features: int,
    num_classes: int = 0,
    num_steps: int,
    batch: int = 64,
    seed_offset: int = 0,
    optimiser: OptimiserConfig = MUON,
    warm_up: int = 50,
    head: Literal["mean", "gaussian"] = "mean",
) -> list[PairsModel]:
    """A model for each seed, trained to predict every y, or its distribution, from what came before it.

    At smoke scale three steps are taken, whatever `num_steps` is.
    """
    model = PairsModelConfig(num_features=num_features, num_classes=num_classes, backbone=backbone, head=head)
    choice = TaskChoice(name=task, settings=dict(settings))
    models = train_over_pairs(
        run,
        model,
        task=choice,
        num_steps=num_steps,
        batch=batch,
        seed_offset=seed_offset,
        optimiser=optimiser,
        warm_up=warm_up,
    )
    return [model for model in models if isinstance(model, PairsModel)]


def train_over_pairs(
    run: Run,
    model: PairsModelConfig | SetMLPConfig,
    *,
    task: TaskChoice,
    num_steps: int,
    batch: int = 64,
    seed_offset: int = 0,
    optimiser: OptimiserConfig = MUON,
    warm_up: int = 50,
) -> list[PairsModel | SetMLP]:
    """The same for any model over pairs."""
    num_steps = SMOKE_STEPS if run.scale == "smoke" else num_steps
    told = f"Muon at {optimiser.matrix_rate:g}" if optimiser.name == "muon" else f"AdamW at {optimiser.rate:g}"
    run.settings["training"] = f"{num_steps} steps of {batch} prompts, {told}"
    configs = [
        TrainingConfig(
            task=task,
            model=model,
            optimiser=optimiser,
            schedule=ScheduleConfig(shape="linear", warm_up=min(warm_up, num_steps), hold=0.5),
            steps=num_steps,
            batch=batch,
            block=batch,
            seed=seed + seed_offset,
            checkpoint_every=num_steps,
            evaluate_every=num_steps,
            evaluation_episodes=batch,
        )
        for seed in run.seeds
    ]
    return [model for model in run.train(configs) if isinstance(model, PairsModel | SetMLP)]


def predicts(model: PairsModel | SetMLP) -> Predict:
    """What a regressing model says of every y from what came before it, in double precision."""
    dtype = next(model.parameters()).dtype

    def say(drawn: Pairs) -> Tensor:
        with torch.no_grad():
            mean = model(drawn.x.to(dtype), drawn.y.to(dtype)).mean
        assert isinstance(mean, Tensor)
        return mean.double()

    return say


def said_by(learner: Learner) -> Predict:
    """What a learner says of every y: means, or the chances of classes."""
    return lambda drawn: learner.prequential(drawn).value
