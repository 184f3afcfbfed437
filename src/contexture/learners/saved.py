"""Trained learners on disk: the shipped ones, and any folder of the same form.

A saved learner is a checkpoint folder (contexture.store.checkpoint): `model.safetensors`, a manifest with checksums,
and a `state.json` that says what the weights are:

    {"learner": "in-context", "task": "linear-regression", "config": {...}, "record": {...}}

config: the fields of the model's config; record: how it was trained, for people; a table transformer may have a
"calibration" too, the fields of learners/table_calibration.py. Nothing here reads a pickle.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from contexture.errors import CheckpointError, InputError
from contexture.learners.in_context import InContext
from contexture.learners.table_calibration import Calibration
from contexture.learners.table_transformer import TableTransformerLearner
from contexture.learners.token_model import InContextTokens
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.models.table_transformer import TableTransformer, TableTransformerConfig
from contexture.models.tokens import TokenModel, TokenModelConfig
from contexture.protocols import Learner, SequenceLearner
from contexture.randomness import generator
from contexture.store.checkpoint import MANIFEST, Checkpoint, read_checkpoint, write_checkpoint

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def save_learner(
    path: str | Path,
    model: nn.Module,
    *,
    learner: str,
    task: str,
    config: Any,
    step: int,
    record: Mapping[str, Any],
    calibration: Calibration | None = None,
) -> None:
    """Write a trained model as a folder that `load_learner` reads, whole or not at all.

    learner: a key of `LOADERS`; config: the model's config dataclass; calibration: a table transformer's temperatures.
    """
    state = {"learner": learner, "task": task, "config": asdict(config), "record": dict(record)}
    if calibration is not None:
        state["calibration"] = asdict(calibration)
    write_checkpoint(path, step=step, tensors={"model": model.state_dict()}, state=state)


def load_learner(path: str | Path, *, name: str | None = None) -> Learner | SequenceLearner:
    """The learner that a folder holds; CheckpointError says in one sentence why a folder is refused."""
    checkpoint = read_checkpoint(path)
    kind = checkpoint.state.get("learner") if isinstance(checkpoint.state, Mapping) else None
    if kind not in LOADERS:
        raise CheckpointError(f"{path} holds no saved learner of this program: its state names {kind!r}")
    try:
        return LOADERS[kind](checkpoint, name or Path(path).name)
    except (InputError, KeyError, TypeError) as error:
        raise CheckpointError(f"the saved learner {path} does not fit this program: {error}") from error


def shipped() -> dict[str, Path]:
    """The folders of the learners that ship with the package, by name."""
    return {folder.parent.name: folder.parent for folder in sorted(WEIGHTS.glob(f"*/{MANIFEST}"))}


@cache
def load_shipped(name: str) -> Learner:
    """A learner that ships with the package: `contexture.load("linear-regression")`."""
    folders = shipped()
    if name not in folders:
        raise InputError(f"no shipped learner is named {name!r}: there are {', '.join(folders) or 'none'}")
    learner = load_learner(folders[name], name="transformer")
    assert isinstance(learner, Learner)
    return learner


def load_named(name: str | Path) -> Learner | SequenceLearner:
    """A trained learner: one that ships, by name, or the folder of one."""
    if str(name) in shipped():
        return load_shipped(str(name))
    if Path(name).is_dir():
        return load_learner(name)
    raise InputError(f"no trained learner is named {str(name)!r}, and no folder: there are {', '.join(shipped())}")


def _load_pairs(checkpoint: Checkpoint, name: str) -> Learner:
    model = PairsModel(PairsModelConfig(**checkpoint.state["config"]), generator=generator("placeholder"))
    _fill(model, checkpoint)
    return InContext(model, name=name)


def _load_tokens(checkpoint: Checkpoint, name: str) -> SequenceLearner:
    model = TokenModel(TokenModelConfig(**checkpoint.state["config"]), generator=generator("placeholder"))
    _fill(model, checkpoint)
    return InContextTokens(model, name=name)


def _load_tables(checkpoint: Checkpoint, _: str) -> Learner:
    config = TableTransformerConfig(**checkpoint.state["config"])
    model = TableTransformer(config, generator=generator("placeholder"))
    _fill(model, checkpoint)
    return TableTransformerLearner(model, calibration=Calibration(**checkpoint.state.get("calibration", {})))


def _fill(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into a model of the same shape, for use rather than training."""
    model.load_state_dict(checkpoint.expect("model", model.state_dict()))
    model.eval().requires_grad_(False)


LOADERS: dict[str, Callable[[Checkpoint, str], Learner | SequenceLearner]] = {
    "in-context": _load_pairs,
    "in-context-tokens": _load_tokens,
    "table-transformer": _load_tables,
}
