"""The laws of causal mixers; which apply, and what they ask, follows from the card.

| law | what it holds |
|---|---|
| interface | built alike from one generator; what goes in comes out in its shape and dtype, and finite |
| causality | what comes later changes nothing before |
| state | the state is a tuple whose tensors have the batch first: reordering its rows reorders the episodes |
| streaming | cutting a sequence anywhere and carrying the state gives what `forward` gives |
| gradients | a trained parameter gets a finite gradient, that of the output, non-zero in one of three random batches |
| segments | packed sequences give what the sequences give one by one; padding has no effect |
| state growth | the state's bytes grow with time as the card says |
| cost | floating-point operations grow with time as the card says |
| compilation | torch.compile takes the whole forward and backward as one graph, with the same results |
| cohorts | three members stacked give what they give one by one, gradients included |

Everything is computed in fp64 and held to a relative root mean square of 1e-10.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from contexture.blocks.mixer import Mixer
from contexture.errors import InputError
from contexture.models.state import map_state, state_bytes, tensors
from contexture.ops.flops import count_flops
from contexture.protocols import MixerCard
from contexture.testing.agreement import agree, rms
from contexture.testing.errors import LawError
from contexture.testing.laws import run_laws
from contexture.training.cohort import stack

TOLERANCE = 1e-10
FP64 = torch.float64
TIME = 70
CUTS: tuple[tuple[int, ...], ...] = ((1,), (63,), (64,), (65,), (30, 31, 32), (5, 69))
MEMBERS = 3


@dataclass(frozen=True, kw_only=True)
class MixerCase:
    """A class to hold to the laws, and how to build it."""

    mixer: type[Any]
    width: int = 16
    num_heads: int = 2
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def card(self) -> MixerCard:
        """The class's card."""
        card = self.mixer.card
        assert isinstance(card, MixerCard)
        return card

    def build(self, seed: int = 0) -> Mixer:
        """A mixer in fp64."""
        generator = torch.Generator().manual_seed(seed)
        built = self.mixer(self.width, num_heads=self.num_heads, generator=generator, **self.settings)
        return cast(Mixer, built.to(FP64))

    def input(self, batch: int, time: int, seed: int = 0) -> Tensor:
        """A random sequence, [batch, time, width]."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, time, self.width, generator=generator, dtype=FP64)


def check_mixer(
    mixer: type[Any],
    *,
    width: int = 16,
    num_heads: int = 2,
    settings: Mapping[str, Any] | None = None,
    laws: tuple[str, ...] = (),
) -> None:
    """Hold a causal mixer class to every law, or to the named ones; raises LawError at the first that it breaks.

    `settings` are further keyword arguments of its constructor. A law on the card's `waivers` has to be broken.
    """
    case = MixerCase(mixer=mixer, width=width, num_heads=num_heads, settings=settings or {})
    run_laws(LAWS, case, waivers=case.card.waivers, only=laws)


def law_interface(case: MixerCase) -> None:
    """Built alike from the same generator, with three verbs that give numbers of the input's shape and dtype."""
    law = "interface"
    if not issubclass(case.mixer, nn.Module):
        raise LawError(law, f"{case.mixer.__name__} is no torch.nn.Module")
    for verb in ("init_state", "stream", "forward"):
        if not callable(getattr(case.mixer, verb, None)):
            raise LawError(law, f"{case.mixer.__name__} has no method {verb}")
    twin = case.build().state_dict()
    for name, one in case.build().state_dict().items():
        agree(law, f"{name} of two mixers that the same generator built", one, twin[name], tolerance=0.0)
    for dtype in (FP64, torch.float32):
        mixer, x = case.build().to(dtype), case.input(2, TIME).to(dtype)
        _alike("the output", mixer(x), x)
        _alike("the output of stream", mixer.stream(x, mixer.init_state(2, device="cpu", dtype=dtype))[0], x)


def _alike(what: str, out: object, x: Tensor) -> None:
    """Raise LawError unless `out` holds finite numbers of x's shape and dtype."""
    law = "interface"
    if not isinstance(out, Tensor):
        raise LawError(law, f"{what} is a {type(out).__name__}, not a tensor")
    if (out.shape, out.dtype) != (x.shape, x.dtype):
        given, gotten = (f"{tuple(one.shape)} in {one.dtype}".replace("torch.", "") for one in (x, out))
        raise LawError(law, f"{what} is {gotten} where the input is {given}")
    if not out.isfinite().all():
        position = tuple(int(index) for index in (~out.isfinite()).nonzero()[0])
        raise LawError(law, f"{what} is not finite", position=position)


def law_causality(case: MixerCase) -> None:
    """Later inputs change nothing before them."""
    mixer, x, other = case.build(), case.input(2, TIME), case.input(2, TIME, seed=1)
    expected = mixer(x)
    for t in (1, 2, 31, 32, 63, 64, 65, TIME - 1):
        changed = torch.cat((x[:, :t], 10 * other[:, t:]), 1)
        what = f"the output before {t}, where the input changes from {t} on,"
        agree("causality", what, mixer(changed)[:, :t], expected[:, :t], tolerance=TOLERANCE)


def law_state(case: MixerCase) -> None:
    """The batch comes first in every tensor of the state."""
    mixer, x, law = case.build(), case.input(3, 20), "state"
    state = mixer.init_state(3, device="cpu", dtype=FP64)
    if not isinstance(state, tuple):
        raise LawError(law, f"init_state gives a {type(state).__name__}, not a tuple of tensors")
    _, state = mixer.stream(x[:, :12], state)
    for number, tensor in enumerate(tensors(state)):
        if tensor.dim() == 0 or tensor.shape[0] != 3:
            raise LawError(law, f"tensor {number} of the state has shape {tuple(tensor.shape)}, not the batch first")
    order = torch.tensor([2, 0, 2, 1])
    expected = mixer.stream(x[:, 12:], state)[0][order]
    got = mixer.stream(x[order, 12:], map_state(lambda tensor: tensor[order], state))[0]
    agree(law, "the output of a reordered state", got, expected, tolerance=TOLERANCE)


def law_streaming(case: MixerCase) -> None:
    """Cut and carried = whole."""
    mixer, x = case.build(), case.input(2, TIME)
    whole = mixer(x)
    for cuts in (*CUTS, tuple(range(1, 12))):
        parts = _streamed(mixer, x, cuts)
        agree("streaming", f"the output of a sequence cut at {cuts}", parts, whole, tolerance=TOLERANCE)


def law_gradients(case: MixerCase) -> None:
    """Every trained parameter's gradient is finite, right along a random direction, and somewhere non-zero."""
    mixer, law = case.build(), "gradients"
    named = {name: parameter for name, parameter in mixer.named_parameters() if parameter.requires_grad}
    moved = dict.fromkeys(named, False)
    for seed in range(3):
        x = case.input(2, TIME, seed=seed).requires_grad_()
        weights = case.input(2, TIME, seed=seed + 10)
        total = (mixer(x) * weights).sum()
        gradients = torch.autograd.grad(total, [*named.values(), x], materialize_grads=True)
        for name, gradient in zip([*named, "the input"], gradients, strict=True):
            if not gradient.isfinite().all():
                position = tuple(int(index) for index in (~gradient.isfinite()).nonzero()[0])
                raise LawError(law, f"the gradient of {name} is not finite", position=position)
            moved[name] = moved.get(name, False) or bool(gradient.count_nonzero())
        if seed == 0:
            for name, gradient in zip(named, gradients, strict=False):
                _slope(mixer, name, gradient, lambda x=x, weights=weights: (mixer(x) * weights).sum())  # type: ignore[misc]
    for name, seen in moved.items():
        if not seen:
            raise LawError(law, f"{name} gets no gradient in any of three random batches")


def _slope(mixer: Mixer, name: str, gradient: Tensor, total: Callable[[], Tensor]) -> None:
    """Hold a gradient against a central difference along a random direction."""
    parameter, step = dict(mixer.named_parameters())[name], 1e-5
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2), dtype=FP64)
    with torch.no_grad():
        parameter.add_(direction, alpha=step)
        above = float(total())
        parameter.sub_(direction, alpha=2 * step)
        below = float(total())
        parameter.add_(direction, alpha=step)
    measured, claimed = (above - below) / (2 * step), float((gradient * direction).sum())
    if abs(measured - claimed) > 1e-6 * (abs(measured) + rms(gradient) * gradient.numel() ** 0.5):
        raise LawError("gradients", f"the gradient of {name} says {claimed:.6g} where the output moves {measured:.6g}")


def law_segments(case: MixerCase) -> None:
    """Packed = one by one."""
    mixer = case.build()
    rows = ([7] * 31 + [2] * 2 + [7] * 31 + [3] * 5 + [-1] * 6, [4] * 64 + [-1] * 3 + [5] + [6] * 7)
    segments = torch.tensor(rows)
    x = case.input(2, segments.shape[1])
    packed = mixer(x, segments=segments)
    noisy = torch.where((segments == -1).unsqueeze(-1), 10 * case.input(2, x.shape[1], seed=1), x)
    real = (segments != -1).unsqueeze(-1)
    disturbed = mixer(noisy, segments=segments)
    agree("segments", "the output beside changed padding", disturbed * real, packed * real, tolerance=TOLERANCE)
    expected = packed.clone()
    for row, start, stop in _stretches(segments):
        expected[row, start:stop] = mixer(x[row : row + 1, start:stop])[0]
    agree("segments", "the output of packed sequences", packed, expected, tolerance=TOLERANCE)


def law_state_growth(case: MixerCase) -> None:
    """The state's bytes follow the card."""
    mixer, law, expected = case.build(), "state growth", case.card.state
    state, sizes, x = mixer.init_state(1, device="cpu", dtype=FP64), [], case.input(1, 16)
    for _ in range(4):
        _, state = mixer.stream(x, state)
        sizes.append(state_bytes(state))
    steps = [after - before for before, after in pairwise(sizes)]
    holds = {"constant": not any(steps), "grows": min(steps) > 0, "none": sizes[-1] == 0}[expected]
    if not holds:
        raise LawError(
            law, f"the card says {expected!r}, but after 16, 32, 48, 64 tokens the state holds {sizes} bytes"
        )


def law_cost(case: MixerCase) -> None:
    """Operations follow the card: f(3n) - 2 f(2n) + f(n) is zero for a line, 2 n^2 for a square."""
    mixer, size = case.build(), 256
    with torch.no_grad():
        counts = [count_flops(lambda n=n: mixer(case.input(1, n * size))) for n in (1, 2, 3)]  # type: ignore[misc]
    bend = (counts[2] - 2 * counts[1] + counts[0]) / counts[0]
    low, high = {"linear": (-0.01, 0.01), "n log n": (0.01, 0.5), "quadratic": (0.5, 2.0)}[case.card.cost]
    if not low <= bend <= high:
        times = " and ".join(f"{count / counts[0]:.2f}" for count in counts[1:])
        message = f"the card says {case.card.cost!r}, but twice and three times the tokens take {times} times the work"
        raise LawError("cost", message)


def law_compilation(case: MixerCase, *, backend: str = "aot_eager") -> None:
    """One graph, with the same results; `backend` is what torch.compile hands it to."""
    segments = torch.tensor([[0] * 40 + [1] * 30, [0] * 64 + [-1] * 6])
    one_graph(case.build(), case.input(2, TIME), ({}, {"segments": segments}), backend=backend)


def one_graph(mixer: Mixer, x: Tensor, calls: Sequence[Mapping[str, Tensor]], *, backend: str = "aot_eager") -> None:
    """Raise LawError unless torch.compile takes every mixer(x, **keywords) as one graph with the same results."""
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
        try:
            compiled = cast(Mixer, torch.compile(mixer, fullgraph=True, backend=backend))
            for keywords in calls:
                got, expected = _differentiated(compiled, x, keywords), _differentiated(mixer, x, keywords)
                for what, one, other in zip(("output", "gradient"), got, expected, strict=True):
                    agree("compilation", f"the {what} of the compiled mixer", one, other, tolerance=TOLERANCE)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise LawError("compilation", f"no single graph: {str(error).strip().splitlines()[0]}") from error


def law_cohorts(case: MixerCase) -> None:
    """Stacked = one by one."""
    mixers = [case.build(seed) for seed in range(MEMBERS)]
    x = case.input(MEMBERS * 2, 9)
    try:
        cohort = stack(mixers)
    except InputError as error:
        raise LawError("cohorts", str(error)) from error
    got = cohort(x)
    torch.autograd.backward(got.square().sum())
    expected = torch.cat([mixer(part) for mixer, part in zip(mixers, torch.split(x, 2), strict=True)])
    torch.autograd.backward(expected.square().sum())
    agree("cohorts", "the output of stacked members", got, expected, tolerance=TOLERANCE)
    stacked = dict(cohort.named_parameters())
    for member, mixer in enumerate(mixers):
        for name, parameter in mixer.named_parameters():
            if not parameter.requires_grad:
                continue
            assert parameter.grad is not None
            gradient = stacked[name].grad
            if gradient is None:
                raise LawError("cohorts", f"{name} gets no gradient once stacked")
            what = f"the gradient of {name} of member {member}"
            agree("cohorts", what, gradient[member], parameter.grad, tolerance=TOLERANCE)


LAWS: Mapping[str, Callable[[MixerCase], None]] = {
    "interface": law_interface,
    "causality": law_causality,
    "state": law_state,
    "streaming": law_streaming,
    "gradients": law_gradients,
    "segments": law_segments,
    "state growth": law_state_growth,
    "cost": law_cost,
    "compilation": law_compilation,
    "cohorts": law_cohorts,
}


def _streamed(mixer: Mixer, x: Tensor, cuts: Sequence[int]) -> Tensor:
    state = mixer.init_state(x.shape[0], device="cpu", dtype=x.dtype)
    outputs = []
    for start, stop in zip((0, *cuts), (*cuts, x.shape[1]), strict=True):
        out, state = mixer.stream(x[:, start:stop], state)
        outputs.append(out)
    return torch.cat(outputs, 1)


def _differentiated(mixer: Mixer, x: Tensor, keywords: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    out = mixer(x, **keywords)
    return out, torch.autograd.grad(out.square().sum(), x)[0]


def _stretches(segments: Tensor) -> Iterator[tuple[int, int, int]]:
    """Row, start and stop of every sequence, padding left out."""
    for row, ids in enumerate(segments):
        start = 0
        for identity, length in zip(*torch.unique_consecutive(ids, return_counts=True), strict=True):
            stop = start + int(length)
            if identity != -1:
                yield row, start, stop
            start = stop
