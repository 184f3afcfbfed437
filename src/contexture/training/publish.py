"""From a finished run to a learner that others can load: the weights of its last checkpoint and how they came to be."""

from pathlib import Path
from typing import Any

from contexture.agents.saved import save_decisions
from contexture.errors import CheckpointError
from contexture.learners.saved import save_learner
from contexture.models.decisions import DecisionModel
from contexture.models.pairs import PairsModel
from contexture.models.planning import PlanningModel
from contexture.randomness import generator
from contexture.store.checkpoint import CheckpointStore
from contexture.store.record import read_record
from contexture.tasks.decision_pretraining import DecisionPretraining
from contexture.tasks.learning_histories import LearningHistories
from contexture.training.config import TrainingConfig
from contexture.training.loop import RECORD


def publish(run_dir: str | Path, path: str | Path) -> None:
    """Write the model of a finished run over pairs, or of an agent, as a folder that `contexture.load` reads.

    Raises CheckpointError if the run has steps left or is a cohort.
    """
    run_dir = Path(run_dir)
    checkpoint = CheckpointStore(run_dir).latest()
    if checkpoint is None or len(checkpoint.state["configurations"]) != 1:
        raise CheckpointError(f"{run_dir} holds no run of a single model")
    config = TrainingConfig.from_json(checkpoint.state["configurations"][0])
    if checkpoint.step < config.steps:
        raise CheckpointError(f"the run in {run_dir} stands at step {checkpoint.step} of {config.steps}: resume it")
    model = config.build_model(generator=generator("placeholder"))
    if not isinstance(model, PairsModel | DecisionModel | PlanningModel):
        raise CheckpointError(f"{run_dir} holds a {type(model).__name__}, which acts or predicts nothing")
    model.load_state_dict(checkpoint.expect("model", model.state_dict()))
    record = summary(run_dir, config, dict(checkpoint.state))
    if isinstance(model, DecisionModel | PlanningModel):
        task, name = config.task.build(), config.task.name
        if not isinstance(task, DecisionPretraining | LearningHistories):
            raise CheckpointError(f"{run_dir} was trained on {name!r}, which names no environment to act in")
        made_for = {"name": task.environment, "settings": dict(task.settings)}
        save_decisions(path, model, task=name, environment=made_for, step=checkpoint.step, record=record)
        return
    save_learner(
        path,
        model,
        learner="in-context",
        task=config.task.name,
        config=config.model,
        step=checkpoint.step,
        record=record,
    )


def summary(run_dir: Path, config: TrainingConfig, state: dict[str, Any]) -> dict[str, Any]:
    """How a run went, for people: its settings, what it saw, how long it took, where, and its losses on the way."""
    lines = read_record(run_dir / RECORD)
    return {
        "configuration": config.to_json(),
        "episodes": config.steps * config.batch,
        "wall_seconds": state["wall_seconds"],
        "processor_seconds": state["processor_seconds"],
        "inexact": state["inexact"],
        "environment": next(line["environment"] for line in lines if line["event"] == "started"),
        "evaluations": [
            {"step": line["step"], "loss": sum(line["curves"][0]) / len(line["curves"][0])}
            for line in lines
            if line["event"] == "evaluated"
        ],
    }
