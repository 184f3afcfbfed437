"""Which path an op takes: one name, several implementations, one visible table.

An op's mathematics is its `*_reference`; every other path computes the same thing faster. The table below was filled
from benchmarks/mixers.py. `with use("reference"):` overrides it, and a path that an op does not have raises by name:
nothing falls back silently. `counts()` tells which paths ran. The path "triton" of an op is its kernel, if there is
one (`contexture.ops.kernels`); it is imported when it is first taken.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contexture.errors import InputError
from contexture.ops import kernels

Path = Callable[..., Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What the table looks at: where the first input lies, its dtype, the number of queries and of keys, the largest
    head of any input, whether a gradient will be asked for, and whether sequences are packed."""

    device: str
    dtype: torch.dtype
    time: int
    keys: int
    dim: int
    gradient: bool
    packed: bool = False

    @property
    def half(self) -> bool:
        """True for bf16 and fp16."""
        return self.dtype in (torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Op:
    """A name, its paths in torch (one of them "reference", the definition), and what the laws call.

    call(*inputs, initial_state=, segments=) returns output and state; sample(generator, batch=, time=, heads=, dim=)
    draws the inputs of one call in fp64.
    """

    name: str
    paths: Mapping[str, Path]
    call: Callable[..., tuple[Tensor, Any]]
    sample: Callable[..., tuple[Tensor, ...]]


TRITON = "triton"
ONLY_FAST = {"selective-scan": "blocked", "biased-average": "halves", "masked-mixing": "products"}
"""The fast path of ops that have one alone and do not call it chunked."""
STEPPED = {
    "decayed-linear-attention",
    "delta-rule",
    "diagonal-recurrence",
    "exponential-average",
    "flow-attention",
    "gated-delta-rule",
    "gated-linear-attention",
    "linear-attention",
    "linear-system",
    "moving-average",
    "prefix-softmax",
    "quadratic-attention",
    "selective-scan",
    "titans",
    "windowed-average",
}
"""Ops of which one step of the definition costs less on a CPU than a chunk of one token (benchmarks/one_token.py)."""


def choose(name: str, call: Call) -> str:
    """The table: (op, device, dtype, sizes) -> path.

    On a CUDA device an op's kernel, where it has one that takes the dtype and the sizes.
    bf16 scaled-dot-product attention is the fastest forward on a CPU, but its backward takes 16 times as long as that
    of explicit batched products at 50 keys, 10 times at 82 and twice at 512; at 2,048 the products are the slower.
    A grouped convolution is 3 to 6 times faster than a product per tap, but cannot stop at a segment's edge.
    A transform takes as long as a product for 16 further tokens after 512, and 5 times as long for one after 8,192.
    One token alone is the definition's step where the state does not grow: 1.4 to 3.5 times as fast.
    """
    if call.device == "cuda" and not _unable(name, call):
        return TRITON
    if call.device == "cpu" and call.time == 1 and name in STEPPED:
        return "reference"
    match name:
        case "softmax-attention":
            short = call.device == "cpu" and call.half and call.gradient and call.keys <= 512
            return "products" if short else "sdpa"
        case "short-convolution":
            return "taps" if call.packed else "fused"
        case "long-convolution":
            return "products" if call.time <= 8 and not call.packed else "fft"
        case _:
            return ONLY_FAST.get(name, "chunked")


def _unable(name: str, call: Call) -> str:
    return kernels.unable(name, device=call.device, dtype=call.dtype, dim=call.dim)


_override: dict[str, str] = {}
_counts: dict[tuple[str, str], int] = {}
EVERY = "*"


@contextmanager
def use(path: str, *, op: str = EVERY) -> Iterator[None]:
    """Make every op (or the one named) take this path inside the block."""
    with use_all({op: path}):
        yield


@contextmanager
def use_all(paths: Mapping[str, str]) -> Iterator[None]:
    """Make each op named take the path named inside the block; "*" is every op that is not named."""
    before = dict(_override)
    _override.update(paths)
    try:
        yield
    finally:
        _override.clear()
        _override.update(before)


def overrides() -> dict[str, str]:
    """What `use` and `use_all` say here, to be handed to another process."""
    return dict(_override)


def parse(text: str) -> dict[str, str]:
    """The paths that the environment variable CONTEXTURE_PATHS names; InputError where a part is not of its form.

    >>> parse("triton"), parse("delta-rule=triton, mesa=reference")
    ({'*': 'triton'}, {'delta-rule': 'triton', 'mesa': 'reference'})
    """
    found = {}
    for part in text.split(","):
        op, sign, path = (piece.strip() for piece in part.rpartition("="))
        if not path or bool(op) != bool(sign):
            raise InputError(f"{part!r} in CONTEXTURE_PATHS={text!r} is not of the form path or op=path")
        found[op or EVERY] = path
    return found


def counts() -> dict[tuple[str, str], int]:
    """How often each (op, path) ran in this process, compiled calls aside."""
    return dict(_counts)


def path_of(op: Op, call: Call) -> str:
    """The path that `op` takes for `call`; InputError if an override names one that it does not have or cannot take."""
    path = _override.get(op.name) or _override.get(EVERY) or choose(op.name, call)
    if path in op.paths:
        return path
    if path == TRITON:
        reason = _unable(op.name, call)
        if not reason:
            return path
        raise InputError(f"the op {op.name!r} cannot take the path 'triton': {reason}")
    raise InputError(f"the op {op.name!r} has no path {path!r}: there are {', '.join(op.paths)}")


def why(op: Op, call: Call) -> str:
    """Why `op` takes the path that it takes for `call`, in a few words."""
    if op.name in _override or EVERY in _override:
        return "asked for"
    if path_of(op, call) == TRITON:
        return "its kernel can run here"
    return _unable(op.name, call) or "its kernel is slower here"


def _kernel(name: str) -> Path:
    if torch.compiler.is_compiling():
        return functools.partial(kernels.in_graph, name)
    return kernels.kernel(name)


def run(op: Op, *tensors: Tensor, keys: int, **keywords: Any) -> Any:
    """Run `op` on the path that the table chooses; autocast is left outside, since an op minds its own precision."""
    first = tensors[0]
    gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    call = Call(
        device=first.device.type,
        dtype=first.dtype,
        time=first.shape[1],
        keys=keys,
        dim=max(tensor.shape[-1] for tensor in tensors if tensor.dim() in (first.dim(), 4)),
        gradient=gradient,
        packed=keywords.get("segments") is not None,
    )
    path = path_of(op, call)
    if not torch.compiler.is_compiling():
        _counts[op.name, path] = _counts.get((op.name, path), 0) + 1
    function = op.paths[path] if path in op.paths else _kernel(op.name)
    if torch.is_autocast_enabled(call.device):
        with torch.autocast(call.device, enabled=False):
            return function(*tensors, **keywords)
    return function(*tensors, **keywords)
