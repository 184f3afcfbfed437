"""What one further token costs on every path of every op: forward alone, with a carried state, on one thread.

    python benchmarks/one_token.py                  # writes results/benchmarks/one_token.json and prints a line each

Batch 2, 4 heads of 64, fp32; paths take turns, call by call, and the median of processor time counts. The ops that take
the definition's step for a single token (`contexture.ops.dispatch.STEPPED`) were read off here.
"""

import sys
import time
from pathlib import Path
from statistics import median

import torch

from contexture.ops import dispatch
from contexture.randomness import generator
from contexture.store.environment import environment
from contexture.store.results import write_result
from contexture.testing.ops import registered_ops

RESULT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "one_token.json"
TURNS, FIRST = 200, 20
"""Calls of each path, and those before them that do not count."""


def microseconds(op: dispatch.Op) -> dict[str, float]:
    """The median of every path in torch."""
    drawn = op.sample(generator("one token", op.name), batch=2, time=1, heads=4, dim=64)
    inputs = [x.float() if x.is_floating_point() else x for x in drawn]
    state = op.call(*inputs)[1]
    taken: dict[str, list[int]] = {path: [] for path in op.paths}
    for turn in range(FIRST + TURNS):
        for path, times in taken.items():
            with dispatch.use(path, op=op.name):
                began = time.process_time_ns()
                op.call(*inputs, initial_state=state)
                if turn >= FIRST:
                    times.append(time.process_time_ns() - began)
    return {path: round(median(times) / 1e3, 1) for path, times in taken.items()}


def main() -> int:
    """Measure every op, print and keep."""
    torch.set_num_threads(1)
    rows = {}
    with torch.no_grad():
        for name, op in registered_ops().items():
            rows[name] = microseconds(op)
            print(f"{name:26}", *(f"{path} {value:,.0f} us" for path, value in rows[name].items()), flush=True)
    shape = {"batch": 2, "heads": 4, "dim": 64, "dtype": "fp32", "threads": 1, "turns": TURNS}
    command = "python benchmarks/one_token.py"
    write_result(RESULT, {"command": command, "environment": environment(), "shape": shape, "microseconds": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
