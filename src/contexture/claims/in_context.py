"""Sequence models over pairs that claims train: one for each seed, as a cohort, kept and shared between claims."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from contexture.claims.run import Run
from contexture.models.backbone import BackboneConfig
from contexture.models.kinds import AnyConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.models.set_mlp import SetMLP, SetMLPConfig
from contexture.protocols import Learner, Pairs
from contexture.training.config import ModelConfig, OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.schedule import ScheduleConfig

SMOKE_STEPS = 3
MUON = OptimiserConfig(name="muon", rate=2e-3, matrix_rate=0.02)
"""The rates of the shipped linear-regression transformer."""

Predict = Callable[[Pairs], Tensor]
"""What is said of every y [episodes, time] from what came before it."""


def small_backbone(num_points: int, *, mixer: str = "softmax", depth: int = 3) -> BackboneConfig:
    """What most claims train: layers 32 wide of four heads and a perceptron, for so many examples.

    >>> small_backbone(8, depth=2).pattern
    'softmax*2'
    """
    return BackboneConfig(
        pattern=f"{mixer}*{depth}",
        width=32,
        num_heads=4,
        feed_forward="relu",
        positions="learned",
        max_length=2 * num_points,
    )


def untrained(run: Run, backbone: AnyConfig, *, num_features: int) -> list[PairsModel]:
    """A model for each seed as it is before training."""
    config = PairsModelConfig(num_features=num_features, backbone=backbone)
    return [PairsModel(config, generator=run.generator(seed, "untrained")).eval() for seed in run.seeds]


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
    warm_up = min(warm_up, num_steps)
    configs = [
        configuration(
            task, model, steps=num_steps, batch=batch, seed=seed + seed_offset, optimiser=optimiser, warm_up=warm_up
        )
        for seed in run.seeds
    ]
    return [model for model in run.train(configs) if isinstance(model, PairsModel | SetMLP)]


def configuration(
    task: TaskChoice,
    model: ModelConfig,
    *,
    steps: int,
    batch: int,
    seed: int,
    optimiser: OptimiserConfig = MUON,
    warm_up: int = 50,
) -> TrainingConfig:
    """A training whose rate rises, stays and falls in the second half, looked at when it is done."""
    return TrainingConfig(
        task=task,
        model=model,
        optimiser=optimiser,
        schedule=ScheduleConfig(shape="linear", warm_up=warm_up, hold=0.5),
        steps=steps,
        batch=batch,
        block=batch,
        seed=seed,
        checkpoint_every=steps,
        evaluate_every=steps,
        evaluation_episodes=batch,
    )


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
