"""How many model-steps a second a cohort of K models takes, beside a loop over K models apart.

    python benchmarks/cohorts.py                    # writes results/benchmarks/cohorts.json

A model-step is one whole training step of one model: episodes, forward, backward, clipping, AdamW. Three layers of
width 64 with two heads; d 20 with 41 points and d 5 with 11; batch 64 and 8. Both sides take turns, round by round, on
the same machine in the same dtype; the median round counts. The rate per second of processor time is beside it, since
neighbours on the machine disturb that one less.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModelConfig
from contexture.store.environment import environment
from contexture.store.results import write_result
from contexture.training.config import TaskChoice, TrainingConfig
from contexture.training.loop import Trainer

RESULT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "cohorts.json"
SIZES = ((20, 41), (5, 11))
BATCHES = (64, 8)
MEMBERS = (1, 8, 32)


def config(num_features: int, num_points: int, batch: int, *, seed: int) -> TrainingConfig:
    """One of the models."""
    return TrainingConfig(
        task=TaskChoice(name="linear-regression", settings={"num_features": num_features, "num_points": num_points}),
        model=PairsModelConfig(
            num_features=num_features, backbone=BackboneConfig(pattern="softmax*3", width=64, num_heads=2)
        ),
        steps=1000,
        batch=batch,
        block=batch,
        seed=seed,
    )


def seconds(trainers: list[Trainer], step: int) -> tuple[float, float]:
    """The time that one step of every trainer takes, by the wall's clock and by the processor's."""
    wall, processor = time.perf_counter(), time.process_time()
    for trainer in trainers:
        trainer.step(step)
    return time.perf_counter() - wall, time.process_time() - processor


def measure(num_features: int, num_points: int, batch: int, members: int, *, rounds: int) -> dict[str, Any]:
    """Model-steps per second as a cohort and one by one."""
    configs = [config(num_features, num_points, batch, seed=seed) for seed in range(members)]
    sides = {"cohort": [Trainer(configs)], "loop": [Trainer([one]) for one in configs]}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for step in range(rounds + 1):
        for name, trainers in sides.items():
            taken = seconds(trainers, step)
            if step:  # the first round fills caches and allocates the optimiser's state
                times[name].append(taken)
    row: dict[str, Any] = {"d": num_features, "points": num_points, "batch": batch, "members": members}
    for index, unit in enumerate(("per_second", "per_processor_second")):
        rates = {name: members / median(pair[index] for pair in taken) for name, taken in times.items()}
        row[f"model_steps_{unit}"] = {**rates, "gain": rates["cohort"] / rates["loop"]}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    print(f"{'threads':>7} {'d':>3} {'points':>6} {'batch':>5} {'K':>3} {'cohort':>8} {'loop':>8}  gain (processor)")
    for threads in dict.fromkeys(options.threads):
        torch.set_num_threads(threads)
        for num_features, num_points in SIZES:
            for batch in BATCHES:
                for members in MEMBERS:
                    row = {"threads": threads} | measure(
                        num_features, num_points, batch, members, rounds=options.rounds
                    )
                    rates, steadier = row["model_steps_per_second"], row["model_steps_per_processor_second"]
                    print(
                        f"{threads:>7} {num_features:>3} {num_points:>6} {batch:>5} {members:>3} "
                        f"{rates['cohort']:>8.1f} {rates['loop']:>8.1f}  {rates['gain']:.2f} ({steadier['gain']:.2f})",
                        flush=True,
                    )
                    rows.append(row)
    document = {
        "unit": "model-steps per second, median of rounds",
        "rounds": options.rounds,
        "model": "3 softmax layers, width 64, 2 heads, interleaved, fp32, AdamW",
        "rows": rows,
        "environment": environment(),
    }
    write_result(options.output, document)
    print(f"written to {options.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
