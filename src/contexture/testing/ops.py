"""The laws of ops: every path computes what the reference, in fp64, computes from the same rounded inputs.

| law | what it holds |
|---|---|
| values | outputs, last states and gradients at several lengths and in four dtypes |
| carried state | cutting anywhere and carrying the state changes neither outputs nor gradients |
| segments | packed sequences give what the sequences give one by one; padding has no effect and no output |
| gradcheck | gradients are those of the outputs, by finite differences |
| poisoned memory | no output depends on memory that was never written |

Tolerances are relative root mean squares, values / gradients.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck

from contexture.discovery import ops
from contexture.errors import InputError
from contexture.models.state import tensors
from contexture.ops import dispatch
from contexture.ops.dispatch import Op
from contexture.ops.lean_decode import DECODE
from contexture.testing.agreement import agree, rms
from contexture.testing.errors import LawError
from contexture.testing.laws import run_laws
from contexture.testing.poison import PoisonedMemory

TOLERANCES: Mapping[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-10, 1e-10),
    torch.float32: (1e-5, 1e-4),
    torch.bfloat16: (1e-2, 2e-2),
    torch.float16: (2e-3, 5e-3),
}
LENGTHS = (1, 63, 130)
CUTS = (1, 63, 64, 65)
BATCH, HEADS, DIM = 2, 2, 6
PACKED = (
    (0,) * 31 + (1,) * 33 + (2,) + (3,) * 20 + (-1,) * 10 + (4,) * 35,
    (5,) * 65 + (6,) * 40 + (5,) * 23 + (-1,) * 2,
)


class Run(NamedTuple):
    """What one call gave: outputs, the tensors of the last state, and gradients of the inputs."""

    out: Tensor
    state: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]


def registered_ops() -> dict[str, Op]:
    """Every op that the laws are for, by its name: all but decoding, which has no state and no packed form."""
    return {name: op for name, op in ops().items() if name != DECODE.name}


def check_op(op: Op, *, laws: tuple[str, ...] = ()) -> None:
    """Hold `op` to every law, or to the named ones; raises LawError at the first that it breaks."""
    run_laws(LAWS, op, only=laws)


def law_values(op: Op) -> None:
    """Fast form = fp64 reference on the same rounded inputs."""
    for dtype, tolerance in TOLERANCES.items():
        for time in LENGTHS:
            inputs = [x.to(dtype) for x in _sample(op, time)]
            expected = run_path(op, "reference", [x.double() for x in inputs])
            for path in op.paths:
                compare("values", f"{path} at length {time}, {dtype}", run_path(op, path, inputs), expected, tolerance)


def law_carried_state(op: Op) -> None:
    """Cut and carried = whole."""
    time = LENGTHS[-1]
    inputs = _sample(op, time)
    expected = run_path(op, "reference", inputs)
    for path in op.paths:
        for cut in CUTS:
            got = run_path(op, path, inputs, cut=cut)
            compare("carried state", f"{path} cut at {cut}", got, expected, TOLERANCES[torch.float64])


def law_segments(op: Op) -> None:
    """Packed = one by one."""
    segments = torch.tensor(PACKED)
    inputs = _sample(op, segments.shape[1])
    expected = one_by_one(op, inputs, segments)
    for path in op.paths:
        try:
            got = run_path(op, path, inputs, segments=segments)
        except InputError:
            if path == _default(op, segments):
                raise
            continue
        got, tolerance = got._replace(state=()), TOLERANCES[torch.float64]
        compare("segments", f"{path} on packed sequences", got, expected, tolerance)


def law_gradcheck(op: Op) -> None:
    """Gradients by finite differences."""
    generator = torch.Generator().manual_seed(1)
    inputs = [x.requires_grad_() for x in op.sample(generator, batch=1, time=66, heads=1, dim=2)]
    for path in op.paths:

        def outputs(*values: Tensor, path: str = path) -> tuple[Tensor, ...]:
            with dispatch.use(path):
                out, state = op.call(*values)
            return (out, *tensors(state))

        try:
            gradcheck(outputs, inputs, fast_mode=True)
        except GradcheckError as error:
            raise LawError("gradcheck", f"{path}: {str(error).splitlines()[0]}") from error


def law_poisoned_memory(op: Op) -> None:
    """What was never written is never read."""
    inputs = _sample(op, 66)
    expected = run_path(op, "reference", inputs)
    for path in op.paths:
        with PoisonedMemory():  # type: ignore[no-untyped-call]
            got = run_path(op, path, inputs)
        compare("poisoned memory", f"{path} on poisoned memory", got, expected, TOLERANCES[torch.float64])


LAWS: Mapping[str, Callable[[Op], None]] = {
    "values": law_values,
    "carried state": law_carried_state,
    "segments": law_segments,
    "gradcheck": law_gradcheck,
    "poisoned memory": law_poisoned_memory,
}


def _sample(op: Op, time: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(time)
    return list(op.sample(generator, batch=BATCH, time=time, heads=HEADS, dim=DIM))


def _weights(like: Tensor, seed: int) -> Tensor:
    """What outputs and states are weighted with to make one number: the same values in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(torch.bfloat16).to(like)


def in_time(x: Tensor, time: int) -> bool:
    """Whether an input has time as its second dimension."""
    return x.shape[:2] == (BATCH, time)


def run_path(
    op: Op,
    path: str,
    inputs: Sequence[Tensor],
    *,
    cut: int | None = None,
    segments: Tensor | None = None,
) -> Run:
    """Call `op` on `path`, in one piece or in two, and differentiate a weighted sum of all that it returns."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    time = leaves[0].shape[1]
    with dispatch.use(path):
        if cut is None:
            out, state = op.call(*leaves, segments=segments)
        else:
            first, between = op.call(*(x[:, :cut] if in_time(x, time) else x for x in leaves))
            rest = (x[:, cut:] if in_time(x, time) else x for x in leaves)
            second, state = op.call(*rest, initial_state=between)
            out = torch.cat((first, second), 1)
    held = () if segments is not None else tuple(tensors(state))
    ends = [end for end in (out, *held) if end.requires_grad and end.numel()]
    weights = [_weights(end, seed) for seed, end in enumerate(ends)]
    gradients = torch.autograd.grad(ends, leaves, weights, materialize_grads=True)
    return Run(out, held, gradients)


def one_by_one(op: Op, inputs: Sequence[Tensor], segments: Tensor) -> Run:
    """The reference on every sequence by itself, put back where it was packed."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    time = segments.shape[1]
    rows = []
    for row, ids in enumerate(segments):
        pieces, start = [], 0
        for identity, length in zip(*torch.unique_consecutive(ids, return_counts=True), strict=True):
            stop = start + int(length)
            part = [x[row : row + 1, start:stop] if in_time(x, time) else x for x in leaves]
            with dispatch.use("reference"):
                out = op.call(*part)[0]
            pieces.append(torch.zeros_like(out) if identity == -1 else out)
            start = stop
        rows.append(torch.cat(pieces, 1))
    out = torch.cat(rows)
    return Run(out, (), torch.autograd.grad(out, leaves, _weights(out, 0), materialize_grads=True))


def _default(op: Op, segments: Tensor) -> str:
    size = segments.shape[1]
    call = dispatch.Call(device="cpu", dtype=torch.float64, time=size, keys=size, dim=DIM, gradient=True, packed=True)
    return dispatch.path_of(op, call)


def compare(law: str, what: str, got: Run, expected: Run, tolerance: tuple[float, float]) -> None:
    """Raise LawError unless outputs, states and gradients agree; one that vanishes is measured by the largest."""
    agree(law, f"the output of {what}", got.out, expected.out, tolerance=tolerance[0])
    for number, (state, wanted) in enumerate(zip(got.state, expected.state, strict=True)):
        agree(law, f"state tensor {number} of {what}", state, wanted, tolerance=tolerance[0])
    largest = max(rms(gradient) for gradient in expected.gradients)
    for number, (gradient, wanted) in enumerate(zip(got.gradients, expected.gradients, strict=True)):
        scale = largest if rms(wanted) < 1e-3 * largest else None
        agree(law, f"the gradient of input {number} of {what}", gradient, wanted, tolerance=tolerance[1], scale=scale)
