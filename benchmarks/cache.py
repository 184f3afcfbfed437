"""What is gained by keeping to a core's cache: the forms that are used beside what they replaced, in turns, in one run.

    python benchmarks/cache.py                     # writes results/benchmarks/cache.json and prints a line each

Batch 2, 4 heads of 64, fp32, one thread, forward and backward, medians of processor time.

    atlas per token     512 tokens: the Newton-Schulz gradient written out, beside automatic differentiation; and the
                        share of the rate of batched 64 x 64 products that each reaches, 45 of them a token and head
    averages            32,768 tokens: `exponential_average` and `windowed_average` (window 32) in parts, beside whole
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from contexture.ops import chunks, inner_steps
from contexture.ops.atlas import OP as ATLAS
from contexture.ops.atlas import atlas
from contexture.ops.exponential_average import exponential_average
from contexture.ops.newton_schulz import orthogonalised
from contexture.ops.windowed_average import windowed_average
from contexture.randomness import generator
from contexture.store.environment import environment
from contexture.store.results import write_result

RESULT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "cache.json"
BATCH, HEADS, DIM, WINDOW = 2, 4, 64, 32
PRODUCTS = 45
"""64 x 64 products of a token and head: fifteen forward, ten again and twenty more backward."""


@contextmanager
def held(place: Any, name: str, value: object) -> Iterator[None]:
    """An attribute with another value."""
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def step(call: Callable[..., Tensor], drawn: list[Tensor]) -> Callable[[], object]:
    """Forward and backward."""
    leaves = [x.float().requires_grad_() for x in drawn]
    with torch.no_grad():
        weight = torch.randn_like(call(*leaves))
    return lambda: torch.autograd.grad(call(*leaves), leaves, weight)


def in_turns(new: Callable[[], object], old: Callable[[], object], place: Any, name: str, value: object) -> list[float]:
    """Median seconds of the form in use, and of the one that it replaced, which `value` in `place` brings back."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(4):
        for call, times, restored in ((new, taken[0], False), (old, taken[1], True)):
            with held(place, name, value if restored else getattr(place, name)):
                began = time.process_time()
                call()
                if turn:
                    times.append(time.process_time() - began)
    return [median(times) for times in taken]


def product_rate() -> float:
    """Floating-point operations a second of batches of 64 x 64 products."""
    x, y = torch.randn(2, 128, DIM, DIM)
    taken = []
    for _ in range(60):
        began = time.process_time()
        torch.bmm(x, y)
        taken.append(time.process_time() - began)
    return 128 * 2 * DIM**3 / median(taken)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    source, rows = generator("cache"), list[dict[str, Any]]()

    drawn = list(ATLAS.sample(source, batch=BATCH, time=512, heads=HEADS, dim=DIM))
    call = step(lambda *x: atlas(*x, every="token")[0], drawn)
    used, replaced = in_turns(call, call, inner_steps, "orthogonalised_lean", orthogonalised)
    work, rate = 512 * BATCH * HEADS * PRODUCTS * 2 * DIM**3, product_rate()
    shares = {"share_of_products": round(work / used / rate, 2), "share_before": round(work / replaced / rate, 2)}
    rows.append({"op": "atlas", "every": "token", "length": 512, "seconds": used, "seconds_before": replaced, **shares})

    k, v = (torch.randn(BATCH, 32768, HEADS, DIM, generator=source) for _ in range(2))
    bias = torch.randn(1, 1, HEADS, WINDOW, generator=source)
    averages: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
        "exponential-average": (lambda *x: exponential_average(*x)[0], [k, v]),
        "windowed-average": (lambda *x: windowed_average(*x)[0], [k, v, bias]),
    }
    for op, (form, inputs) in averages.items():
        call = step(form, inputs)
        used, replaced = in_turns(call, call, chunks, "PART", sys.maxsize)
        rows.append({"op": op, "length": 32768, "seconds": used, "seconds_before": replaced})
    for row in rows:
        row["times_faster"] = round(row["seconds_before"] / row["seconds"], 2)
        print(*row.items(), file=sys.stderr)
    said = {"benchmark": "keeping to a core's cache", "unit": "seconds of processor time", "product_flops": rate}
    write_result(options.output, {**said, "environment": environment(), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
