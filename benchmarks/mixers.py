"""How long ops take, forward and forward with backward, beside plain torch forms of the same mathematics.

    python benchmarks/mixers.py                     # writes results/benchmarks/mixers.json

Batch 2, 4 heads of 64 at lengths 512, 2,048 and 8,192, on one thread, and the shapes at which small in-context models
train: batch 64 at lengths 50 and 82. The table of paths in contexture.ops.dispatch was read off here. Both sides get
the same inputs in the same dtype; the median of several calls counts, in milliseconds of processor time, which a busy
machine disturbs least.

The plain forms: `products` is softmax over an explicit table of scores; `sliced` cuts chunks out of the sequence in a
Python loop, where the gradient of every slice is a full-length tensor; `substituted` inverts each chunk's triangle row
by row besides; `solved` is one least-squares solve per token, all at once. Forms are left out where they would take
minutes.
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
from contexture.ops.delta_rule import delta_rule
from contexture.ops.gated_delta_rule import gated_delta_rule
from contexture.ops.linear_attention import linear_attention
from contexture.ops.mesa import mesa
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
    """Random queries, keys of length one and values; rates for the delta rules, log-decays, or penalties of one."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    drawn = [q, F.normalize(k, dim=-1), v]
    if op in ("delta-rule", "gated-delta-rule"):
        drawn.append(torch.rand(shape[:3], generator=generator))
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
    leaves = [x.clone().requires_grad_() for x in drawn]
    gradient = torch.ones_like(drawn[2])
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
    parser.add_argument("--output", type=Path, default=RESULT)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for op, forms in FORMS.items():
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
