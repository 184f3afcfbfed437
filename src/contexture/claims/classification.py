"""Models that claims train to classify in context, and how often they name the label of a context's last item.

    a task of labelled items ─▶ training at every item ─▶ the last item of fresh contexts, of this task or another

Answers are those of a model for each seed, or of one learner in the models' place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.protocols import Learner, Pairs, Task
from contexture.training.config import ModelConfig, OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.schedule import ScheduleConfig

Answers = Sequence[nn.Module] | Learner
SMOKE_STEPS = 3


def configurations(
    run: Run,
    task: Any,
    model: ModelConfig,
    *,
    num_steps: int,
    rate: float,
    matrix_rate: float = 0.0,
    batch: int = 64,
) -> list[TrainingConfig]:
    """The training of a model for each seed: AdamW at a constant rate, or Muon with a decay where it has a rate.

    Three steps are taken at smoke scale.
    """
    steps = SMOKE_STEPS if run.scale == "smoke" else num_steps
    said = f"Muon at {matrix_rate:g}" if matrix_rate else f"AdamW at {rate:g}"
    run.settings["training"] = f"{steps} steps of {batch} contexts, {said}"
    warm_up = min(50, steps)
    optimiser, schedule = OptimiserConfig(rate=rate), ScheduleConfig(shape="constant", warm_up=warm_up)
    if matrix_rate:
        optimiser = OptimiserConfig(name="muon", rate=rate, matrix_rate=matrix_rate)
        schedule = ScheduleConfig(shape="linear", warm_up=warm_up, hold=0.5)
    return [
        TrainingConfig(
            task=TaskChoice(name=task.card.name, settings=asdict(task)),
            model=model,
            optimiser=optimiser,
            schedule=schedule,
            steps=steps,
            batch=batch,
            block=batch,
            seed=seed,
        )
        for seed in run.seeds
    ]


@torch.no_grad()
def right(model: nn.Module, drawn: Pairs) -> Float[Tensor, " episodes"]:
    """1 where the last item's label is the likeliest."""
    hits: Tensor = model(drawn.x.float(), drawn.y).logits.argmax(-1) == drawn.y
    return hits[:, -1].double()


def answered(run: Run, say: Answers, seed: int, task: Task) -> Float[Tensor, " episodes"]:
    """1 where the last item is given its label, on the same episodes whoever is asked."""
    drawn = run.sample(task, run.setting("episodes", smoke=512, cpu=1024), seed=seed)
    if isinstance(say, Sequence):
        return right(say[run.seeds.index(seed)], drawn)
    hits: Tensor = say.prequential(drawn).value.argmax(-1) == drawn.y
    return hits[:, -1].double()


def accuracy(run: Run, say: Answers, *, asked: Task, shown: Task) -> Samples:
    """How often the last item is given its label; competent is who does better than chance on the task it was shown."""

    def one(seed: int) -> OneSeed:
        errors = 1 - answered(run, say, seed, shown)
        return OneSeed(
            values=answered(run, say, seed, asked), errors=errors, zero_errors=torch.full_like(errors, shown.chance)
        )

    return over_seeds(run, one)


def of_each(
    run: Run,
    say: Answers,
    found: Float[Tensor, " seeds"],
    *,
    shown: Task,
    per: Float[Tensor, " seeds"] | None = None,
    curves: Callable[[int], Mapping[str, tuple[Sequence[float], Tensor]]] = lambda index: {},
) -> Samples:
    """A number of each seed's model, for every episode of the task it was shown, beside its errors there.

    per: what the number is divided by. curves: those of a model, by its place among the seeds.
    """

    def one(seed: int) -> OneSeed:
        index, errors = run.seeds.index(seed), 1 - answered(run, say, seed, shown)
        return OneSeed(
            values=found[index].expand(len(errors)),
            per=None if per is None else per[index].expand(len(errors)),
            errors=errors,
            zero_errors=torch.full_like(errors, shown.chance),
            curves=curves(index),
        )

    return over_seeds(run, one)
