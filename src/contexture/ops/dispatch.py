"""Which path an op takes: one name, several implementations, one visible table.

An op's mathematics is its `*_reference`; every other path computes the same thing faster. The table below was filled
from benchmarks/mixers.py. `with use("reference"):` overrides it, and a path that an op does not have raises by name:
nothing falls back silently. `counts()` tells which paths ran.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contexture.errors import InputError

Path = Callable[..., Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What the table looks at: where the first input lies, its dtype, the number of queries and of keys, the head's
    size, whether a gradient will be asked for, and whether sequences are packed."""

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
    """A name, its paths (one of them "reference", the definition), and what the laws call.

    call(*inputs, initial_state=, segments=) returns output and state; sample(generator, batch=, time=, heads=, dim=)
    draws the inputs of one call in fp64.
    """

    name: str
    paths: Mapping[str, Path]
    call: Callable[..., tuple[Tensor, Any]]
    sample: Callable[..., tuple[Tensor, ...]]


ONLY_FAST = {"selective-scan": "blocked", "biased-average": "halves", "masked-mixing": "products"}
"""The fast path of ops that have one alone and do not call it chunked."""


def choose(name: str, call: Call) -> str:
    """The table: (op, device, dtype, sizes) -> path.

    bf16 scaled-dot-product attention is the fastest forward on a CPU, but its backward takes 16 times as long as that
    of explicit batched products at 50 keys, 10 times at 82 and twice at 512; at 2,048 the products are the slower.
    A grouped convolution is 3 to 6 times faster than a product per tap, but cannot stop at a segment's edge.
    A transform takes as long as a product for 16 further tokens after 512, and 5 times as long for one after 8,192.
    """
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


_override: dict[str, str] = {}
_counts: dict[tuple[str, str], int] = {}
EVERY = "*"


@contextmanager
def use(path: str, *, op: str = EVERY) -> Iterator[None]:
    """Make every op (or the one named) take this path inside the block."""
    before = _override.get(op)
    _override[op] = path
    try:
        yield
    finally:
        if before is None:
            del _override[op]
        else:
            _override[op] = before


def counts() -> dict[tuple[str, str], int]:
    """How often each (op, path) ran in this process, compiled calls aside."""
    return dict(_counts)


def path_of(op: Op, call: Call) -> str:
    """The path that `op` takes for `call`; InputError if an override names one that it does not have."""
    path = _override.get(op.name) or _override.get(EVERY) or choose(op.name, call)
    if path not in op.paths:
        raise InputError(f"the op {op.name!r} has no path {path!r}: there are {', '.join(op.paths)}")
    return path


def run(op: Op, *tensors: Tensor, keys: int, **keywords: Any) -> Any:
    """Run `op` on the path that the table chooses; autocast is left outside, since an op minds its own precision."""
    first = tensors[0]
    gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    call = Call(
        device=first.device.type,
        dtype=first.dtype,
        time=first.shape[1],
        keys=keys,
        dim=first.shape[-1],
        gradient=gradient,
        packed=keywords.get("segments") is not None,
    )
    path = path_of(op, call)
    if not torch.compiler.is_compiling():
        _counts[op.name, path] = _counts.get((op.name, path), 0) + 1
    if torch.is_autocast_enabled(call.device):
        with torch.autocast(call.device, enabled=False):
            return op.paths[path](*tensors, **keywords)
    return op.paths[path](*tensors, **keywords)
