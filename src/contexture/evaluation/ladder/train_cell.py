"""Training and judging one cell: optimisers and rates on a validation seed, then the reported seeds with the best.

    grid of optimisers and rates, seed 1000 ─▶ accuracy on that seed's sequences ─▶ the best candidate
    best candidate, seeds 0, 1, ..          ─▶ accuracy on each seed's sequences ─▶ mean, Student's t over seeds

Each group is one cohort where the mixer's card lets it, which gives what the models would give one by one.
"""

import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from contexture.errors import ContextureError, InputError, told
from contexture.evaluation.intervals import seed_interval
from contexture.evaluation.ladder.budget import VALIDATION_SEED, Budget, Candidate
from contexture.evaluation.ladder.cells import Cell
from contexture.evaluation.ladder.sizes import Size, matched, model_config
from contexture.protocols import Tokens
from contexture.training.config import OptimiserConfig, TrainingConfig
from contexture.training.episodes import draw
from contexture.training.loop import Trainer
from contexture.training.schedule import ScheduleConfig

BLOCK = 64
REST_RATE = 0.1
"""AdamW's rate for everything but the matrices, over Muon's rate for those."""
FEWEST_STEPS = 5
TIMED_STEPS = 3


@dataclass(slots=True)
class Trained:
    """Members of a group after training: which lost their numbers, and the processor seconds of each."""

    trainers: list[Trainer]
    diverged: list[bool] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0


def run_cell(cell: Cell) -> dict[str, Any]:
    """The result of a cell in plain values; what goes wrong with a mixer is a result too, and is never raised."""
    began = time.process_time()
    try:
        size = matched(cell.entrant.spec, cell.rung, cell.budget, cell.match)
    except InputError as reason:
        return {"status": "unmatched", "reason": str(reason)}
    except Exception as error:
        return _failed(error)
    try:
        return {**_judged(cell, size), "cell_seconds": time.process_time() - began}
    except Exception as error:
        return {**_failed(error), **_described(size)}


def _failed(error: Exception) -> dict[str, Any]:
    return {"status": "failed", "reason": told(error), "traceback": traceback.format_exc()}


def _described(size: Size) -> dict[str, Any]:
    return {"width": size.width, "parameters": size.parameters, "state_bytes": size.state_bytes}


def _judged(cell: Cell, size: Size) -> dict[str, Any]:
    budget = cell.budget
    configs = [_config(cell, size, candidate, seed=VALIDATION_SEED) for candidate in budget.candidates]
    chosen = _train(configs, budget, cell)
    validation = _accuracies(chosen, configs, budget)
    tried = dict(zip(budget.candidates, validation, strict=True))
    usable = {candidate: accuracy for candidate, accuracy in tried.items() if accuracy is not None}
    if not usable:
        raise ContextureError("the loss was no number any more at every learning rate")
    best = max(usable, key=lambda candidate: usable[candidate])
    configs = [_config(cell, size, best, seed=seed) for seed in range(budget.num_seeds)]
    reported = _train(configs, budget, cell, steps=chosen.steps)
    accuracies = _accuracies(reported, configs, budget)
    return {
        "status": "done",
        **_described(size),
        **_summary([0.0 if accuracy is None else accuracy for accuracy in accuracies]),
        "diverged": sum(accuracy is None for accuracy in accuracies),
        "optimiser": best.optimiser,
        "rate": best.rate,
        "validation": {str(candidate): accuracy for candidate, accuracy in tried.items()},
        "steps": reported.steps,
        "seconds": reported.seconds,
    }


def _summary(accuracies: Sequence[float]) -> dict[str, Any]:
    """The mean and its interval over seeds, within 0 to 1; a single seed has no interval."""
    values = torch.tensor(accuracies, dtype=torch.float64)
    low = high = math.nan
    if len(accuracies) > 1:
        found = seed_interval(values.unsqueeze(1))
        low, high = max(0.0, float(found.low)), min(1.0, float(found.high))
    return {"accuracy": float(values.mean()), "low": low, "high": high, "seeds": list(accuracies)}


def _config(cell: Cell, size: Size, candidate: Candidate, *, seed: int) -> TrainingConfig:
    budget, (name, rate) = cell.budget, candidate
    rest = REST_RATE * rate if name == "muon" else rate
    return TrainingConfig(
        task=cell.rung.choice,
        model=model_config(cell.entrant.spec, cell.rung, budget, width=size.width),
        steps=budget.steps,
        optimiser=OptimiserConfig(name=name, matrix_rate=rate, rate=rest, weight_decay=budget.weight_decay),
        schedule=_schedule(budget.steps),
        batch=budget.batch,
        block=budget.batch,
        seed=seed,
    )


def _schedule(steps: int) -> ScheduleConfig:
    return ScheduleConfig(shape="cosine", warm_up=min(50, steps // 10))


def _trainers(cell: Cell, configs: Sequence[TrainingConfig]) -> list[Trainer]:
    """One trainer for all where members can be stacked, else one for each."""
    if len(configs) == 1 or "cohorts" in cell.entrant.card.waivers:
        return [Trainer([config]) for config in configs]
    try:
        return [Trainer(configs)]
    except InputError:
        return [Trainer([config]) for config in configs]


def _train(configs: Sequence[TrainingConfig], budget: Budget, cell: Cell, *, steps: int | None = None) -> Trained:
    """Train a group for the panel's steps, or for those that its seconds allow by a measurement of the first ones."""
    if steps is None:
        steps = _affordable(_trainers(cell, configs), budget, seconds_rule=cell.match == "seconds")
    planned = [replace(config, steps=steps, schedule=_schedule(steps)) for config in configs]
    trained = Trained(_trainers(cell, planned), steps=steps)
    began = time.process_time()
    for trainer in trained.trainers:
        trained.diverged += _steps(trainer, steps)
    trained.seconds = (time.process_time() - began) / len(configs)
    return trained


def _affordable(trainers: list[Trainer], budget: Budget, *, seconds_rule: bool) -> int:
    trainer = trainers[0]
    trainer.step(0)
    began = time.process_time()
    for step in range(TIMED_STEPS):
        trainer.step(step + 1)
    each = (time.process_time() - began) / TIMED_STEPS / len(trainer.configs)
    if seconds_rule:
        return max(FEWEST_STEPS, round(budget.seconds / each))
    return min(budget.steps, max(FEWEST_STEPS, round(budget.most_seconds / each)))


def _steps(trainer: Trainer, steps: int) -> list[bool]:
    """Take the steps; True for each member whose loss stopped being a number. Stops early if all did."""
    lost = [False] * len(trainer.configs)
    for step in range(steps):
        stepped = trainer.step(step)
        lost = [before or not math.isfinite(loss) for before, loss in zip(lost, stepped.losses, strict=True)]
        if all(lost):
            break
    return lost


@torch.no_grad()
def _accuracies(trained: Trained, configs: Sequence[TrainingConfig], budget: Budget) -> list[float | None]:
    """The share of scored positions that each member gets right on its seed's sequences; None for a diverged one."""
    shares: list[float] = []
    for trainer in trained.trainers:
        trainer.model.eval()
        right = torch.zeros(len(trainer.configs), dtype=torch.float64)
        count = torch.zeros_like(right)
        for block in range(math.ceil(budget.num_evaluated / BLOCK)):
            seeds = [config.seed for config in trainer.configs]
            tokens = draw(
                trainer.task,
                seeds=seeds,
                purpose="judge",
                step=0,
                blocks=range(block, block + 1),
                block=BLOCK,
                dtype=torch.float32,
            )
            assert isinstance(tokens, Tokens)
            hits = (trainer.model(tokens.ids).argmax(-1) == tokens.targets) & tokens.mask
            right += hits.view(len(seeds), -1).sum(1)
            count += tokens.mask.view(len(seeds), -1).sum(1)
        shares += (right / count).tolist()
    return [None if lost else share for lost, share in zip(trained.diverged, shares, strict=True)]
