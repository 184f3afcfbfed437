import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from contexture.errors import CheckpointError, ContextureError, InputError
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModelConfig
from contexture.models.tokens import TokenModelConfig
from contexture.store.checkpoint import CheckpointStore
from contexture.store.faults import FaultyDisk, SimulatedCrash
from contexture.store.record import read_record
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.interrupts import Interrupted
from contexture.training.loop import RECORD, Trainer, train, train_cohort
from contexture.training.progress import Silent
from contexture.training.schedule import ScheduleConfig

BACKBONE = BackboneConfig(pattern="softmax", width=8, num_heads=2)
CONFIG = TrainingConfig(
    task=TaskChoice(name="linear-regression", settings={"num_features": 2, "num_points": 5}),
    model=PairsModelConfig(num_features=2, backbone=BACKBONE),
    optimiser=OptimiserConfig(name="muon", rate=1e-2),
    schedule=ScheduleConfig(warm_up=2),
    steps=9,
    batch=8,
    block=2,
    log_every=1,
    evaluate_every=4,
    evaluation_episodes=8,
    checkpoint_every=3,
)


class Hook(Silent):
    """Does something after a given step; keeps the notes."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self.step, self.action, self.notes = step, action, list[str]()

    def advance(self, step: int, loss: float) -> None:
        if step == self.step:
            self.action()

    def note(self, text: str) -> None:
        self.notes.append(text)


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def lines(run_dir: Path) -> list[dict[str, Any]]:
    timed = ("wall_seconds", "processor_seconds")
    return [{k: v for k, v in line.items() if k not in timed} for line in read_record(run_dir / RECORD)]


@pytest.mark.parametrize("at", [5, 11, 21, 30, 45])
def test_a_crashed_run_resumes_to_the_same_bits_and_record(tmp_path: Path, at: int) -> None:
    whole = train(CONFIG, run_dir=tmp_path / "whole")
    with pytest.raises(SimulatedCrash):
        train(CONFIG, run_dir=tmp_path / "cut", disk=FaultyDisk(at=at, fault="crash"))
    resumed = train(CONFIG, run_dir=tmp_path / "cut", resume=True)
    assert same(whole, resumed)
    assert {entry.name for entry in (tmp_path / "cut").iterdir()} == {RECORD, "step-00000006", "step-00000009"}
    told = [line for line in lines(tmp_path / "cut") if line["event"] in ("step", "evaluated")]
    assert told == [line for line in lines(tmp_path / "whole") if line["event"] in ("step", "evaluated")]


def test_a_cohort_resumes_to_the_same_bits_and_saves_members_as_plain_models(tmp_path: Path) -> None:
    configs = [replace(CONFIG, seed=seed) for seed in (0, 1)]
    whole = train_cohort(configs, run_dir=tmp_path / "whole")

    def crash() -> None:
        raise SimulatedCrash

    with pytest.raises(SimulatedCrash):
        train_cohort(configs, run_dir=tmp_path / "cut", progress=Hook(7, crash))
    resumed = train_cohort(configs, run_dir=tmp_path / "cut", resume=True)
    assert all(same(a, b) for a, b in zip(whole, resumed, strict=True))
    saved = CheckpointStore(tmp_path / "cut").latest()
    assert saved is not None
    assert all(torch.equal(saved.tensors["model-1"][name], value) for name, value in resumed[1].state_dict().items())


def test_ctrl_c_saves_where_it_stands_and_says_how_to_go_on(tmp_path: Path) -> None:
    whole = train(CONFIG, run_dir=tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"interrupted at step 5, saved in .*--resume"):
        train(CONFIG, run_dir=tmp_path / "cut", progress=Hook(5, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert signal.getsignal(signal.SIGINT) is before
    assert CheckpointStore(tmp_path / "cut").steps() == [3, 5]
    assert lines(tmp_path / "cut")[-1]["event"] == "interrupted"
    assert same(whole, train(CONFIG, run_dir=tmp_path / "cut", resume=True))


def test_a_second_ctrl_c_acts_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(CONFIG, run_dir=tmp_path, progress=Hook(5, twice))
    assert not isinstance(caught.value, Interrupted)
    assert CheckpointStore(tmp_path).steps() == [0, 3]


def test_another_number_of_threads_is_refused_unless_inexact_and_then_recorded(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(CONFIG, run_dir=tmp_path, progress=Hook(5, lambda: os.kill(os.getpid(), signal.SIGINT)))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(CheckpointError, match="number of threads"):
            train(CONFIG, run_dir=tmp_path, resume=True)
        train(CONFIG, run_dir=tmp_path, resume=True, inexact=True)
    finally:
        torch.set_num_threads(threads)
    told = f"number of threads: {threads} there, {threads + 1} here"
    assert lines(tmp_path)[-1]["inexact"] == [f"step 5: {told}"]
    saved = CheckpointStore(tmp_path).latest()
    assert saved is not None
    assert saved.state["inexact"] == [f"step 5: {told}"]


def test_a_folder_is_neither_overwritten_nor_resumed_with_other_settings(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(CheckpointError, match="no run to resume"):
        train(CONFIG, run_dir=run, resume=True)
    train(CONFIG, run_dir=run)
    with pytest.raises(InputError, match="holds a run already"):
        train(CONFIG, run_dir=run)
    with pytest.raises(InputError, match="other settings"):
        train(replace(CONFIG, seed=1), run_dir=run, resume=True)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path) -> None:
    whole = train(CONFIG, run_dir=tmp_path)
    damaged = tmp_path / "step-00000009" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x07")
    hook = Hook(0, lambda: None)
    assert same(whole, train(CONFIG, run_dir=tmp_path, resume=True, progress=hook))
    assert "step-00000009 is damaged" in hook.notes[0]


def test_accumulation_sees_the_same_episodes_and_takes_the_same_step() -> None:
    once, parts = (
        Trainer([replace(CONFIG, precision="fp64")]),
        Trainer([replace(CONFIG, precision="fp64", accumulation=4)]),
    )
    for step in range(2):
        assert once.step(step).losses == pytest.approx(parts.step(step).losses, rel=1e-12)
    plain = replace(CONFIG, precision="fp64", optimiser=OptimiserConfig(rate=1e-2))
    first, second = Trainer([plain]), Trainer([replace(plain, accumulation=2)])
    for step in range(3):
        first.step(step), second.step(step)
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_bf16_steps_keep_parameters_in_fp32_and_stay_near_fp32() -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        trainer = Trainer([replace(CONFIG, precision=precision)])
        losses.append(trainer.step(0).losses[0])
        assert {value.dtype for value in trainer.model.parameters()} == {torch.float32}
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
    assert losses[0] != losses[1]


def test_training_learns_recall_over_tokens(tmp_path: Path) -> None:
    settings = {"vocabulary": 16, "length": 16, "num_pairs": 2}
    config = TrainingConfig(
        task=TaskChoice(name="mqar", settings=settings),
        model=TokenModelConfig(vocabulary=16, backbone=replace(BACKBONE, pattern="softmax*2", width=32)),
        optimiser=OptimiserConfig(rate=3e-3),
        schedule=ScheduleConfig(warm_up=10),
        steps=100,
        batch=32,
        evaluate_every=100,
        evaluation_episodes=64,
    )
    trainer = Trainer([config])
    first = trainer.step(0).losses[0]
    for step in range(1, config.steps):
        last = trainer.step(step).losses[0]
    assert last < first - 0.5


def test_a_loss_that_leaves_the_numbers_stops_the_run(tmp_path: Path) -> None:
    wild = replace(CONFIG, optimiser=OptimiserConfig(rate=1e30), schedule=ScheduleConfig(warm_up=0), clip=None)
    with pytest.raises(ContextureError, match="lower the learning rate"):
        train(wild, run_dir=tmp_path)


def test_a_configuration_survives_json_and_says_what_does_not_belong() -> None:
    assert TrainingConfig.from_json(CONFIG.to_json()) == CONFIG
    with pytest.raises(InputError, match="has no stepz"):
        TrainingConfig.from_json({**CONFIG.to_json(), "stepz": 3})
    with pytest.raises(InputError, match="no model is of kind 'tables'"):
        TrainingConfig.from_json({**CONFIG.to_json(), "model": {"kind": "tables"}})
    with pytest.raises(InputError, match="cannot be cut into 3 parts"):
        replace(CONFIG, accumulation=3)
    with pytest.raises(InputError, match="steps is 0"):
        replace(CONFIG, steps=0)
    with pytest.raises(InputError, match="'linear-regression' cannot be built"):
        TaskChoice(name="linear-regression", settings={"num_feature": 2}).build()


def test_evaluation_episodes_are_none_that_training_draws() -> None:
    trainer = Trainer([CONFIG])
    curve = trainer.evaluate(3)[0]
    assert len(curve) == 5
    assert curve == trainer.evaluate(3)[0] != trainer.evaluate(4)[0]
    config = replace(CONFIG, evaluation_episodes=CONFIG.batch)
    trainer = Trainer([config])
    assert sum(trainer.evaluate(0)[0]) / 5 != pytest.approx(trainer.step(0).losses[0], rel=1e-6)
