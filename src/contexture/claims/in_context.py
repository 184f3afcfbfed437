"""Sequence models over pairs that claims train: one for each seed, as a cohort, kept and shared between claims."""

from collections.abc import Mapping
from typing import Any, Literal

from contexture.claims.run import Run
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.schedule import ScheduleConfig

SMOKE_STEPS = 3
MUON = OptimiserConfig(name="muon", rate=2e-3, matrix_rate=0.02)
"""The rates of the shipped linear-regression transformer."""


def train_in_context(
    run: Run,
    backbone: BackboneConfig,
    *,
    task: str,
    settings: Mapping[str, Any],
    num_features: int,
    num_steps: int,
    batch: int = 64,
    seed_offset: int = 0,
    head: Literal["mean", "gaussian"] = "mean",
) -> list[PairsModel]:
    """A model for each seed, trained with Muon to predict every y from what came before it, or its distribution.

    At smoke scale three steps are taken, whatever `num_steps` is.
    """
    num_steps = SMOKE_STEPS if run.scale == "smoke" else num_steps
    run.settings["training"] = f"{num_steps} steps of {batch} prompts, Muon at {MUON.matrix_rate:g}"
    configs = [
        TrainingConfig(
            task=TaskChoice(name=task, settings=dict(settings)),
            model=PairsModelConfig(num_features=num_features, backbone=backbone, head=head),
            optimiser=MUON,
            schedule=ScheduleConfig(shape="linear", warm_up=min(50, num_steps), hold=0.5),
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
    return [model for model in run.train(configs) if isinstance(model, PairsModel)]
