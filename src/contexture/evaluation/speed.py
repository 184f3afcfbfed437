"""How fast a mixer is and what it holds: forward, forward with backward, one decoded token, state and peak memory.

A layer of `num_heads` heads of `dim` reads random vectors, [batch, length, num_heads * dim], in one dtype. Times are
the median of several calls after one to warm up: of the processor on one thread, which a busy machine disturbs least,
and of the clock on more. The peak is the most memory that the tensors made during one forward and
backward hold at once, inputs and parameters aside. A decoded token is one call of `stream` after `length` tokens.
A mixer that learns weights for positions is built for as many as it is shown.
"""

import inspect
import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contexture.blocks.mixer import Mixer
from contexture.errors import InputError, told
from contexture.models.state import state_bytes
from contexture.protocols import MixerCard
from contexture.randomness import generator

BENCHMARK = "mixer speed"
MOST_REPEATS = 15
DECODED = 32
"""Tokens decoded one by one after a sequence."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Advance = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What is read: sequences of `length` vectors for `num_heads` heads of size `dim`."""

    batch: int = 2
    num_heads: int = 4
    dim: int = 64

    @property
    def width(self) -> int:
        """The size of a vector."""
        return self.num_heads * self.dim


SHAPE = Shape()


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """One mixer at one length in one dtype; seconds and bytes. A None says that it was not measured, `reason` why."""

    name: str
    dtype: str
    length: int
    forward: float | None = None
    forward_backward: float | None = None
    decode: float | None = None
    state_bytes: int | None = None
    peak_bytes: int | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Everything measured in one call of `measure_speed`, and what it was measured on."""

    shape: Shape
    threads: int
    lengths: tuple[int, ...]
    dtypes: tuple[str, ...]
    cards: Mapping[str, MixerCard]
    timings: tuple[Timing, ...]
    environment: Mapping[str, Any]
    command: str = ""
    complete: bool = True

    @property
    def clock(self) -> str:
        """Which seconds were counted."""
        return "processor" if self.threads == 1 else "wall"

    def of(self, name: str, *, dtype: str, length: int) -> Timing:
        """The timing of one mixer."""
        return next(t for t in self.timings if (t.name, t.dtype, t.length) == (name, dtype, length))

    def to_document(self) -> dict[str, Any]:
        """Plain JSON values, as `results/` and `--json` hold them."""
        return {
            "benchmark": BENCHMARK,
            "unit": f"seconds ({self.clock}), bytes",
            "shape": {**asdict(self.shape)},
            "threads": self.threads,
            "lengths": list(self.lengths),
            "dtypes": list(self.dtypes),
            "complete": self.complete,
            "command": self.command,
            "environment": dict(self.environment),
            "mixers": [
                {"name": name, "state": card.state, "cost": card.cost, "year": card.year}
                for name, card in self.cards.items()
            ],
            "rows": [asdict(timing) for timing in self.timings],
        }


def require_alike(
    before: Mapping[str, Any], *, lengths: Sequence[int], dtypes: Sequence[str], threads: int, shape: Shape = SHAPE
) -> None:
    """Raise InputError unless an earlier document, as `Speed.to_document` gives it, has these settings."""
    wanted = {
        "benchmark": BENCHMARK,
        "shape": asdict(shape),
        "threads": threads,
        "lengths": sorted(set(lengths)),
        "dtypes": list(dtypes),
    }
    for name, value in wanted.items():
        if before.get(name) != value:
            raise InputError(f"rows of {name} {before.get(name)!r} cannot be kept beside those of {value!r}")


def kept(before: Mapping[str, Any], new: Speed) -> Speed:
    """The new measurement with the rows of an earlier document, measured alike, for mixers that it leaves out."""
    rows = {(row["name"], row["dtype"], row["length"]): Timing(**row) for row in before["rows"]}
    rows |= {(timing.name, timing.dtype, timing.length): timing for timing in new.timings}
    cards = {one["name"]: MixerCard(summary="", paper="", **one) for one in before["mixers"]} | dict(new.cards)
    return replace(new, timings=tuple(rows.values()), cards=cards, command=f"{before['command']} && {new.command}")


def measure_speed(
    mixers: Mapping[str, type[Any]],
    *,
    lengths: Sequence[int] = (512, 2048),
    dtypes: Sequence[str] = ("fp32",),
    shape: Shape = SHAPE,
    threads: int = 1,
    longest_call: float = 20.0,
    budget: float = 1.0,
    command: str = "",
    progress: Advance | None = None,
) -> Speed:
    """Measure every mixer at every length in every dtype.

    A length is left out where one forward and backward would probably take more than `longest_call` seconds, judged by
    the length before; `budget` is about how many seconds of repeats each time is worth. After KeyboardInterrupt what
    is done is returned, marked incomplete. Raises InputError for a mixer that is not causal or an unknown dtype.
    """
    from contexture.store.environment import environment

    lengths = tuple(sorted(set(lengths)))
    _check(mixers, lengths, dtypes)
    found: list[Timing] = []
    complete, before = True, torch.get_num_threads()
    torch.set_num_threads(threads)
    total = len(mixers) * len(dtypes)
    try:
        for index, (name, mixer) in enumerate(mixers.items()):
            for offset, dtype in enumerate(dtypes):
                done = index * len(dtypes) + offset
                found += _each_length(
                    name, mixer, lengths, dtype, shape, longest_call, budget, _share(progress, done, total, name)
                )
        described = environment()
    except KeyboardInterrupt:
        complete, described = False, environment()
    finally:
        torch.set_num_threads(before)
    return Speed(
        shape=shape,
        threads=threads,
        lengths=lengths,
        dtypes=tuple(dtypes),
        cards={name: mixer.card for name, mixer in mixers.items()},
        timings=tuple(found),
        environment=described,
        command=command,
        complete=complete,
    )


def _check(mixers: Mapping[str, type[Any]], lengths: Sequence[int], dtypes: Sequence[str]) -> None:
    for name, mixer in mixers.items():
        if not mixer.card.causal:
            raise InputError(f"{name} sees whole sets and has no sequence to run over: leave it out")
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise InputError(f"no dtype is named {dtype!r}: there are {', '.join(DTYPES)}")
    if not lengths or lengths[0] < 1:
        raise InputError("lengths are whole numbers from 1 on, such as 512,2048,8192")


def _share(progress: Advance | None, done: int, total: int, name: str) -> Advance:
    def advance(share: float, note: str) -> None:
        if progress is not None:
            progress((done + share) / total, f"{name}: {note}")

    return advance


def _each_length(
    name: str,
    mixer: type[Any],
    lengths: Sequence[int],
    dtype: str,
    shape: Shape,
    longest_call: float,
    budget: float,
    advance: Advance,
) -> list[Timing]:
    """From the shortest length up, until one takes too long or fails; the mixer's fault costs no other mixer."""
    rows: list[Timing] = []
    growth = 2.0 if mixer.card.cost == "quadratic" else 1.2
    for step, length in enumerate(lengths):
        last = rows[-1] if rows else None
        blank = Timing(name=name, dtype=dtype, length=length)
        reason = last.reason if last is not None else ""
        if last is not None and last.forward_backward is not None:
            expected = last.forward_backward * (length / last.length) ** growth
            reason = "" if expected <= longest_call else f"would take about {expected:.0f} s a call"
        if not reason:
            advance(step / len(lengths), f"{length} tokens in {dtype}")
            try:
                rows.append(measure_mixer(name, mixer, length=length, dtype=dtype, shape=shape, budget=budget))
                continue
            except Exception as fault:
                reason = told(fault)
        rows.append(Timing(name=blank.name, dtype=dtype, length=length, reason=reason))
    return rows


def measure_mixer(
    name: str,
    mixer: type[Any],
    *,
    length: int,
    dtype: str,
    shape: Shape = SHAPE,
    budget: float = 1.0,
) -> Timing:
    """Measure one mixer at one length, on as many threads as torch is set to."""
    source = generator("speed", length)
    longest = {"max_length": length + 1} if "max_length" in inspect.signature(mixer).parameters else {}
    built: Mixer = mixer(shape.width, num_heads=shape.num_heads, generator=source, **longest).to(DTYPES[dtype])
    x = torch.randn(shape.batch, length, shape.width, generator=source).to(DTYPES[dtype])
    weight = torch.randn(x.shape, generator=source).to(x.dtype)
    trained = [parameter for parameter in built.parameters() if parameter.requires_grad]

    def both() -> tuple[Tensor, ...]:
        leaf = x.requires_grad_()
        return torch.autograd.grad((built(leaf) * weight).sum(), [leaf, *trained], allow_unused=True)

    with torch.no_grad():
        forward = median_seconds(lambda: built(x), budget=budget)
        decode, state = _decoded(built, x)
    return Timing(
        name=name,
        dtype=dtype,
        length=length,
        forward=forward,
        forward_backward=median_seconds(both, budget=budget),
        decode=decode,
        state_bytes=state // shape.batch,
        peak_bytes=peak_bytes(both),
    )


def median_seconds(call: Callable[[], object], *, budget: float) -> float:
    """The median seconds of `call`, repeated for about `budget` seconds: three times at least, after one to warm up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    call()
    taken: list[float] = []
    while len(taken) < 3 or (sum(taken) < budget and len(taken) < MOST_REPEATS):
        began = clock()
        call()
        taken.append(clock() - began)
    return statistics.median(taken)


def _decoded(mixer: Mixer, x: Tensor) -> tuple[float, int]:
    """The median seconds of one further token, and the bytes of the state before it."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    state = mixer.init_state(x.shape[0], device=x.device, dtype=x.dtype)
    _, state = mixer.stream(x, state)
    size, taken = state_bytes(state), []
    for _ in range(DECODED):
        began = clock()
        _, after = mixer.stream(x[:, :1], state)
        taken.append(clock() - began)
        del after
    return statistics.median(taken), size


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps count of the memory behind all tensors that ops return, for as long as anything holds it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.most = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {place for _, place in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage, place in _storages(out):
            if place not in given:  # a view, or written in place
                self._count(storage, place)
        return out

    def _count(self, storage: torch.UntypedStorage, place: int) -> None:
        size = storage.nbytes()
        if not size or place in self._seen:
            return

        def freed(_: object) -> None:
            self.bytes -= size
            del self._seen[place]

        self._seen[place] = weakref.ref(storage, freed)
        self.bytes += size
        self.most = max(self.most, self.bytes)


def _storages(values: Any) -> Iterator[tuple[torch.UntypedStorage, int]]:
    for value in tree_leaves(values):
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            yield storage, storage.data_ptr()


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory that the tensors made during `call` held at once; what one op needs within itself is not seen.

    >>> peak_bytes(lambda: torch.ones(1000, 1000) + 1)
    8000000
    """
    with _Held() as held:
        call()
    most: int = held.most
    return most
