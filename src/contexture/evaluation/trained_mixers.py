"""Small models with given mixers, trained on one task for a stated budget, to stand beside its classical learners.

Every mixer gets the same model, steps, batches, optimiser and seeds, at one width: the seeds train as one cohort. Runs
are kept in folders of their own and go on where they stopped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contexture.errors import CheckpointError, InputError, told
from contexture.evaluation.ladder.cells import Entrant
from contexture.evaluation.per_seed import PerSeed
from contexture.learners.in_context import InContext
from contexture.learners.token_model import InContextTokens
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.models.tokens import TokenModel, TokenModelConfig
from contexture.protocols import Learner, SequenceLearner
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.loop import train_cohort
from contexture.training.progress import Progress
from contexture.training.recipes import over_pairs, over_tokens
from contexture.training.schedule import ScheduleConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How much each mixer's models are trained."""

    steps: int
    num_layers: int = 3
    width: int = 64
    batch: int = 64


TRAININGS: Mapping[str, Training] = {
    "tiny": Training(steps=10, num_layers=2, width=16, batch=16),
    "small": Training(steps=1000),
    "full": Training(steps=4000),
}


def configuration(task: TaskChoice, mixer: str, training: Training, *, seed: int) -> TrainingConfig:
    """The run of one model: the modest recipe of the task with this mixer in every layer and learned positions."""
    tokens = task.build().card.episodes == "tokens"
    recipe = over_tokens(task) if tokens else over_pairs(task)
    assert isinstance(recipe.model, PairsModelConfig | TokenModelConfig)
    assert isinstance(recipe.model.backbone, BackboneConfig)
    backbone = replace(
        recipe.model.backbone,
        pattern=(mixer,) * (2 if tokens else training.num_layers),
        width=training.width,
        positions="learned",
        settings={},
    )
    return replace(
        recipe,
        model=replace(recipe.model, backbone=backbone),
        optimiser=OptimiserConfig(name="muon", rate=3e-3, matrix_rate=0.03),
        schedule=ScheduleConfig(warm_up=min(50, training.steps // 10)),
        steps=training.steps,
        batch=training.batch,
        block=training.batch,
        seed=seed,
        evaluate_every=training.steps,
        evaluation_episodes=training.batch,
        checkpoint_every=max(1, training.steps // 10),
    )


def train_mixers(
    task: TaskChoice,
    entrants: Sequence[Entrant],
    *,
    budget: str,
    num_seeds: int,
    run_dir: Path,
    progress: Callable[[str], Progress] | None = None,
) -> tuple[dict[str, PerSeed], dict[str, str]]:
    """Models of every mixer, and the mixers that failed with their reasons.

    progress: makes the display of a mixer's training from its name. A mixer that raises fails alone; KeyboardInterrupt
    leaves the run resumable. Raises InputError for a budget that there is not.
    """
    if budget not in TRAININGS:
        raise InputError(f"{budget!r} is a budget of the recall ladder alone: here there are {', '.join(TRAININGS)}")
    training = TRAININGS[budget]
    trained: dict[str, PerSeed] = {}
    failed: dict[str, str] = {}
    for one in entrants:
        try:
            configs = [configuration(task, one.spec, training, seed=seed) for seed in range(num_seeds)]
            show = None if progress is None else progress(one.label)
            trained[one.label] = _train(configs, one, run_dir / _folder(one), show)
        except CheckpointError:
            raise
        except Exception as error:
            failed[one.label] = f"{one.label} failed: {told(error)}"
    return trained, failed


def _folder(one: Entrant) -> str:
    """The mixer's own folder; a user's changed file gets another one."""
    plain = "".join(mark if mark.isalnum() or mark in "-_." else "-" for mark in one.spec.rpartition(":")[2])
    return f"{plain}-{one.source[:8]}" if one.source else plain


def _train(configs: list[TrainingConfig], one: Entrant, folder: Path, progress: Progress | None) -> PerSeed:
    if "cohorts" in one.card.waivers:
        runs = [([config], folder / f"seed-{config.seed}") for config in configs]
    else:
        runs = [(configs, folder)]
    learners: list[Learner | SequenceLearner] = []
    for group, path in runs:
        models = train_cohort(group, run_dir=path, resume=path.is_dir(), progress=progress)
        for model in models:
            model.eval().requires_grad_(False)
            if isinstance(model, PairsModel):
                learners.append(InContext(model, name=one.label))
            elif isinstance(model, TokenModel):
                learners.append(InContextTokens(model, name=one.label))
    return PerSeed(tuple(learners))
