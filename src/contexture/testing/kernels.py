"""The laws of kernels: the path "triton" of an op computes what its reference computes in fp64.

| law | what it holds |
|---|---|
| values | outputs, last states and gradients at several lengths, in fp32, fp16 and bf16 |
| carried state | cutting and carrying the state changes nothing |
| segments | packed sequences give what the sequences give one by one; padding has no effect and no output |
| layouts | inputs that are views, by turns with time and heads swapped and with a head's entries apart, give the same |

Inputs are drawn afresh at every call from a seed that a broken law names. Fresh memory holds NaN throughout. Tolerances
are those of ops. On a machine without a GPU set TRITON_INTERPRET=1 before the start: kernels then run in Triton's
interpreter, in which bf16 is read and written, but multiplied in fp32.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from contexture.ops.dispatch import TRITON, Op
from contexture.ops.kernels import has_kernel, interpreted
from contexture.testing.laws import run_laws
from contexture.testing.ops import BATCH, TOLERANCES, Run, compare, one_by_one, registered_ops, run_path
from contexture.testing.poison import PoisonedMemory

LENGTHS: Mapping[torch.dtype, tuple[tuple[int, int], ...]] = {
    torch.float32: ((1, 2), (70, 2)),
    torch.float16: ((33, 1),),
    torch.bfloat16: ((33, 1),),
}
"""Lengths and numbers of heads: few, since the interpreter takes one program after another."""
CUT = 37
DIM = 6
PACKED = (
    (0,) * 31 + (1,) * 15 + (2,) + (3,) * 9 + (-1,) * 10 + (4,) * 9,
    (-1,) * 4 + (5,) * 60 + (6,) * 3 + (5,) * 6 + (-1,) * 2,
)


def ops_with_kernels() -> dict[str, Op]:
    """Every op that has a kernel, by its name."""
    return {name: op for name, op in registered_ops().items() if has_kernel(name)}


def check_kernel(op: Op, *, laws: tuple[str, ...] = ()) -> None:
    """Hold the kernel of `op` to every law, or to the named ones; raises LawError at the first that it breaks."""
    run_laws(LAWS, op, only=laws)


def law_values(op: Op) -> None:
    """Kernel = fp64 reference on the same rounded inputs."""
    for dtype, lengths in LENGTHS.items():
        for time, heads in lengths:
            seed, inputs = _draw(op, time, heads)
            inputs = [x.to(dtype) for x in inputs]
            expected = run_path(op, "reference", [x.double() for x in inputs])
            what = f"the kernel at length {time}, {dtype}, seed {seed}"
            compare("values", what, _run(op, inputs), expected, TOLERANCES[dtype])


def law_carried_state(op: Op) -> None:
    """Cut and carried = whole."""
    seed, inputs = _draw(op, 70)
    expected = run_path(op, "reference", inputs)
    got = _run(op, [x.float() for x in inputs], cut=CUT)
    compare("carried state", f"the kernel cut at {CUT}, seed {seed}", got, expected, TOLERANCES[torch.float32])


def law_segments(op: Op) -> None:
    """Packed = one by one."""
    segments = torch.tensor(PACKED)
    seed, inputs = _draw(op, segments.shape[1])
    expected = one_by_one(op, inputs, segments)
    got = _run(op, [x.float() for x in inputs], segments=segments)._replace(state=())
    compare("segments", f"the kernel on packed sequences, seed {seed}", got, expected, TOLERANCES[torch.float32])


def law_layouts(op: Op) -> None:
    """Views = copies."""
    seed, inputs = _draw(op, 33, 2)
    expected = run_path(op, "reference", inputs)
    swaps = ((1, 2), (1, -1))
    views = [x.float().transpose(*swaps[n % 2]).contiguous().transpose(*swaps[n % 2]) for n, x in enumerate(inputs)]
    compare("layouts", f"the kernel on views, seed {seed}", _run(op, views), expected, TOLERANCES[torch.float32])


LAWS: Mapping[str, Callable[[Op], None]] = {
    "values": law_values,
    "carried state": law_carried_state,
    "segments": law_segments,
    "layouts": law_layouts,
}


def _draw(op: Op, time: int, heads: int = 1) -> tuple[int, list[Tensor]]:
    """A seed that nobody knew before, and fp64 inputs that fp32 holds exactly."""
    seed = secrets.randbits(32)
    generator = torch.Generator().manual_seed(seed)
    return seed, [x.float().double() for x in op.sample(generator, batch=BATCH, time=time, heads=heads, dim=DIM)]


def _run(op: Op, inputs: Sequence[Tensor], *, cut: int | None = None, segments: Tensor | None = None) -> Run:
    """The kernel's outputs, states and gradients, on poisoned memory and on the device where kernels run."""
    device = "cpu" if interpreted() else "cuda"
    there = None if segments is None else segments.to(device)
    with PoisonedMemory():  # type: ignore[no-untyped-call]
        got = run_path(op, TRITON, [x.to(device) for x in inputs], cut=cut, segments=there)
    return Run(got.out.cpu(), tuple(x.cpu() for x in got.state), tuple(x.cpu() for x in got.gradients))
