"""Saved learners: what ships is intact and small, what is saved comes back, what is damaged is refused."""

import json
from pathlib import Path

import pytest
import torch

import contexture
from contexture.errors import CheckpointError, InputError
from contexture.learners.in_context import InContext
from contexture.learners.saved import load_learner, load_named, save_learner, shipped
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.tasks.linear_regression import LinearRegression

LARGEST = 8 * 2**20


def small(tmp_path: Path) -> tuple[Path, PairsModel]:
    config = PairsModelConfig(num_features=8, backbone=BackboneConfig(pattern="softmax*1", width=16, num_heads=2))
    model = PairsModel(config, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "saved"
    save_learner(path, model, learner="in-context", task="linear-regression", config=config, step=1, record={"a": 1})
    return path, model


def test_what_ships_is_intact_and_at_most_8_mb_each() -> None:
    assert {"linear-regression", "tables"} <= set(shipped())
    for name, folder in shipped().items():
        assert load_named(name).card.kind == "in-context"
        assert sum(file.stat().st_size for file in folder.iterdir()) <= LARGEST
        assert json.loads((folder / "state.json").read_text(encoding="utf-8"))["record"]


def test_a_saved_learner_predicts_as_the_model_did(tmp_path: Path) -> None:
    path, model = small(tmp_path)
    episodes = LinearRegression().sample(3, generator=torch.Generator().manual_seed(1))
    before, after = InContext(model).prequential(episodes), contexture.load(path).prequential(episodes)
    assert torch.equal(before.value, after.value)


def test_the_state_of_a_softmax_model_is_its_keys_and_values(tmp_path: Path) -> None:
    learner = load_learner(small(tmp_path)[0])
    assert isinstance(learner, InContext)
    episodes = LinearRegression().sample(3, generator=torch.Generator().manual_seed(1))
    ten, twenty = (learner.state_bytes(episodes.prefix(n)) for n in (10, 20))
    assert twenty - ten == 10 * 2 * 2 * 16 * 4  # examples, tokens each, keys and values, width, bytes


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path, _ = small(tmp_path)
    file = path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_learner(path)


def test_a_checkpoint_that_is_no_learner_is_refused(tmp_path: Path) -> None:
    from contexture.store.checkpoint import write_checkpoint

    write_checkpoint(tmp_path / "other", step=0, tensors={"model": {"a": torch.zeros(1)}}, state={"some": "thing"})
    with pytest.raises(CheckpointError, match="no saved learner"):
        load_learner(tmp_path / "other")
    with pytest.raises(InputError, match="no trained learner is named 'nothing'"):
        load_named("nothing")
