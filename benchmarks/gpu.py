"""How fast kernels are on a GPU, beside other libraries' and the floor of the machine; docs/kernels.md explains both.

    python benchmarks/gpu.py                          # every group; what is measured already is kept
    python benchmarks/gpu.py --only delta-rule        # one group, in under 8 minutes
    python benchmarks/gpu.py --table                  # the Markdown table of what was measured, no GPU needed

writes results/benchmarks/gpu.json after every row, and gpu.md beside it: a run that was stopped goes on where it was.
A group first holds its kernel to the laws of kernels on the GPU; then come batch 8, 16 heads of 128 in bf16 at lengths
2,048, 8,192 and 32,768, forward and forward with backward. The first call, compilation included, is timed apart. The
median of single calls counts, by the GPU's own clock. The floor is the bytes that must be read and written over the
measured rate of a copy, or the products over the measured rate of a matrix product, whichever takes longer. Where
flash-linear-attention is installed, its kernel for the same op gets the same tensors.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contexture import ops
from contexture.errors import ContextureError, InputError
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.ops.dispatch import ONLY_FAST
from contexture.ops.kernels import interpreted
from contexture.ops.lean_decode import lean_decode
from contexture.store.results import read_result, write_result
from contexture.testing.agreement import rms
from contexture.testing.kernels import check_kernel
from contexture.testing.ops import TOLERANCES, registered_ops
from contexture.training.cohort import stack

AHEAD = 2_000_000
"""Clock cycles, about a millisecond, for which the GPU is kept busy while a call is queued."""
RESULT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "gpu.json"
CHUNK = 64
STATES, SLOTS, PARTITIONS, MEMORIES = 16, 64, 8, 16
"""Numbers of state a channel, slots of native hybrid attention, partitions, cached memories."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large everything is: batch, length, heads, dim of ops; batch, past, heads, dim of decoding; layers, width,
    points, batch of the in-context model; members of a cohort; the side of the machine's own matrix product."""

    device: str
    shapes: tuple[tuple[int, int, int, int], ...]
    decode: tuple[int, int, int, int]
    model: tuple[int, int, int, int]
    members: int
    side: int
    seconds: float
    laws: bool


GPU = Sizes(
    device="cuda",
    shapes=((8, 2048, 16, 128), (8, 8192, 16, 128), (8, 32768, 16, 128)),
    decode=(8, 131072, 16, 128),
    model=(12, 256, 41, 64),
    members=64,
    side=8192,
    seconds=1.0,
    laws=True,
)
TOY = Sizes(
    device="cpu",
    shapes=((1, 20, 1, 4),),
    decode=(1, 40, 2, 4),
    model=(1, 8, 3, 2),
    members=2,
    side=32,
    seconds=0.0,
    laws=False,
)
"""For the tests: everything once, in the interpreter."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What an op must move and multiply, forward: bytes and floating-point operations to a token and head."""

    bytes: Callable[[int], float]
    operations: Callable[[int, int], float]


def linear_operations(dim: int, _: int) -> float:
    """Q K' and its product with V within a chunk, Q S, K' V."""
    return 4 * CHUNK * dim + 4 * dim * dim


def delta_operations(dim: int, _: int) -> float:
    """K K', Q K', T times the errors, and scores times what is written; K S, Q S, K' U; T itself."""
    return 8 * CHUNK * dim + 6 * dim * dim + 4 * CHUNK * CHUNK


def softmax_operations(dim: int, length: int) -> float:
    """Scores and their product with V over half of all pairs."""
    return 2 * length * dim


FLOORS: Mapping[str, Floor] = {
    "linear-attention": Floor(bytes=lambda dim: 8 * dim, operations=linear_operations),
    "decayed-linear-attention": Floor(bytes=lambda dim: 8 * dim + 4, operations=linear_operations),
    "gated-linear-attention": Floor(bytes=lambda dim: 8 * dim + 4 * dim, operations=linear_operations),
    "delta-rule": Floor(bytes=lambda dim: 8 * dim + 4, operations=delta_operations),
    "gated-delta-rule": Floor(bytes=lambda dim: 8 * dim + 8, operations=delta_operations),
    "softmax-attention": Floor(bytes=lambda dim: 8 * dim, operations=softmax_operations),
    "selective-scan": Floor(bytes=lambda dim: 6 * dim, operations=lambda dim, _: 0),
    "native-hybrid-attention": Floor(
        bytes=lambda dim: 12 * dim + 2 * SLOTS, operations=lambda dim, _: (12 * 32 + 8 * SLOTS + 4 * 56) * dim
    ),
    "landmark-attention": Floor(bytes=lambda dim: 10 * dim, operations=lambda dim, length: 3 * length * dim),
    "routed-linear-attention": Floor(bytes=lambda dim: 8 * dim, operations=linear_operations),
    "cached-memories": Floor(bytes=lambda dim: 4 * dim, operations=lambda dim, _: 8 * MEMORIES * dim * dim),
    "omega": Floor(bytes=lambda dim: 8 * dim + 12, operations=lambda dim, _: 10 * dim * dim),
    "titans": Floor(bytes=lambda dim: 8 * dim + 12, operations=lambda dim, _: 10 * dim * dim),
}
"""Queries, keys, values and outputs in bf16; rates and log-decays in fp32."""
BACKWARD_BYTES, BACKWARD_OPERATIONS = 7 / 4, 5 / 2
"""Backward reads q, k, v and dO and writes dq, dk and dv; it has five products for every two of forward."""
PEERS: Mapping[str, tuple[str, str, Callable[..., Any]]] = {
    "linear-attention": (
        "fla.ops.linear_attn",
        "chunk_linear_attn",
        lambda f, q, k, v: f(q, k, v, scale=1.0, normalize=False),
    ),
    "decayed-linear-attention": (
        "fla.ops.simple_gla",
        "chunk_simple_gla",
        lambda f, q, k, v, g: f(q, k, v, g, scale=1.0),
    ),
    "gated-linear-attention": ("fla.ops.gla", "chunk_gla", lambda f, q, k, v, g: f(q, k, v, g, scale=1.0)),
    "delta-rule": ("fla.ops.delta_rule", "chunk_delta_rule", lambda f, q, k, v, b: f(q, k, v, b, scale=1.0)),
    "gated-delta-rule": (
        "fla.ops.gated_delta_rule",
        "chunk_gated_delta_rule",
        lambda f, q, k, v, b, g: f(q, k, v, g, b, scale=1.0),
    ),
}
"""flash-linear-attention's functions, and how they take our inputs."""


ALONE = (
    "selective-scan",
    "native-hybrid-attention",
    "landmark-attention",
    "routed-linear-attention",
    "cached-memories",
    "omega",
    "titans",
)
"""Ops for which no other library is timed beside ours."""


def inputs_alone(op: str, shape: Sequence[int], device: str) -> list[Tensor]:
    """Rows in bf16, queries and keys of length one; rates, decays and shares in fp32."""
    generator = torch.Generator(device).manual_seed(0)
    batch, length, heads, dim = shape

    def draw(*sizes: int, wide: bool = False) -> Tensor:
        x = torch.randn(*sizes, generator=generator, device=device)
        return x if wide else x.to(torch.bfloat16)

    def gate(*sizes: int) -> Tensor:
        return torch.rand(*sizes, generator=generator, device=device)

    if op == "selective-scan":
        channels = heads * dim
        x, dt = draw(batch, length, channels), (0.1 * gate(batch, length, channels)).to(torch.bfloat16)
        reads, writes = draw(batch, length, STATES), draw(batch, length, STATES)
        return [x, dt, -draw(1, channels, STATES, wide=True).exp(), writes, reads]
    if op == "cached-memories":
        first, second = (draw(MEMORIES, heads, dim, 2 * dim), draw(MEMORIES, heads, 2 * dim, dim))
        shares = draw(batch, length, MEMORIES, wide=True).softmax(-1)
        return [draw(*shape), shares, first * dim**-0.5, second * dim**-0.5]
    q, k = (F.normalize(draw(*shape), dim=-1) for _ in range(2))
    v, scalars = draw(*shape), (batch, length, heads)
    match op:
        case "native-hybrid-attention":
            rest = [-gate(*scalars, SLOTS), draw(*shape), draw(*shape)]
        case "landmark-attention":
            rest = [draw(*shape)]
        case "routed-linear-attention":
            rest = [gate(batch, length, PARTITIONS)]
        case "omega":
            rest = [0.02 * gate(*scalars), gate(*scalars), -0.1 * gate(*scalars)]
        case _:
            rest = [0.2 * gate(*scalars), (0.1 + 0.8 * gate(*scalars)).log(), -0.1 * gate(*scalars)]
    return [q, k, v, *rest]


def inputs(op: str, shape: Sequence[int], device: str) -> list[Tensor]:
    """Queries and keys of length one, and values, in bf16; rates and log-decays in fp32."""
    if op in ALONE:
        return inputs_alone(op, shape, device)
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (torch.randn(*shape, generator=generator, device=device) for _ in range(3))
    drawn = [x.to(torch.bfloat16) for x in (F.normalize(q, dim=-1), F.normalize(k, dim=-1), v)]
    if "delta" in op:
        drawn.append(torch.rand(*shape[:3], generator=generator, device=device))
    if op in ("decayed-linear-attention", "gated-delta-rule"):
        drawn.append(-0.1 * torch.rand(*shape[:3], generator=generator, device=device))
    if op == "gated-linear-attention":
        drawn.append(-0.1 * torch.rand(*shape, generator=generator, device=device))
    return drawn


class Clock:
    """Times calls on one device; `ahead` leaves out what Python takes to launch, if that is below a millisecond."""

    def __init__(self, sizes: Sizes, *, ahead: bool = True) -> None:
        self.cuda, self.seconds, self.ahead = sizes.device == "cuda", sizes.seconds, ahead

    def _once(self, call: Callable[[], object]) -> float:
        if not self.cuda:
            began = time.perf_counter()
            call()
            return 1e3 * (time.perf_counter() - began)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if self.ahead:
            torch.cuda._sleep(AHEAD)
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def measure(self, call: Callable[[], object]) -> tuple[float, float]:
        """The first call's seconds by the wall's clock, and the median of later ones in milliseconds."""
        began = time.perf_counter()
        call()
        if self.cuda:
            torch.cuda.synchronize()
        first, began = time.perf_counter() - began, time.perf_counter()
        times = [self._once(call)]
        while len(times) < 200 and time.perf_counter() - began < self.seconds:
            times.append(self._once(call))
        return first, median(times)


def ends(result: Any) -> Tensor:
    """The outputs of an op, ours or another library's."""
    return result[0] if isinstance(result, tuple) else result


def failure(error: Exception) -> Row:
    """What a row says of a call that failed."""
    return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def time_both(form: Callable[..., Any], drawn: Sequence[Tensor], clock: Clock) -> Row:
    """Forward alone, and forward with backward; what fails says so instead."""
    try:
        with torch.no_grad():
            first, forward = clock.measure(lambda: form(*drawn))
            gradient = torch.ones_like(ends(form(*drawn)))
        leaves = [x.detach().requires_grad_() for x in drawn]
        slow, both = clock.measure(lambda: torch.autograd.grad(ends(form(*leaves)), leaves, gradient))
    except Exception as error:
        return failure(error)
    return {"first_seconds": first + slow, "forward_ms": forward, "both_ms": both}


def floors(op: str, shape: Sequence[int], machine: Row) -> Row:
    """The floor's milliseconds, forward and with backward."""
    batch, length, heads, dim = shape
    count, floor = batch * length * heads, FLOORS[op]

    def milliseconds(parts: float, products: float) -> float:
        moved = parts * count * floor.bytes(dim) / (machine["copy_gb_s"] * 1e6)
        multiplied = products * count * floor.operations(dim, length) / (machine["matrix_tflop_s"] * 1e9)
        return max(moved, multiplied)

    forward = milliseconds(1, 1)
    return {
        "floor_forward_ms": forward,
        "floor_both_ms": forward + milliseconds(BACKWARD_BYTES, BACKWARD_OPERATIONS),
    }


def measure_machine(sizes: Sizes) -> Row:
    """The rates of a copy (bytes read and written) and of a matrix product in bf16."""
    clock, side = Clock(sizes), sizes.side
    generator = torch.Generator(sizes.device).manual_seed(0)
    x, y = (torch.randn(side, side, generator=generator, device=sizes.device).to(torch.bfloat16) for _ in range(2))
    flat = torch.empty(4 * side * side, dtype=torch.bfloat16, device=sizes.device).normal_(generator=generator)
    other = torch.empty_like(flat)
    copy, product = clock.measure(lambda: other.copy_(flat))[1], clock.measure(lambda: x @ y)[1]
    return {
        "copy_gb_s": 2 * flat.numel() * flat.element_size() / copy / 1e6,
        "matrix_tflop_s": 2 * side**3 / product / 1e9,
    }


def ours(op: str, path: str) -> Callable[..., Any]:
    """An op of ours on a path."""

    def form(*drawn: Tensor) -> Any:
        with ops.use(path, op=op):
            return registered_ops()[op].call(*drawn)

    return form


def theirs(op: str) -> Callable[..., Any] | None:
    """flash-linear-attention's function for an op, if it is installed."""
    if op not in PEERS:
        return None
    module, name, adapt = PEERS[op]
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return None
    return lambda *drawn: adapt(function, *drawn)


Work = Iterator[tuple[Row, Callable[[], Row]]]


def op_group(op: str, sizes: Sizes, machine: Row) -> Work:
    """The laws, and then every shape."""
    if sizes.laws:

        def laws() -> Row:
            try:
                check_kernel(registered_ops()[op])
            except Exception as error:
                return failure(error)
            return {"held": True}

        yield {"side": "laws of kernels"}, laws
    clock = Clock(sizes)
    sides = {"contexture": ours(op, "triton"), "flash-linear-attention": theirs(op)}
    if op in PEERS and sides["flash-linear-attention"] is None:
        print(f"{op}: flash-linear-attention is not installed, and ours stands alone", file=sys.stderr)
    for shape in sizes.shapes:
        for side, form in sides.items():
            if form is None:
                continue

            def row(shape: tuple[int, ...] = shape, form: Callable[..., Any] = form) -> Row:
                drawn = inputs(op, shape, sizes.device)
                timed = time_both(form, drawn, clock)
                return timed | floors(op, shape, machine) | ({} if "failed" in timed else error_of(op, form, drawn))

            yield {"side": side, "shape": list(shape)}, row


def error_of(op: str, form: Callable[..., Any], drawn: Sequence[Tensor]) -> Row:
    """The relative error of the first sequence (or its first head) at full length, against the chunked path in fp32."""
    batch = drawn[0].shape[0]
    # Not every input of these ops has heads, nor all of them a batch.
    part = [x[:1] if x.shape[0] == batch else x for x in drawn]
    if op not in ALONE:
        part = [x[:, :, :1].contiguous() for x in part]
    try:
        with torch.no_grad():
            exact = ends(ours(op, ONLY_FAST.get(op, "chunked"))(*(x.float() for x in part)))
            return compared(ends(form(*part)), exact)
    except Exception as error:
        return failure(error)


def compared(got: Tensor, expected: Tensor) -> Row:
    """The relative error of bf16 outputs, and whether it is too large."""
    error = rms(got.float() - expected) / rms(expected)
    wrong = {"failed": f"off by {error:.1e} against the chunked path"} if error > TOLERANCES[torch.bfloat16][0] else {}
    return {"relative_error": error} | wrong


def softmax_group(sizes: Sizes, machine: Row) -> Work:
    """Causal softmax attention through torch, which takes FlashAttention on a GPU."""

    def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    clock = Clock(sizes)
    for shape in sizes.shapes:

        def row(shape: tuple[int, ...] = shape) -> Row:
            drawn = inputs("softmax-attention", shape, sizes.device)
            return time_both(flash, drawn, clock) | floors("softmax-attention", shape, machine)

        yield {"side": "torch, scaled_dot_product_attention", "shape": list(shape)}, row


def decode_group(sizes: Sizes, machine: Row) -> Work:
    """One query over a long cache, of equal and of uneven lengths."""
    batch, past, heads, dim = sizes.decode
    clock = Clock(sizes)

    def decode(*given: Tensor) -> Tensor:
        with ops.use("triton", op="lean-decode"):
            return lean_decode(*given)

    def drawn() -> list[Tensor]:
        generator = torch.Generator(sizes.device).manual_seed(0)
        cache = (torch.randn(batch, past, heads, dim, generator=generator, device=sizes.device) for _ in range(2))
        q = torch.randn(batch, heads, dim, generator=generator, device=sizes.device)
        return [x.to(torch.bfloat16) for x in (q, *cache)]

    for name, share in (("equal lengths", 1.0), ("uneven lengths", 0.25)):
        lengths = torch.tensor([max(1, int(past * (1 if n % 2 == 0 else share))) for n in range(batch)])

        def row(lengths: Tensor = lengths) -> Row:
            q, k, v = drawn()
            there = lengths.to(sizes.device)
            try:
                with torch.no_grad():
                    first, taken = clock.measure(lambda: decode(q, k, v, there))
                    # The first two rows suffice, and in fp32 more would take long.
                    few = [x[:2] for x in (q, k, v)]
                    with ops.use("chunked", op="lean-decode"):
                        exact = lean_decode(*(x.float() for x in few), there[:2])
                    error = compared(decode(*few, there[:2]), exact)
            except Exception as wrong:
                return failure(wrong)
            moved = 4 * int(lengths.sum()) * heads * dim
            floor = moved / (machine["copy_gb_s"] * 1e6)
            return {
                "first_seconds": first,
                "forward_ms": taken,
                "floor_forward_ms": floor,
                "share_of_copy": floor / taken,
            } | error

        yield {"side": f"contexture, {name}", "shape": list(sizes.decode)}, row


def in_context_model(mixer: str, layers: int, width: int, features: int, seed: int, device: str) -> PairsModel:
    """A model of pairs, as for in-context regression."""
    backbone = BackboneConfig(pattern=f"{mixer}*{layers}", width=width, num_heads=max(1, width // 32))
    config = PairsModelConfig(num_features=features, backbone=backbone)
    return PairsModel(config, generator=torch.Generator().manual_seed(seed)).to(device)


def stepper(model: nn.Module, x: Tensor, y: Tensor, *, device: str) -> Callable[[], None]:
    """One training step: forward under bf16 autocast, backward, clipping, AdamW."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            predicted = model(x, y).mean
        (predicted.float() - y).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def training_group(sizes: Sizes, _: Row) -> Work:
    """Steps per second of the in-context model, with several mixers."""
    layers, width, points, batch = sizes.model
    clock, features = Clock(sizes, ahead=False), 20
    for mixer in ("softmax", "linear-attention", "retention", "gated-linear-attention", "delta-rule"):

        def row(mixer: str = mixer) -> Row:
            x = torch.randn(batch, points, features, generator=torch.Generator().manual_seed(0)).to(sizes.device)
            try:
                model = in_context_model(mixer, layers, width, features, 0, sizes.device)
                first, taken = clock.measure(stepper(model, x, x.sum(-1), device=sizes.device))
            except Exception as error:
                return failure(error)
            return {"first_seconds": first, "steps_per_second": 1e3 / taken}

        yield {"side": f"{layers} layers of width {width}, {mixer}", "shape": [batch, points]}, row


def cohort_group(sizes: Sizes, _: Row) -> Work:
    """Model-steps per second of many tiny models at once, and of one alone."""
    clock, features, width, points, batch = Clock(sizes, ahead=False), 5, min(64, 8 * sizes.model[1]), 11, 8
    for members in (1, sizes.members):

        def row(members: int = members) -> Row:
            shape = members * batch, points, features
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(sizes.device)
            try:
                models = [in_context_model("softmax", 3, width, features, n, sizes.device) for n in range(members)]
                model = stack(models) if members > 1 else models[0]
                first, taken = clock.measure(stepper(model, x, x.sum(-1), device=sizes.device))
            except Exception as error:
                return failure(error)
            return {"first_seconds": first, "steps_per_second": 1e3 * members / taken}

        yield {"side": f"{members} models of 3 layers, width {width}", "shape": [batch, points]}, row


GROUPS: Mapping[str, Callable[[Sizes, Row], Work]] = {
    **{op: (lambda sizes, machine, op=op: op_group(op, sizes, machine)) for op in (*PEERS, *ALONE)},
    "softmax": softmax_group,
    "decode": decode_group,
    "training": training_group,
    "cohorts": cohort_group,
}


def load(path: Path, device: str) -> Row:
    """What was measured already; InputError if that was on another device."""
    if not path.is_file():
        return {"benchmark": "gpu", "device": device, "machine": {}, "rows": []}
    document = read_result(path)
    if document["device"] != device:
        raise InputError(f"{path} holds figures of {document['device']}, not of {device}: name another with --output")
    return document


def run(names: Sequence[str], sizes: Sizes, path: Path, device: str) -> int:
    """Measure what is missing of the groups named; exit status 1 if a law is broken or a form failed."""
    document = load(path, device)
    document["torch"] = torch.__version__
    if not document["machine"]:
        document["machine"] = measure_machine(sizes)
        write_result(path, document)
    for name in names:
        for key, work in GROUPS[name](sizes, document["machine"]):
            key = {"group": name, **key}
            known = [row for row in document["rows"] if key.items() <= row.items()]
            if known and "failed" not in known[0]:
                continue
            row = key | work()
            document["rows"] = [one for one in document["rows"] if one not in known] + [row]
            write_result(path, document)
            path.with_suffix(".md").write_text(table(document), encoding="utf-8")
            print(*(f"{name}={rounded(value)}" for name, value in row.items()), file=sys.stderr, flush=True)
    return int(any("failed" in row for row in document["rows"] if row["group"] in names))


def rounded(value: Any) -> str:
    """Three digits that count."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table(document: Row) -> str:
    """The Markdown table of a result, and a line for each group that has another library in it."""
    machine, lines = document["machine"], []
    rates = f"copy {machine['copy_gb_s']:.0f} GB/s, bf16 product {machine['matrix_tflop_s']:.0f} TFLOP/s"
    lines += [f"{document['device']}, torch {document['torch']}: {rates}.", ""]
    columns = ("forward_ms", "floor_forward_ms", "both_ms", "floor_both_ms", "steps_per_second", "first_seconds")
    titles = ("forward, ms", "floor", "with backward, ms", "floor", "steps/s", "first call, s")
    lines += ["| group | side | shape | " + " | ".join(titles) + " |", "|---" * (3 + len(titles)) + "|"]
    for row in document["rows"]:
        cells = [rounded(row[name]) if name in row else "" for name in columns]
        if "failed" in row:
            cells[0] = f"failed: {row['failed']}".replace("|", "/")
        shape = " x ".join(str(size) for size in row.get("shape", ()))
        lines.append(f"| {row['group']} | {row['side']} | {shape} | " + " | ".join(cells) + " |")
    lines += ["", *summary(document["rows"])]
    return "\n".join(lines).rstrip() + "\n"


def summary(rows: Sequence[Row]) -> list[str]:
    """How often ours is faster than the other library, and how far from the floor, in the geometric mean."""
    said = []
    for name in ("forward_ms", "both_ms"):
        times = {(row["group"], row["side"], str(row.get("shape"))): row[name] for row in rows if name in row}
        pairs = [
            (times[group, "flash-linear-attention", shape], taken)
            for (group, side, shape), taken in times.items()
            if side == "contexture" and (group, "flash-linear-attention", shape) in times
        ]
        if pairs:
            gain = geometric_mean(other / taken for other, taken in pairs)
            said.append(f"- {name}: {gain:.2f} times as fast as flash-linear-attention over {len(pairs)} shapes.")
        above = [row[name] / row[f"floor_{name}"] for row in rows if name in row and row["side"] == "contexture"]
        if above:
            said.append(f"- {name}: {geometric_mean(above):.2f} times the floor over {len(above)} shapes.")
    return said


def main(arguments: list[str] | None = None) -> int:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=GROUPS, action="append", help="measure this group, and the others so named")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument(
        "--table", action="store_true", help="print the table of what was measured, and measure nothing"
    )
    options = parser.parse_args(arguments)
    try:
        if options.table:
            print(table(read_result(options.output)), end="")
            return 0
        if not torch.cuda.is_available():
            raise InputError(
                "no CUDA device is at hand, and these figures are of a GPU: run this on a machine with one"
            )
        if interpreted():
            raise InputError("TRITON_INTERPRET=1 would run kernels on the CPU: unset it for these figures")
        return run(options.only or list(GROUPS), GPU, options.output, torch.cuda.get_device_name())
    except ContextureError as error:
        print(f"benchmarks/gpu.py: {error}", file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
