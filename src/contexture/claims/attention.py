"""Models of attention layers that claims train: one for each seed, as a cohort, kept and shared between claims."""

from collections.abc import Mapping
from typing import Any

from contexture.claims.run import Run
from contexture.evaluation.predictors import Predictor
from contexture.models.self_attention import SelfAttentionConfig, SelfAttentionModel
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.schedule import ScheduleConfig

SMOKE_STEPS = 10


def train_attention(
    run: Run,
    model: SelfAttentionConfig,
    *,
    task: str,
    num_steps: int,
    batch: int,
    rate: float = 1e-2,
    settings: Mapping[str, Any] | None = None,
) -> list[SelfAttentionModel]:
    """A model for each seed, trained with Adam and a cosine to answer the last example of fresh prompts.

    At smoke scale ten steps are taken, whatever `num_steps` is.
    """
    num_steps = SMOKE_STEPS if run.scale == "smoke" else num_steps
    run.settings["training"] = f"{num_steps} steps of {batch} prompts at rate {rate:g}"
    configs = [
        TrainingConfig(
            task=TaskChoice(name=task, settings=dict(settings or {})),
            model=model,
            optimiser=OptimiserConfig(rate=rate),
            schedule=ScheduleConfig(warm_up=min(100, num_steps)),
            steps=num_steps,
            batch=batch,
            block=batch,
            seed=seed,
            checkpoint_every=num_steps,
            evaluate_every=num_steps,
        )
        for seed in run.seeds
    ]
    return [model for model in run.train(configs) if isinstance(model, SelfAttentionModel)]


def answers(model: SelfAttentionModel) -> Predictor:
    """The model's answers, computed in its own precision and given in the prompt's."""
    dtype = next(model.parameters()).dtype
    return lambda x, y, queries: model.answer(x.to(dtype), y.to(dtype), queries.to(dtype)).to(x.dtype)
