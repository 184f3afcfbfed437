"""How long ops take, forward and forward with backward, beside plain torch forms of the same mathematics.

    python benchmarks/mixers.py                     # writes results/benchmarks/mixers.json

Batch 2, 4 heads of 64 at lengths 512, 2,048 and 8,192, on one thread, and the shapes at which small in-context models
train: batch 64 at lengths 50 and 82. The table of paths in contexture.ops.dispatch was read off here. Both sides get
the same inputs in the same dtype; the median of several calls counts, in milliseconds of processor time, which a busy
machine disturbs least.

The plain forms: `products` is softmax over an explicit table of scores; `sliced` cuts chunks out of the sequence in a
Python loop, where the gradient of every slice is a full-length tensor; `substituted` inverts each chunk's triangle row
by row besides. `sequential` goes one step after another, `sliced` cutting each step out of tables of decays for all
steps, `unbound` taking them apart at once; `solved` is one least-squares solve per token, all at once. Forms are left
out where they would take minutes. The selective scan has as many channels as all heads together, with 16 numbers of
state each.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture import ops
from contexture.ops.decayed_linear_attention import decayed_linear_attention
from contexture.ops.delta_rule import delta_rule
from contexture.ops.gated_delta_rule import gated_delta_rule
from contexture.ops.gated_linear_attention import gated_linear_attention
from contexture.ops.linear_attention import linear_attention
from contexture.ops.mesa import mesa
from contexture.ops.selective_scan import selective_scan
from contexture.ops.softmax_attention import softmax_attention
from contexture.store.environment import environment
from contexture.store.results import write_result

RESULT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "mixers.json"
SHAPES = ((64, 50, 4, 16), (64, 82, 8, 32), (2, 512, 4, 64), (2, 2048, 4, 64), (2, 8192, 4, 64))
"""Batch, length, heads and the size of a head."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CHUNK = 64


def products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention with the table of scores written out."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    hidden = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(hidden, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's fused attention, whatever the dtype."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def sliced_linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear attention, chunk after chunk."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    state, outputs = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1], dtype=q.dtype), []
    for start in range(0, q.shape[2], CHUNK):
        one, two, three = (x[:, :, start : start + CHUNK] for x in (q, k, v))
        outputs.append(one @ state + (one @ two.mT).tril() @ three)
        state = state + two.mT @ three
    return torch.cat(outputs, 2).transpose(1, 2)


def substituted_delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None = None) -> Tensor:
    """Both delta rules in chunks, with forward substitution row by row and slices in the loop over chunks."""
    dtype, length = v.dtype, v.shape[1]
    state = torch.zeros(len(q), q.shape[2], q.shape[-1], v.shape[-1])
    rest = -length % CHUNK
    q, k, v = (F.pad(x.float().transpose(1, 2), (0, 0, 0, rest)) for x in (q, k, v))
    rate = F.pad(beta.float().mT, (0, rest)).unsqueeze(-1)
    queries, keys, values, rate = (torch.unflatten(x, 2, (-1, CHUNK)) for x in (q, k, v, rate))
    total = torch.zeros_like(rate)
    if g is not None:
        total = torch.unflatten(F.pad(g.float().mT, (0, rest)).unsqueeze(-1), 2, (-1, CHUNK)).cumsum(-2)
    decay = (total - total.mT).tril().exp().tril()
    inverse = -((keys * rate) @ keys.mT * decay).tril(-1)
    for row in range(1, CHUNK):
        inverse[..., row, :row] += (inverse[..., row, :, None].clone() * inverse[..., :, :row].clone()).sum(-2)
    inverse = inverse + torch.eye(CHUNK)
    news, erasers = inverse @ (values * rate), inverse @ (keys * rate * total.exp())
    outputs = []
    for n in range(queries.shape[2]):
        one, two, sum_n = queries[:, :, n], keys[:, :, n], total[:, :, n]
        delta = news[:, :, n] - erasers[:, :, n] @ state
        outputs.append((one * sum_n.exp()) @ state + (one @ two.mT * decay[:, :, n]) @ delta)
        last = sum_n[:, :, -1:]
        state = state * last.exp() + (two * (last - sum_n).exp()).mT @ delta
    return torch.cat(outputs, 2)[:, :, :length].transpose(1, 2).to(dtype)


def sliced_decays(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """Linear attention with one decay per head, chunk after chunk."""
    dtype = v.dtype
    q, k, v = (x.float().transpose(1, 2) for x in (q, k, v))
    state, outputs = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1]), []
    for start in range(0, q.shape[2], CHUNK):
        one, two, three = (x[:, :, start : start + CHUNK] for x in (q, k, v))
        total = g.float().mT[:, :, start : start + CHUNK].cumsum(-1).unsqueeze(-1)
        within = (total - total.mT).tril().exp().tril()
        outputs.append((one * total.exp()) @ state + ((one @ two.mT) * within) @ three)
        last = total[:, :, -1:]
        state = state * last.exp() + (two * (last - total).exp()).mT @ three
    return torch.cat(outputs, 2).transpose(1, 2).to(dtype)


def sliced_gates(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """Linear attention with one decay per channel, chunk after chunk of 16, every pair's decays written out."""
    dtype = v.dtype
    q, k, v, g = (x.float().transpose(1, 2) for x in (q, k, v, g))
    state, outputs, size = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1]), [], CHUNK // 4
    for start in range(0, q.shape[2], size):
        one, two, three, gates = (x[:, :, start : start + size] for x in (q, k, v, g))
        total = gates.cumsum(-2)
        between = (total.unsqueeze(-2) - total.unsqueeze(-3)).clamp(max=0).exp()
        scores = torch.einsum("bhid,bhjd,bhijd->bhij", one, two, between).tril()
        outputs.append((one * total.exp()) @ state + scores @ three)
        last = total[:, :, -1:]
        state = state * last.exp().mT + (two * (last - total).exp()).mT @ three
    return torch.cat(outputs, 2).transpose(1, 2).to(dtype)


def sequential_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, unbound: bool) -> Tensor:
    """The selective scan step by step, with the tables of decays and of what is added for all steps."""
    dtype = x.dtype
    x, dt, A, B, C = (part.float() for part in (x, dt, A, B, C))
    decays = torch.exp(A.unsqueeze(1) * dt.unsqueeze(-1))
    added = (dt * x).unsqueeze(-1) * B.unsqueeze(2)
    state, outputs = torch.zeros_like(decays[:, 0]), []
    steps = zip(decays.unbind(1), added.unbind(1), strict=True) if unbound else None
    for t in range(x.shape[1]):
        decay, one = next(steps) if steps else (decays[:, t], added[:, t])
        state = decay * state + one
        outputs.append(state if unbound else (state @ C[:, t].unsqueeze(-1)).squeeze(-1))
    out = torch.stack(outputs, 1)
    return ((out @ C.unsqueeze(-1)).squeeze(-1) if unbound else out).to(dtype)


def solved_mesa(q: Tensor, k: Tensor, v: Tensor, ridge: Tensor) -> Tensor:
    """The mesa layer with the matrices of all steps in memory."""
    dtype, (q, k, v) = v.dtype, (x.float() for x in (q, k, v))
    keys = (k.unsqueeze(-1) * k.unsqueeze(-2)).cumsum(1) + torch.diag_embed(ridge.float()).unsqueeze(1)
    products = (k.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(1)
    return torch.einsum("bthd,bthde->bthe", torch.linalg.solve(keys, q.unsqueeze(-1)).squeeze(-1), products).to(dtype)


FORMS: dict[str, dict[str, tuple[Callable[..., Tensor], int]]] = {
    "softmax-attention": {
        "contexture": (lambda *x: softmax_attention(*x)[0], 8192),
        "sdpa": (sdpa, 8192),
        "products": (products, 2048),
    },
    "linear-attention": {
        "contexture": (lambda *x: linear_attention(*x)[0], 8192),
        "sliced": (sliced_linear_attention, 8192),
    },
    "delta-rule": {
        "contexture": (lambda *x: delta_rule(*x)[0], 8192),
        "substituted": (substituted_delta_rule, 8192),
    },
    "decayed-linear-attention": {
        "contexture": (lambda *x: decayed_linear_attention(*x)[0], 8192),
        "sliced": (sliced_decays, 8192),
    },
    "gated-linear-attention": {
        "contexture": (lambda *x: gated_linear_attention(*x)[0], 8192),
        "sliced": (sliced_gates, 2048),
    },
    "selective-scan": {
        "contexture": (lambda *x: selective_scan(*x)[0], 8192),
        "sequential, sliced": (lambda *x: sequential_scan(*x, unbound=False), 64),
        "sequential, unbound": (lambda *x: sequential_scan(*x, unbound=True), 2048),
    },
    "gated-delta-rule": {
        "contexture": (lambda *x: gated_delta_rule(*x)[0], 8192),
        "substituted": (substituted_delta_rule, 8192),
    },
    "mesa": {
        "contexture": (lambda *x: mesa(*x)[0], 8192),
        "solved": (solved_mesa, 512),
    },
}
"""Every form of every op, and the greatest length at which it is measured."""


def inputs(op: str, shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Random queries, keys of length one and values; rates, log-decays or penalties of one; or a scan's settings."""
    generator = torch.Generator().manual_seed(0)
    if op == "selective-scan":
        channels, size = shape[2] * shape[3], 16
        x, dt = (torch.randn(*shape[:2], channels, generator=generator) for _ in range(2))
        write, read = (torch.randn(*shape[:2], size, generator=generator) for _ in range(2))
        rates = -torch.arange(1.0, size + 1).expand(1, channels, size)
        return [part.to(dtype) for part in (x, F.softplus(dt - 4), rates, write, read)]
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    drawn = [q, F.normalize(k, dim=-1), v]
    if op in ("delta-rule", "gated-delta-rule"):
        drawn.append(torch.rand(shape[:3], generator=generator))
    if op in ("decayed-linear-attention", "gated-linear-attention"):
        drawn.append(-torch.rand(shape if op.startswith("gated") else shape[:3], generator=generator))
    if op == "gated-delta-rule":
        drawn.append(-torch.rand(shape[:3], generator=generator))
    if op == "mesa":
        drawn.append(torch.ones(1, *shape[2:]))
    return [x.to(dtype) for x in drawn]


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """The median processor time of `call` after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return 1e3 * median(times)


def measure(form: Callable[..., Tensor], drawn: list[Tensor], *, repeats: int) -> dict[str, float]:
    """Forward alone, and forward with backward."""
    with torch.no_grad():
        forward = milliseconds(lambda: form(*drawn), repeats)
        gradient = torch.ones_like(form(*drawn))
    leaves = [x.clone().requires_grad_() for x in drawn]
    both = milliseconds(lambda: torch.autograd.grad(form(*leaves), leaves, gradient), repeats)
    return {"forward": round(forward, 2), "forward_backward": round(both, 2)}


def agreement(op: str, name: str) -> float:
    """The relative error of a plain form against the op's reference at a short length, in fp64."""
    drawn = inputs(op, (2, 2 * CHUNK, 2, 16), torch.float64)
    with ops.use("reference"), torch.no_grad():
        expected = FORMS[op]["contexture"][0](*drawn)
    with torch.no_grad():
        got = FORMS[op][name][0](*drawn)
    return float((got.double() - expected).norm() / expected.norm())


def main(arguments: list[str] | None = None) -> int:
    """Measure everything, print a line each, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longest", type=int, default=8192, help="leave out longer sequences")
    parser.add_argument("--op", choices=FORMS, action="append", help="measure only this op, and the others so named")
    parser.add_argument("--output", type=Path, default=RESULT)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for op in chosen.op or FORMS:
        forms = FORMS[op]
        for name in forms:
            assert name == "contexture" or agreement(op, name) < 1e-5, f"{name} is not {op}"
        for shape in SHAPES:
            for dtype_name, dtype in DTYPES.items():
                drawn = inputs(op, shape, dtype)
                for name, (form, longest) in forms.items():
                    if shape[1] > min(longest, chosen.longest):
                        continue
                    measured = measure(form, drawn, repeats=max(3, min(15, 8192 // shape[1])))
                    rows.append({"op": op, "form": name, "shape": list(shape), "dtype": dtype_name, **measured})
                    print(*rows[-1].values(), sep="\t", file=sys.stderr, flush=True)
    said = {"unit": "milliseconds of processor time", "shape": ["batch", "length", "heads", "dim"]}
    write_result(chosen.output, {"benchmark": "mixers", **said, "environment": environment(), "rows": rows})
    print(f"written to {chosen.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
