"""Our ops beside the torch forms that other packages run on a CPU: forward with backward, one and two threads.

    pip install transformers flash-linear-attention      # in an environment of their own, which sees this package too
    python benchmarks/peers.py                           # writes results/benchmarks/peers.json and prints a table
    python benchmarks/peers.py --threads 2 --keep        # measures these rows anew, and keeps the others of the file

Batch 2, 4 heads of 64 (the scan: 512 channels of 16 states), in fp32 and bf16; both sides get the same inputs in the
same dtype, and must agree in fp32 before they are timed. Both sides take turns, call by call; the median counts, of
processor time on one thread and of the clock on two, and the ratio is of medians. Peers, by name and version:

    transformers              torch_chunk_gated_delta_rule, mamba_selective_scan (sequential), mamba2_chunk_scan
    flash-linear-attention    delta_rule_chunkwise, naive_chunk_gated_delta_rule, naive_chunk_linear_attn,
                              naive_chunk_simple_gla
    torch                     scaled_dot_product_attention

A form is left out where it would take minutes, or where it does not take the dtype.
"""

import argparse
import inspect
import json
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.ops.decayed_linear_attention import decayed_linear_attention
from contexture.ops.delta_rule import delta_rule
from contexture.ops.gated_delta_rule import gated_delta_rule
from contexture.ops.linear_attention import linear_attention
from contexture.ops.selective_scan import selective_scan
from contexture.ops.softmax_attention import softmax_attention
from contexture.store.environment import environment
from contexture.store.results import write_result

RESULT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "peers.json"
BATCH, HEADS, DIM, STATES = 2, 4, 64, 16
LENGTHS = (512, 2048, 8192)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Form = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Our form and a peer's of the same mathematics, what they are given, and the longest sequence of the peer."""

    op: str
    peer: str
    ours: Form
    theirs: Form
    inputs: Callable[[torch.Generator, int], list[Tensor]]
    longest: int = 8192


def heads(source: torch.Generator, length: int) -> list[Tensor]:
    """q, k of length one and v."""
    q, k, v = (torch.randn(BATCH, length, HEADS, DIM, generator=source) for _ in range(3))
    return [q, F.normalize(k, dim=-1), v]


def rates(source: torch.Generator, length: int) -> Tensor:
    return torch.rand(BATCH, length, HEADS, generator=source)


def decays(source: torch.Generator, length: int) -> Tensor:
    return F.logsigmoid(2 + torch.randn(BATCH, length, HEADS, generator=source))


def with_rate(source: torch.Generator, length: int) -> list[Tensor]:
    return [*heads(source, length), rates(source, length)]


def with_decay(source: torch.Generator, length: int) -> list[Tensor]:
    return [*heads(source, length), decays(source, length)]


def with_both(source: torch.Generator, length: int) -> list[Tensor]:
    return [*with_rate(source, length), decays(source, length)]


def scanned(source: torch.Generator, length: int) -> list[Tensor]:
    """x, dt, A, B, C of a selective scan over as many channels as the heads hold twice."""
    channels = 2 * HEADS * DIM
    x = torch.randn(BATCH, length, channels, generator=source)
    dt = F.softplus(torch.randn(BATCH, length, channels, generator=source) - 3)
    rate = -torch.arange(1.0, STATES + 1).expand(channels, STATES).clone()
    write, read = (torch.randn(BATCH, length, STATES, generator=source) for _ in range(2))
    return [x, dt, rate, write, read]


def mamba_2(source: torch.Generator, length: int) -> list[Tensor]:
    """x, dt, log-rates, B and C of one group, as Mamba-2 shares them between heads."""
    x = torch.randn(BATCH, length, HEADS, DIM, generator=source)
    dt = F.softplus(torch.randn(BATCH, length, HEADS, generator=source) - 2)
    write, read = (torch.randn(BATCH, length, 1, DIM, generator=source) for _ in range(2))
    return [x, dt, -torch.arange(1.0, HEADS + 1), write, read]


def our_mamba_2(x: Tensor, dt: Tensor, rate: Tensor, write: Tensor, read: Tensor) -> Tensor:
    keys, queries = (part.expand(-1, -1, HEADS, -1) for part in (write, read))
    return decayed_linear_attention(queries, keys, x * dt.unsqueeze(-1), rate * dt)[0]


def pairs() -> list[Pair]:
    """Every comparison; imports the peers."""
    from fla.ops.delta_rule.naive import delta_rule_chunkwise
    from fla.ops.gated_delta_rule.naive import naive_chunk_gated_delta_rule
    from fla.ops.linear_attn.naive import naive_chunk_linear_attn
    from fla.ops.simple_gla.naive import naive_chunk_simple_gla
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

    # With flash-linear-attention beside it, transformers would call that package's GPU kernels even here.
    chunk_gated_delta_rule = inspect.unwrap(torch_chunk_gated_delta_rule)
    scale = DIM**-0.5

    def sdpa(*x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in x), is_causal=True).transpose(1, 2)

    def chunkwise(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in (q / scale, k, v))
        return delta_rule_chunkwise(q, k, v, beta.transpose(1, 2))[0].transpose(1, 2)

    def scan(x: Tensor, dt: Tensor, rate: Tensor, write: Tensor, read: Tensor) -> Tensor:
        x, dt, write, read = (part.mT for part in (x, dt, write, read))
        return mamba_selective_scan(x, dt, rate, write, read).mT

    return [
        Pair(op="softmax-attention", peer="torch: scaled_dot_product_attention", theirs=sdpa, inputs=heads,
             ours=lambda *x: softmax_attention(*x)[0]),
        Pair(op="linear-attention", peer="flash-linear-attention: naive_chunk_linear_attn", inputs=heads,
             ours=lambda *x: linear_attention(*x)[0], theirs=lambda *x: _first(naive_chunk_linear_attn(*x, scale=1.0))),
        Pair(op="decayed-linear-attention", peer="flash-linear-attention: naive_chunk_simple_gla", inputs=with_decay,
             ours=lambda *x: decayed_linear_attention(*x)[0],
             theirs=lambda *x: _first(naive_chunk_simple_gla(*x, scale=1.0)), longest=2048),
        Pair(op="delta-rule", peer="flash-linear-attention: delta_rule_chunkwise", inputs=with_rate,
             ours=lambda *x: delta_rule(*x)[0], theirs=chunkwise, longest=2048),
        Pair(op="gated-delta-rule", peer="flash-linear-attention: naive_chunk_gated_delta_rule", inputs=with_both,
             ours=lambda *x: gated_delta_rule(*x)[0],
             theirs=lambda q, k, v, beta, g: _first(naive_chunk_gated_delta_rule(q, k, v, g, beta, scale=1.0))),
        Pair(op="gated-delta-rule", peer="transformers: torch_chunk_gated_delta_rule", inputs=with_both,
             ours=lambda *x: gated_delta_rule(*x)[0],
             theirs=lambda q, k, v, beta, g: chunk_gated_delta_rule(q / scale, k, v, g, beta)[0]),
        Pair(op="mamba-2", peer="transformers: mamba2_chunk_scan", inputs=mamba_2, ours=our_mamba_2,
             theirs=lambda x, dt, rate, write, read: mamba2_chunk_scan(x, dt, rate, write, read, chunk_size=256)),
        Pair(op="selective-scan", peer="transformers: mamba_selective_scan", inputs=scanned, theirs=scan,
             ours=lambda x, dt, rate, write, read: selective_scan(x, dt, rate[None], write, read)[0], longest=512),
    ]  # fmt: skip


def _first(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def disagreement(pair: Pair) -> float:
    """The relative difference of the two forms on 128 tokens in fp32."""
    drawn = pair.inputs(torch.Generator().manual_seed(1), 128)
    with torch.no_grad():
        ours, theirs = pair.ours(*drawn), pair.theirs(*drawn)
    return float((ours - theirs).norm() / theirs.norm())


def in_turns(forms: Sequence[Callable[[], object]], *, threads: int, budget: float = 3.0) -> list[float]:
    """The median milliseconds of each form, all taking turns for about `budget` seconds each, three times at least."""
    clock = time.process_time if threads == 1 else time.perf_counter
    taken: list[list[float]] = [[] for _ in forms]
    for form in forms:
        form()
    while len(taken[0]) < 3 or (sum(taken[0]) < budget and len(taken[0]) < 15):
        for form, times in zip(forms, taken, strict=True):
            began = clock()
            form()
            times.append(clock() - began)
    return [1e3 * median(times) for times in taken]


def step(form: Form, drawn: Sequence[Tensor]) -> Callable[[], object]:
    """Forward and backward of one form."""
    leaves = [x.clone().requires_grad_() for x in drawn]
    with torch.no_grad():
        weight = torch.randn_like(form(*drawn))
    return lambda: torch.autograd.grad(form(*leaves), leaves, weight)


def measure(pair: Pair, length: int, dtype: str, threads: int) -> dict[str, Any]:
    """One row of the table."""
    drawn = [x.to(DTYPES[dtype]) for x in pair.inputs(torch.Generator().manual_seed(0), length)]
    row: dict[str, Any] = {"op": pair.op, "peer": pair.peer, "length": length, "dtype": dtype, "threads": threads}
    try:
        ours, theirs = in_turns([step(pair.ours, drawn), step(pair.theirs, drawn)], threads=threads)
    except RuntimeError as refusal:
        return {**row, "left_out": str(refusal).splitlines()[0]}
    return {**row, "ours_ms": round(ours, 2), "peer_ms": round(theirs, 2), "times_faster": round(theirs / ours, 2)}


def joined(before: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows, measured anew where they were, in the table's order."""
    kinds = [(pair.op, pair.peer) for pair in pairs()]

    def place(row: dict[str, Any]) -> tuple[int, int, int, int]:
        return kinds.index((row["op"], row["peer"])), row["threads"], row["length"], list(DTYPES).index(row["dtype"])

    known = {place(row): row for row in (*before, *rows)}
    return [known[key] for key in sorted(known)]


def markdown(rows: Sequence[dict[str, Any]], versions: dict[str, str], command: str) -> str:
    """A table for a page of the documentation: one line for each op, peer, length and number of threads."""
    headings = ("op", "peer", "tokens", "threads", "dtype", "ours, ms", "peer, ms", "times faster")
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    for row in rows:
        measured = (row.get("ours_ms", "-"), row.get("peer_ms", "-"), row.get("times_faster", row.get("left_out")))
        cells = (row["op"], row["peer"], f"{row['length']:,}", row["threads"], row["dtype"], *measured)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    machine = environment()
    held = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{machine['processor']}; {held}; `{command}`\n\n" + "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Measure everything, print a line each, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longest", type=int, default=8192, help="leave out longer sequences")
    parser.add_argument("--only", nargs="+", help="these ops alone")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--keep", action="store_true", help="keep the rows of the output that are not measured anew")
    parser.add_argument("--markdown", type=Path, help="write the table for a page")
    chosen = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for pair in pairs():
        if chosen.only and pair.op not in chosen.only:
            continue
        assert disagreement(pair) < 1e-4, f"{pair.peer} is not {pair.op}"
        for threads in chosen.threads:
            torch.set_num_threads(threads)
            for length in (n for n in LENGTHS if n <= min(pair.longest, chosen.longest)):
                for dtype in chosen.dtype:
                    rows.append(measure(pair, length, dtype, threads))
                    print(*rows[-1].values(), sep="\t", file=sys.stderr, flush=True)
    command = shlex.join(["python", "benchmarks/peers.py", *(sys.argv[1:] if arguments is None else arguments)])
    if chosen.keep:
        before = json.loads(chosen.output.read_text(encoding="utf-8"))
        rows, command = joined(before["rows"], rows), f"{before['command']} && {command}"
    versions = {name: metadata.version(name) for name in ("transformers", "flash-linear-attention", "torch")}
    said = {
        "benchmark": "ops beside other packages",
        "unit": "milliseconds, forward and backward: of processor time on one thread, of the clock on two",
        "shape": {"batch": BATCH, "heads": HEADS, "dim": DIM},
        "versions": versions,
        "command": command,
    }
    if chosen.markdown:
        chosen.markdown.write_text(markdown(rows, versions, command), encoding="utf-8")
    write_result(chosen.output, {**said, "environment": environment(), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
