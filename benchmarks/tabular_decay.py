"""Let the rate of a table transformer's run fall to zero, and write the learner that ships.

    python benchmarks/tabular_decay.py RUN_OR_STATE --run-dir runs/decay --steps 1500 --learner runs/decay/learner

RUN_OR_STATE is a run's folder, or a checkpoint such as the compact state in checkpoints/tables, from which
`--constant STEPS` trains on at the full rate first. `--resume` goes on after a crash.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from contexture.learners.saved import save_learner
from contexture.models.table_transformer import TableTransformerConfig
from contexture.store.checkpoint import Checkpoint, CheckpointStore, read_checkpoint
from contexture.store.record import read_record
from contexture.tasks.tabular_prior import TabularPrior
from contexture.training.progress import display
from contexture.training.tables import (
    RECORD,
    TableTrainer,
    TableTrainingConfig,
    decay,
    train_table_transformer,
    write_compact_state,
)


def checkpoint_at(path: Path) -> Checkpoint:
    """The checkpoint that a folder is, or the newest that it holds."""
    return (
        read_checkpoint(path) if (path / "manifest.json").is_file() else CheckpointStore(path).latest() or _none(path)
    )


def _none(path: Path) -> Checkpoint:
    raise SystemExit(f"{path} holds no checkpoint")


def config_of(checkpoint: Checkpoint) -> TableTrainingConfig:
    """The settings that a checkpoint was trained with."""
    fields = dict(checkpoint.state["config"])
    model, prior = TableTransformerConfig(**fields.pop("model")), TabularPrior(**fields.pop("prior"))
    return TableTrainingConfig(model=model, prior=prior, **fields)


def ship(run_dir: Path, learner: Path) -> None:
    """Write the averaged weights of a finished branch as a learner, with what is known of their training."""
    checkpoint = checkpoint_at(run_dir)
    config = config_of(checkpoint)
    trainer = TableTrainer(config)
    trainer.restore(checkpoint)
    curve = [line for line in read_record(run_dir / RECORD) if line.get("event") in ("step", "validated")]
    record = {
        "num_tables": trainer.num_tables,
        "num_steps": trainer.step,
        "core_hours": round(checkpoint.state["processor_seconds"] / 3600, 3),
        "training": checkpoint.state["config"],
        "curve": curve,
        "environment": checkpoint.environment,
    }
    model = trainer.averaged()
    save_learner(
        learner,
        model,
        learner="table-transformer",
        task="tables",
        config=config.model,
        step=trainer.step,
        record=record,
    )


def main() -> None:
    """Decay, or go on with it, and ship; or write a compact state."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--constant", type=int, default=0)
    parser.add_argument("--learner", type=Path)
    parser.add_argument("--compact", type=Path, help="write the undecayed state here, to go on from another day")
    parser.add_argument("--resume", action="store_true")
    own = parser.parse_args()
    source = checkpoint_at(own.source)
    config = replace(config_of(source), decay_from=None)
    if own.constant:
        steady = replace(config, num_steps=source.step + own.constant)
        steady_dir = own.run_dir / "constant"
        going_on = own.resume and steady_dir.is_dir()
        train_table_transformer(
            steady, run_dir=steady_dir, branch_from=source, resume=going_on, inexact=True, progress=display()
        )
        source = checkpoint_at(steady_dir)
    if own.compact:
        write_compact_state(own.compact, source)
    decay_dir = own.run_dir / "decay"
    going_on = own.resume and decay_dir.is_dir()
    decay(source, config, run_dir=decay_dir, num_steps=own.steps, inexact=True, resume=going_on, progress=display())
    ship(decay_dir, own.learner or own.run_dir / "learner")


if __name__ == "__main__":
    main()
