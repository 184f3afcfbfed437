"""Training on synthetic tables: a killed run ends in the same bits, a branch leaves its run as it is."""

import math
from pathlib import Path

import pytest
import torch

from contexture.errors import CheckpointError, InputError
from contexture.models.table_transformer import TableTransformer, TableTransformerConfig
from contexture.store.checkpoint import CheckpointStore, read_checkpoint
from contexture.store.record import read_record
from contexture.tasks.tabular_prior import TableBatch, TabularPrior
from contexture.training.progress import Silent
from contexture.training.tables import (
    TableTrainer,
    TableTrainingConfig,
    decay,
    draw_batch,
    table_losses,
    train_table_transformer,
    write_compact_state,
)

TINY = TableTrainingConfig(
    model=TableTransformerConfig(width=16, num_layers=2, num_heads=2, hidden=16, num_thinking=2),
    prior=TabularPrior(max_columns=21, max_context=30, long_share=0.0),
    num_steps=8,
    cells_per_step=600,
    min_tables=4,
    warmup_steps=2,
    checkpoint_every=2,
    report_every=2,
    validate_every=8,
    validation_batches=2,
)


class Killed(Exception):
    pass


class KillAt(Silent):
    """Ends the process, so to speak, when a step is done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def advance(self, step: int, loss: float) -> None:
        if step == self.step:
            raise Killed


def weights(model: TableTransformer) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


def last(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = CheckpointStore(folder).latest()
    assert checkpoint is not None
    groups = checkpoint.tensors.items()
    return {f"{group}/{name}": value for group, tensors in groups for name, value in tensors.items()}


@pytest.mark.parametrize("killed_at", [3, 4, 7])
def test_a_killed_run_ends_in_the_same_bits(tmp_path: Path, killed_at: int) -> None:
    whole = train_table_transformer(TINY, run_dir=tmp_path / "whole")
    with pytest.raises(Killed):
        train_table_transformer(TINY, run_dir=tmp_path / "cut", progress=KillAt(killed_at))
    resumed = train_table_transformer(TINY, run_dir=tmp_path / "cut", resume=True)
    assert torch.equal(weights(whole), weights(resumed))
    expected, got = last(tmp_path / "whole"), last(tmp_path / "cut")
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    steps = [line["step"] for line in read_record(tmp_path / "cut" / "record.jsonl") if line["event"] == "step"]
    assert steps == [2, 4, 6, 8]


def test_a_run_is_not_overwritten_nor_resumed_from_nothing(tmp_path: Path) -> None:
    train_table_transformer(TINY, run_dir=tmp_path / "run")
    with pytest.raises(InputError, match="holds a run already"):
        train_table_transformer(TINY, run_dir=tmp_path / "run")
    with pytest.raises(CheckpointError, match="no run to resume"):
        train_table_transformer(TINY, run_dir=tmp_path / "none", resume=True)


def test_a_branch_decays_and_leaves_its_run_as_it_is(tmp_path: Path) -> None:
    train_table_transformer(TINY, run_dir=tmp_path / "run")
    before = last(tmp_path / "run")
    checkpoint = CheckpointStore(tmp_path / "run").latest()
    assert checkpoint is not None
    branch = decay(checkpoint, TINY, run_dir=tmp_path / "branch", num_steps=4)
    assert not torch.equal(weights(branch), before["model/cell.weight"].flatten())
    lines = [line for line in read_record(tmp_path / "branch" / "record.jsonl") if line["event"] == "step"]
    assert [(line["step"], line["rate_factor"]) for line in lines] == [(10, 0.5), (12, 0.0)]
    assert all(torch.equal(value, before[name]) for name, value in last(tmp_path / "run").items())


def test_a_run_goes_on_from_a_compact_state(tmp_path: Path) -> None:
    train_table_transformer(TINY, run_dir=tmp_path / "run")
    checkpoint = CheckpointStore(tmp_path / "run").latest()
    assert checkpoint is not None
    write_compact_state(tmp_path / "compact", checkpoint)
    compact = read_checkpoint(tmp_path / "compact")
    assert "average" not in compact.tensors
    assert all(value.dtype == torch.bfloat16 for value in compact.tensors["muon"].values())
    longer = TableTrainingConfig(**{**_fields(TINY), "num_steps": 10})
    train_table_transformer(longer, run_dir=tmp_path / "on", branch_from=compact)
    assert CheckpointStore(tmp_path / "on").steps()[-1] == 10


def test_a_branch_of_other_sizes_is_refused(tmp_path: Path) -> None:
    train_table_transformer(TINY, run_dir=tmp_path / "run")
    checkpoint = CheckpointStore(tmp_path / "run").latest()
    assert checkpoint is not None
    other = TableTrainingConfig(**{**_fields(TINY), "model": TableTransformerConfig(width=32, num_layers=2)})
    with pytest.raises(InputError, match="a model of other sizes"):
        train_table_transformer(other, run_dir=tmp_path / "other", branch_from=checkpoint)


def test_a_step_depends_on_the_seed_and_its_number_alone() -> None:
    first, again, next_one = draw_batch(TINY, 3), draw_batch(TINY, 3), draw_batch(TINY, 4)
    assert torch.equal(first.x.nan_to_num(), again.x.nan_to_num())
    assert torch.equal(first.y, again.y)
    assert first.x.shape != next_one.x.shape or not torch.equal(first.y, next_one.y)


def test_the_loss_counts_the_classes_seen_and_the_bins_of_the_scaled_target() -> None:
    trainer = TableTrainer(TINY)
    x = torch.zeros(2, 7, 1)
    y = torch.tensor([[0.0, 1.0, 0.0, 1.0, 1.0, 2.0, 0.0], [1.0, 2.0, 3.0, 4.0, 2.5, 9.0, 1.0]])
    flags = torch.zeros(2, 1, dtype=torch.bool)
    batch = TableBatch(x=x, categorical=flags, y=y, num_classes=torch.tensor([3, 0]), num_context=4)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if name.startswith(("class_logits", "bin_logits")):
                parameter.zero_()
        classes, bins = table_losses(trainer.model, batch)
    assert classes.tolist() == pytest.approx([math.log(2)] * 2)
    assert bins.tolist() == pytest.approx([math.log(100)] * 3)


def test_training_lowers_the_loss() -> None:
    config = TableTrainingConfig(**{**_fields(TINY), "num_steps": 40, "adamw_rate": 1e-2, "warmup_steps": 3})
    trainer = TableTrainer(config)
    bins = [trainer.train_step()[1] for _ in range(40)]
    early = torch.tensor(bins[:10]).nanmean()
    late = torch.tensor(bins[-15:]).nanmean()
    assert late < early - 0.2


def _fields(config: TableTrainingConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in TableTrainingConfig.__dataclass_fields__}
