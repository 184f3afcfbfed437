"""Sequence models over pairs that claims train: one for each seed, as a cohort, kept and shared between claims."""

from collections.abc import Mapping
from typing import Any

from contexture.claims.run import Run
from contexture.models.kinds import AnyConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.schedule import ScheduleConfig

SMOKE_STEPS = 3
MUON = OptimiserConfig(name="muon", rate=2e-3, matrix_rate=0.02)
"""The rates of the shipped linear-regression transformer."""


def train_in_context(
    run: Run,
    backbone: AnyConfig,
    *,
    task: str,
    settings: Mapping[str, Any],
    num_features: int,
    num_steps: int,
    batch: int = 64,
    seed_offset: int = 0,
    optimiser: OptimiserConfig = MUON,
    warm_up: int = 50,
) -> list[PairsModel]:
    """A model for each seed, trained to predict every y from what came before it; with Muon unless told otherwise.

    At smoke scale three steps are taken, whatever `num_steps` is.
    """
    num_steps = SMOKE_STEPS if run.scale == "smoke" else num_steps
    told = f"Muon at {optimiser.matrix_rate:g}" if optimiser.name == "muon" else f"AdamW at {optimiser.rate:g}"
    run.settings["training"] = f"{num_steps} steps of {batch} prompts, {told}"
    configs = [
        TrainingConfig(
            task=TaskChoice(name=task, settings=dict(settings)),
            model=PairsModelConfig(num_features=num_features, backbone=backbone),
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
    return [model for model in run.train(configs) if isinstance(model, PairsModel)]
