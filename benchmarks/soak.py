"""Kill a training run again and again, resume it until it is done, and compare its final weights bit for bit.

    python benchmarks/soak.py                   # 200 kills at random times and at random calls to the disk
    python benchmarks/soak.py --every-call      # one kill at every call to the disk of one short run

Each life of a run is a fork of this process, which has imported torch once and computed nothing. A kill is SIGKILL:
from within, in the middle of a chosen call that changes the disk, or from without, at a chosen time. After Ctrl-C the
same command goes on with the next run. A control resumes without the optimiser's state, and has to end in other bits.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # imported by torch at the first step of an optimiser: once here, not in every life

from contexture import discovery
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModelConfig
from contexture.store.atomic import DISK, Disk
from contexture.store.checkpoint import CheckpointStore
from contexture.store.environment import environment
from contexture.store.faults import FaultyDisk
from contexture.store.record import RunRecord, read_record
from contexture.store.results import write_result
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.loop import RECORD, train_cohort
from contexture.training.optimiser import MemberOptimiser

Run = Sequence[TrainingConfig]
CALLS = "calls.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """Where one life ends: in a call to the disk, counted from 0, or so many seconds after its start."""

    call: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """An uninterrupted run: the calls it makes to the disk, its seconds, the bits it ends in, what its record says."""

    calls: tuple[str, ...]
    seconds: float
    bits: dict[str, bytes]
    history: list[dict[str, Any]]


def configs(*, steps: int, every: int, members: int) -> Run:
    """A run of `members` tiny transformers, saved every `every` steps."""
    backbone = BackboneConfig(pattern="softmax", width=8, num_heads=2, max_length=16)
    shared: dict[str, Any] = {
        "task": TaskChoice(name="linear-regression", settings={"num_features": 2, "num_points": 4}),
        "model": PairsModelConfig(num_features=2, backbone=backbone),
        "optimiser": OptimiserConfig(rate=0.01),
        "steps": steps,
        "batch": 8,
        "block": 8,
        "log_every": 1,
        "evaluate_every": every,
        "evaluation_episodes": 8,
        "checkpoint_every": every,
    }
    return [TrainingConfig(**shared, seed=seed) for seed in range(members)]


def live(run: Run, folder: Path, *, disk: Disk = DISK, seconds: float | None = None, forget: bool = False) -> bool:
    """Start or resume the run in a process of its own; True if it was killed, False if it got to its end."""
    child = os.fork()
    if child == 0:
        os.setpgrp()  # Ctrl-C is for the parent to handle.
        _live(run, folder, disk, forget=forget)
    try:
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"a life in {folder} ended with status {status}, neither done nor killed")
    return status != 0


def _live(run: Run, folder: Path, disk: Disk, *, forget: bool) -> None:
    status = 1
    try:
        if forget:
            MemberOptimiser.load_state = lambda *_: None  # type: ignore[method-assign]
        train_cohort(run, run_dir=folder, resume=folder.is_dir(), disk=disk)
        if isinstance(disk, FaultyDisk):
            (folder.parent / CALLS).write_text("\n".join(disk.calls))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def final_bits(folder: Path) -> dict[str, bytes]:
    """Every tensor of the last checkpoint, weights and optimiser's state, as bytes."""
    checkpoint = CheckpointStore(folder).latest()
    assert checkpoint is not None
    return {
        f"{group}/{name}": tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        for group, named in checkpoint.tensors.items()
        for name, tensor in named.items()
    }


def history(folder: Path) -> list[dict[str, Any]]:
    """What the record says of every step, without what differs from life to life: seconds, and who resumed where."""
    kept = ("event", "step", "losses", "norms", "curves")
    lines = [line for line in read_record(folder / RECORD) if line["event"] in ("step", "evaluated")]
    return [{key: line[key] for key in kept if key in line} for line in lines]


def strays(folder: Path) -> list[str]:
    """Names in a run's folder that are neither its record nor a checkpoint."""
    return [entry.name for entry in folder.iterdir() if entry.name != RECORD and not entry.name.startswith("step-")]


def undisturbed(run: Run, folder: Path) -> Whole:
    """Let a run go to its end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    live(run, folder, disk=FaultyDisk())
    seconds = time.monotonic() - start
    calls = tuple((folder.parent / CALLS).read_text().split())
    return Whole(calls=calls, seconds=seconds, bits=final_bits(folder), history=history(folder))


def told_apart(run: Run, folder: Path, whole: Whole) -> bool:
    """Whether a run that forgets the optimiser's state at a resume ends in other bits, as it must."""
    shutil.rmtree(folder, ignore_errors=True)
    live(run, folder, disk=FaultyDisk(at=len(whole.calls) * 3 // 4, fault="kill"))
    live(run, folder, forget=True)
    return final_bits(folder) != whole.bits


def torture(run: Run, folder: Path, kills: Sequence[Kill], whole: Whole) -> dict[str, Any]:
    """Kill the run as asked, one life after another, let it finish, and compare it with the uninterrupted one."""
    shutil.rmtree(folder, ignore_errors=True)
    counts: Counter[str] = Counter(runs=1)
    for kill in kills:
        disk = DISK if kill.call is None else FaultyDisk(at=kill.call, fault="kill")
        if not live(run, folder, disk=disk, seconds=kill.seconds):
            break
        counts["kills"] += 1
        counts["kills at a time" if kill.call is None else "kills in a call"] += 1
        if folder.is_dir() and any(name.endswith(".new") for name in strays(folder)):
            counts["kills inside a checkpoint's write"] += 1
    live(run, folder)
    counts["runs with identical bits"] += final_bits(folder) == whole.bits
    counts["runs with an identical history"] += history(folder) == whole.history
    counts["stray files"] += len(strays(folder))
    counts["checkpoints beyond two"] += max(0, len(CheckpointStore(folder).steps()) - 2)
    return dict(counts)


def kills_of(index: int, whole: Whole, *, seed: int) -> list[Kill]:
    """Five lives: three that end in a call to the disk and two that end at a time, in random order."""
    draw = random.Random(f"{seed} {index}")
    kills = [Kill(call=draw.randrange(len(whole.calls) // 3)) for _ in range(3)]
    kills += [Kill(seconds=draw.uniform(0, whole.seconds / 2)) for _ in range(2)]
    draw.shuffle(kills)
    return kills


def outcomes(chosen: argparse.Namespace, runs: Sequence[tuple[Run, Whole]]) -> Iterator[dict[str, Any]]:
    """Counts and seconds of one tortured run after another, those of an earlier call that was interrupted first."""
    settings = {key: str(value) for key, value in vars(chosen).items()} | {"commit": environment()["commit"]}
    path = chosen.folder / "outcomes.jsonl"
    done = [line for line in read_record(path) if line["settings"] == settings] if path.exists() else []
    yield from done
    index, kills = len(done), sum(line["counts"].get("kills", 0) for line in done)
    with RunRecord(path) as record:
        while index < len(runs[0][1].calls) if chosen.every_call else kills < chosen.kills:
            run, whole = runs[0 if chosen.every_call else index % len(runs)]
            plan = [Kill(call=index)] if chosen.every_call else kills_of(index, whole, seed=chosen.seed)
            start = time.monotonic()
            counts = torture(run, chosen.folder / "run", plan[: max(1, chosen.kills - kills)], whole)
            if chosen.every_call and counts.get("kills"):
                counts[f"kills in {whole.calls[index]}"] = 1
            line = {"settings": settings, "counts": counts, "seconds": time.monotonic() - start}
            record.append(line)
            index, kills = index + 1, kills + counts.get("kills", 0)
            print(
                f"{index} runs, {kills} kills", end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True
            )
            yield line


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every-call", action="store_true", help="one kill at every call, instead of random ones")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"), help="for the runs; removed at the end")
    parser.add_argument("--output", type=Path, default=Path("results/soak.json"))
    return parser.parse_args()


def main() -> int:
    chosen = arguments()
    torch.set_num_threads(1)
    for room in ("tasks", "mixers"):
        discovery.registered(room)
    members = (1,) if chosen.every_call else (1, 3)
    shapes = [configs(steps=chosen.steps, every=chosen.every, members=number) for number in members]
    runs = [(run, undisturbed(run, chosen.folder / "whole")) for run in shapes]
    apart = [told_apart(run, chosen.folder / "control", whole) for run, whole in runs]
    counts: Counter[str] = Counter()
    seconds = 0.0
    for outcome in outcomes(chosen, runs):
        counts.update(outcome["counts"])
        seconds += outcome["seconds"]
    found = {**counts, "controls": len(apart), "controls told apart": sum(apart)}
    document = {
        "name": "soak",
        "command": " ".join(["python", *sys.argv]),
        "environment": environment(),
        "configurations": [[config.to_json() for config in run] for run in shapes],
        "calls of an uninterrupted run": [dict(Counter(whole.calls)) for _, whole in runs],
        "counts": found,
        "seconds": round(seconds, 1),
    }
    write_result(chosen.output, document)
    shutil.rmtree(chosen.folder)
    print("\n".join(f"{number:6d} {name}" for name, number in found.items()), file=sys.stderr)
    identical = found["runs"] == found["runs with identical bits"] == found["runs with an identical history"]
    clean = found["stray files"] == found["checkpoints beyond two"] == 0
    return 0 if identical and clean and all(apart) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with the next run", file=sys.stderr)
        sys.exit(130)
