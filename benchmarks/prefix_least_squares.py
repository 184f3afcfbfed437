"""Least squares on every prefix of a batch of episodes, beside a loop over prefixes of torch.linalg.lstsq.

    python benchmarks/prefix_least_squares.py [--json PATH]

1,024 episodes, d 20, 41 points, noise 0.5, fp64. Ours is `prefix_least_squares`; the loops call
`torch.linalg.lstsq(x[:, :n], y[:, :n, None], driver=...)` for n = 1 .. 41 with the drivers gelsd and gelsy. All give
the weights of every prefix. The sides take turns of at least 0.3 seconds, round by round, on the same tensors; the
median round counts. Time of the processor is beside it, since neighbours on the machine disturb that one less.
Agreement is with gelsd, relative to the length of the weights, over all prefixes whose condition number is at most
10^4.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from contexture.learners.classical.prefix_least_squares import prefix_least_squares
from contexture.randomness import generator
from contexture.store.environment import environment
from contexture.store.results import write_result

DRIVERS = ("gelsd", "gelsy")
FLOORS = {"gelsd": 20.0, "gelsy": 12.0}
LARGEST_CONDITION, LARGEST_DIFFERENCE = 1e4, 1e-8
TURN = 0.3


def episodes(batch: int, features: int, points: int) -> tuple[Tensor, Tensor]:
    """Noisy linear regression."""
    draw = generator(0, "prefix least squares")
    x = torch.randn(batch, points, features, generator=draw, dtype=torch.float64)
    w = torch.randn(batch, features, generator=draw, dtype=torch.float64)
    noise = torch.randn(batch, points, generator=draw, dtype=torch.float64)
    return x, torch.einsum("btd,bd->bt", x, w) + 0.5 * noise


def loop(x: Tensor, y: Tensor, driver: str) -> list[Tensor]:
    """The weights of every prefix, one call each."""
    return [torch.linalg.lstsq(x[:, :n], y[:, :n, None], driver=driver).solution for n in range(1, x.shape[1] + 1)]


def per_call(side: Callable[[], object]) -> tuple[float, float]:
    """Seconds per call, by the wall's clock and by the processor's, over a turn of at least `TURN` seconds."""
    wall, processor, calls = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < TURN:
        side()
        calls += 1
    return (time.perf_counter() - wall) / calls, (time.process_time() - processor) / calls


def measure(sides: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of every side, by the wall's clock and by the processor's."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            taken = per_call(side)
            if turn:  # the first round fills caches
                times[name].append(taken)
    return {
        name: {
            unit: 1e3 * median(pair[index] for pair in taken) for index, unit in enumerate(("wall_ms", "processor_ms"))
        }
        for name, taken in times.items()
    }


def agreement(x: Tensor, y: Tensor) -> dict[str, float]:
    """The largest relative difference from gelsd where the rows are well conditioned, and the share of these."""
    ours = prefix_least_squares(x, y)[:, 1:]
    theirs = torch.stack(loop(x, y, "gelsd"), dim=1)[..., 0]
    condition = torch.stack([torch.linalg.cond(x[:, :n]) for n in range(1, x.shape[1] + 1)], dim=1)
    difference = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)
    good = condition <= LARGEST_CONDITION
    return {"difference": float(difference[good].max()), "share_of_prefixes": float(good.double().mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--points", type=int, default=41)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x, y = episodes(options.batch, options.features, options.points)
    sides: dict[str, Callable[[], object]] = {"prefix_least_squares": lambda: prefix_least_squares(x, y)}
    for driver in DRIVERS:
        sides[driver] = partial(loop, x, y, driver)
    taken = measure(sides, rounds=options.rounds)
    ours = taken["prefix_least_squares"]
    document: dict[str, Any] = {
        "unit": "milliseconds, median of rounds",
        "batch": options.batch,
        "d": options.features,
        "points": options.points,
        "dtype": "float64",
        "rounds": options.rounds,
        "times": taken,
        "times_faster": {driver: {unit: taken[driver][unit] / ours[unit] for unit in ours} for driver in DRIVERS},
        "agreement": agreement(x, y),
        "environment": environment(),
    }
    report(document)
    if options.json:
        write_result(options.json, document)


def report(document: dict[str, Any]) -> None:
    """Print machine, versions, medians, ratios and agreement."""
    here = document["environment"]
    print(f"{here['processor']}, {here['threads']} thread(s), torch {here['torch']}, {here['instructions']}")
    print(f"{'':<21} {'wall ms':>9} {'cpu ms':>9}  times faster, wall (cpu)")
    for name, taken in document["times"].items():
        line = f"{name:<21} {taken['wall_ms']:>9.1f} {taken['processor_ms']:>9.1f}"
        if name in FLOORS:
            gain = document["times_faster"][name]
            line += f"  {gain['wall_ms']:.1f} ({gain['processor_ms']:.1f}), at least {FLOORS[name]:.0f} asked"
        print(line)
    seen = document["agreement"]
    share = 100 * seen["share_of_prefixes"]
    print(
        f"largest relative difference from gelsd: {seen['difference']:.1e} ({LARGEST_DIFFERENCE:.0e} allowed) on the "
        f"{share:.1f} % of prefixes with a condition number of at most {LARGEST_CONDITION:.0e}"
    )


if __name__ == "__main__":
    main()
