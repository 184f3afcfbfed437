"""Trained models that decide, on disk: the shipped ones, and any folder of the same form as a saved learner's.

`state.json` says what the weights are:  {"learner": "decisions" or "planning", "task": ..., "environment": {"name":
..., "settings": {...}}, "config": {...}, "record": {...}}. Nothing here reads a pickle.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from contexture.environments.choice import build_environment
from contexture.errors import CheckpointError, InputError
from contexture.learners.saved import WEIGHTS
from contexture.models.decisions import DecisionModel, DecisionModelConfig
from contexture.models.planning import PlanningModel, PlanningModelConfig
from contexture.protocols import Environment
from contexture.randomness import generator
from contexture.store.checkpoint import MANIFEST, read_checkpoint, write_checkpoint

KINDS: Mapping[str, tuple[type[Any], type[Any]]] = {
    "decisions": (DecisionModelConfig, DecisionModel),
    "planning": (PlanningModelConfig, PlanningModel),
}
"""What a folder's weights are, by the name of the learner in its state."""
AGENTS = WEIGHTS / "agents"


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedDecisions:
    """A trained model, and the environment that it was trained for."""

    model: DecisionModel | PlanningModel
    environment: Environment

    @property
    def decisions(self) -> DecisionModel:
        """The part of the model that says what to do."""
        return self.model.decisions if isinstance(self.model, PlanningModel) else self.model


def save_decisions(
    path: str | Path,
    model: DecisionModel | PlanningModel,
    *,
    task: str,
    environment: Mapping[str, Any],
    step: int,
    record: Mapping[str, Any],
) -> None:
    """Write a trained model, whole or not at all; environment: the name and settings that it was trained for."""
    state = {
        "learner": next(kind for kind, (_, built) in KINDS.items() if isinstance(model, built)),
        "task": task,
        "environment": dict(environment),
        "config": asdict(model.config),
        "record": dict(record),
    }
    write_checkpoint(path, step=step, tensors={"model": model.state_dict()}, state=state)


def holds_decisions(path: str | Path) -> bool:
    """Whether a folder holds a trained model that decides; CheckpointError if it is damaged."""
    state = read_checkpoint(path).state
    return isinstance(state, Mapping) and state.get("learner") in KINDS


def load_decisions(path: str | Path) -> SavedDecisions:
    """The model that a folder holds; CheckpointError says in one sentence why a folder is refused."""
    checkpoint = read_checkpoint(path)
    state = checkpoint.state
    if not isinstance(state, Mapping) or state.get("learner") not in KINDS:
        raise CheckpointError(f"{path} holds no trained agent of this program")
    try:
        config, built = KINDS[state["learner"]]
        model = built(config(**state["config"]), generator=generator("placeholder"))
        model.load_state_dict(checkpoint.expect("model", model.state_dict()))
        made_for = build_environment(state["environment"]["name"], state["environment"]["settings"])
    except (InputError, KeyError, TypeError) as error:
        raise CheckpointError(f"the saved agent {path} does not fit this program: {error}") from error
    model.eval().requires_grad_(False)
    return SavedDecisions(model=model, environment=made_for)


def shipped_agents() -> dict[str, Path]:
    """The folders of the agents that ship with the package, by the environment's name."""
    return {folder.parent.name: folder.parent for folder in sorted(AGENTS.glob(f"*/{MANIFEST}"))}


@cache
def load_shipped_decisions(name: str) -> SavedDecisions:
    """The model that ships for an environment; InputError where none does."""
    folders = shipped_agents()
    if name not in folders:
        raise InputError(f"no trained agent ships for {name!r}: there are {', '.join(folders) or 'none'}")
    return load_decisions(folders[name])
