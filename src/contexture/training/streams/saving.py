"""Saving a stream learner and going on: what it says and learns afterwards is the same, bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch as safetensors
import torch
from torch import Tensor

from contexture.errors import CheckpointError, InputError
from contexture.models.state import map_state, tensors
from contexture.store.checkpoint import Groups, read_checkpoint, write_checkpoint
from contexture.training.streams.config import StreamConfig
from contexture.training.streams.growth import adamw
from contexture.training.streams.learner import StreamLearner
from contexture.training.streams.past import Past
from contexture.training.streams.reader import Pair
from contexture.training.streams.running import Running

KIND = "stream learner"
LABELS = {"str": str, "bool": bool, "int": int, "float": float}
SCALES = ("count", "mean", "squares")


def save_stream(learner: StreamLearner, folder: str | Path) -> None:
    """Write everything into one checkpoint folder; InputError for labels that a file cannot hold."""
    write_checkpoint(folder, step=learner.seen, tensors=_groups(learner), state=_about(learner))


def load_stream(folder: str | Path) -> StreamLearner:
    """Read what `save_stream` wrote; CheckpointError for anything else."""
    found = read_checkpoint(folder)
    if found.state.get("kind") != KIND:
        raise CheckpointError(f"the checkpoint {folder} holds no stream learner")
    return _restored(found.state, found.tensors)


def stream_to_bytes(learner: StreamLearner) -> dict[str, bytes]:
    """Everything, in safetensors and JSON: equal bytes for learners that have seen the same."""
    tensors = {group: safetensors.save(dict(held)) for group, held in _groups(learner).items()}
    return {"about": json.dumps(_about(learner)).encode(), **tensors}


def stream_from_bytes(held: Mapping[str, bytes]) -> StreamLearner:
    """Undo `stream_to_bytes`."""
    tensors = {group: safetensors.load(data) for group, data in held.items() if group != "about"}
    return _restored(json.loads(held["about"]), tensors)


def _about(learner: StreamLearner) -> dict[str, Any]:
    reader, past = learner.reader, learner.past
    strays = [label for label in reader.labels if type(label).__name__ not in LABELS]
    if strays:
        raise InputError(f"a label of the type {type(strays[0]).__name__} cannot be saved: use texts or numbers")
    return {
        "kind": KIND,
        "config": asdict(learner.config),
        "slots": reader.slots,
        "labels": [[type(label).__name__, label] for label in reader.labels],
        "num_slots": learner.model.config.num_slots,
        "num_classes": learner.model.config.num_classes,
        "pending": len(learner.pending),
        "cursors": past.cursors,
        "left": past.left,
        "names": past.names,
        "seen": learner.seen,
    }


def _restored(about: Mapping[str, Any], held: Groups) -> StreamLearner:
    learner = StreamLearner(StreamConfig(**about["config"]))
    learner.make_room(about["num_slots"], about["num_classes"])
    learner.model.load_state_dict(dict(held["model"]))
    learner.optimiser = adamw(learner.model, learner.config.rate)
    named = dict(learner.model.named_parameters())
    for name, value in held["optimiser"].items():
        parameter, key = name.rsplit(":", 1)
        learner.optimiser.state[named[parameter]][key] = value
    learner.states, learner.now = (_state(held["states"], part, learner.states) for part in ("chunk", "now"))
    _restore_pairs(learner, about, held)
    learner.generator.set_state(held["generator"]["state"])
    learner.seen = about["seen"]
    return learner


def _groups(learner: StreamLearner) -> dict[str, dict[str, Tensor]]:
    reader, pairs = learner.reader, [*learner.past.pairs, *learner.pending]
    nothing = np.zeros((0, reader.num_slots))
    return {
        "model": dict(learner.model.state_dict()),
        "optimiser": {
            f"{name}:{key}": value
            for name, parameter in learner.model.named_parameters()
            for key, value in learner.optimiser.state.get(parameter, {}).items()
        },
        "states": {
            f"{part}-{place:03}": value.clone(memory_format=torch.contiguous_format)
            for part, state in (("chunk", learner.states), ("now", learner.now))
            for place, value in enumerate(tensors(state))
        },
        "pairs": {
            "values": torch.tensor(np.stack([pair.values for pair in pairs]) if pairs else nothing),
            "present": torch.tensor(np.stack([pair.present for pair in pairs]) if pairs else nothing > 0),
            "y": torch.tensor([pair.y for pair in pairs], dtype=torch.float64),
            "known": torch.tensor([pair.known for pair in pairs], dtype=torch.int64),
        },
        "scales": {
            f"{part}-{name}": torch.tensor(getattr(scale, name))
            for part, scale in (("features", reader.scale), ("target", reader.target_scale))
            for name in SCALES
        },
        "generator": {"state": learner.generator.get_state()},
    }


def _state(held: Mapping[str, Tensor], part: str, like: Any) -> Any:
    values = iter([held[name] for name in sorted(held) if name.startswith(part)])
    return map_state(lambda _: next(values), like)


def _restore_pairs(learner: StreamLearner, about: Mapping[str, Any], held: Groups) -> None:
    reader = learner.reader
    columns = (held["pairs"][name].numpy() for name in ("values", "present", "y", "known"))
    pairs = [Pair(values, present, float(y), int(known)) for values, present, y, known in zip(*columns, strict=True)]
    cut = len(pairs) - about["pending"]
    learner.past = Past(learner.config, pairs[:cut], *(list(about[name]) for name in ("cursors", "left", "names")))
    learner.pending = pairs[cut:]
    reader.scale, reader.target_scale = (
        Running(*(held["scales"][f"{part}-{name}"].numpy() for name in SCALES)) for part in ("features", "target")
    )
    reader.slots = dict(about["slots"])
    reader.labels = [LABELS[kind](label) for kind, label in about["labels"]]
    reader.codes = {label: code for code, label in enumerate(reader.labels)}
