"""What torch.compile makes of the mixers: every one through inductor, held to what it gives without, and timed beside.

    python benchmarks/compiled.py                          # writes results/benchmarks/compiled.json, row by row
    python benchmarks/compiled.py --only softmax,mamba-2   # measures these anew
    python benchmarks/compiled.py --table docs/measured/compiled.md

A mixer passes when inductor takes forward and backward as one graph, with packed sequences and without, whose outputs
and gradients are those of the mixer itself to 1e-10 in fp64. It is then timed at batch 2, 4 heads of 64 and 512
tokens in fp32 on one thread, forward with backward, compiled and not in turns: medians of processor time. Compilation
is the clock's time for the first forward and backward. Each mixer has a process of its own, which is ended after
`--limit` seconds. Rows that are there are kept, so that a run that was stopped goes on where it was.
"""

import argparse
import inspect
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from contexture.discovery import registered
from contexture.evaluation.speed import SHAPE
from contexture.randomness import generator
from contexture.store.environment import environment
from contexture.store.results import read_result, write_result
from contexture.testing.errors import LawError
from contexture.testing.mixers import MixerCase, law_compilation

RESULT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "compiled.json"
LENGTH, TURNS = 512, 5
Row = dict[str, Any]


def law(mixer: type[Any]) -> Row:
    """Whether inductor's graph gives what the mixer gives, and if not, why."""
    try:
        law_compilation(MixerCase(mixer=mixer), backend="inductor")
    except LawError as error:
        return {"held": False, "reason": str(error)}
    return {"held": True}


def step(model: nn.Module, x: Tensor, weight: Tensor) -> None:
    """Forward and backward."""
    leaves = [x, *(parameter for parameter in model.parameters() if parameter.requires_grad)]
    torch.autograd.grad((model(x) * weight).sum(), leaves, allow_unused=True)


def speed(mixer: type[Any]) -> Row:
    """Seconds of a step compiled and not, and of the compilation."""
    source = generator("compiled", LENGTH)
    longest = {"max_length": LENGTH} if "max_length" in inspect.signature(mixer).parameters else {}
    built = mixer(SHAPE.width, num_heads=SHAPE.num_heads, generator=source, **longest)
    x = torch.randn(SHAPE.batch, LENGTH, SHAPE.width, generator=source).requires_grad_()
    weight = torch.randn(x.shape, generator=source)
    torch._dynamo.reset()
    compiled = torch.compile(built, fullgraph=True)
    began = time.perf_counter()
    step(compiled, x, weight)
    compilation = time.perf_counter() - began
    taken: dict[str, list[float]] = {"eager": [], "compiled": []}
    for turn in range(TURNS + 1):
        for name, model in (("eager", built), ("compiled", compiled)):
            began = time.process_time()
            step(model, x, weight)
            if turn:
                taken[name].append(time.process_time() - began)
    seconds = {name: median(times) for name, times in taken.items()}
    return seconds | {"compilation": compilation, "times_faster": round(seconds["eager"] / seconds["compiled"], 2)}


def measured(name: str, answer: Connection, cache: str) -> None:
    """One mixer's row, sent part by part so that a step that takes too long costs no other."""
    warnings.simplefilter("ignore")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # an empty folder, so that nothing is compiled before it is timed
    torch._inductor.config.compile_threads = 1  # no process of inductor's own would outlive this one
    torch.set_num_threads(1)
    mixer = registered("mixers")[name]
    for part in (law, speed):
        try:
            answer.send(part(mixer))
        except Exception as fault:
            answer.send({"reason": f"{type(fault).__name__}: {str(fault).strip().splitlines()[0][:200]}"})
            break
    answer.close()


def row_of(name: str, limit: float) -> Row:
    """What a process of its own finds of a mixer within `limit` seconds."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    row: Row = {"mixer": name}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        process = context.Process(target=measured, args=(name, theirs, cache), daemon=False)
        process.start()
        theirs.close()
        end = time.monotonic() + limit
        try:
            while ours.poll(max(0.0, end - time.monotonic())):
                row |= ours.recv()
        except EOFError:
            return row
        finally:
            process.kill()
            process.join()
    return row | {"reason": f"took more than {limit:.0f} s"}


def table(document: Row) -> str:
    """The rows for a page."""
    lines = [
        f"{document['environment']['processor']}, torch {document['environment']['torch']}; `{document['command']}`",
        "",
        "| mixer | same results | not compiled, ms | compiled, ms | times faster | compilation, s |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in sorted(document["rows"], key=lambda one: -one.get("times_faster", 0)):
        same = "yes" if row.get("held") else "no" if "held" in row else "-"
        if "times_faster" in row:
            times = f"{1e3 * row['eager']:.1f} | {1e3 * row['compiled']:.1f} | {row['times_faster']:.2f}"
            lines.append(f"| {row['mixer']} | {same} | {times} | {row['compilation']:.0f} |")
        else:
            lines.append(f"| {row['mixer']} | {same} | - | - | - | {row.get('reason', '')} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure what is not there yet, or what is named; exit status 1 if a graph gave other results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="mixers to measure anew, with commas between")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one mixer")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--table", type=Path, help="write the table for a page, and measure nothing")
    options = parser.parse_args()
    if options.table:
        options.table.write_text(table(read_result(options.output)), encoding="utf-8")
        return 0
    causal = [name for name, mixer in registered("mixers").items() if mixer.card.causal]
    rows: dict[str, Row] = {}
    if options.output.exists():
        rows = {row["mixer"]: row for row in read_result(options.output)["rows"] if row["mixer"] in causal}
    names = options.only.split(",") if options.only else [name for name in causal if name not in rows]
    if unknown := [name for name in names if name not in causal]:
        parser.error(f"no causal mixer is named {', '.join(unknown)}")
    said = {"benchmark": "torch.compile with inductor", "unit": "seconds", "command": "python benchmarks/compiled.py"}
    for number, name in enumerate(names, start=1):
        rows[name] = row_of(name, options.limit)
        print(f"[{number}/{len(names)}]", json.dumps(rows[name]), file=sys.stderr, flush=True)
        ordered = [rows[one] for one in causal if one in rows]
        write_result(options.output, {**said, "environment": environment(), "rows": ordered})
    return int(any(not row.get("held", True) for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
