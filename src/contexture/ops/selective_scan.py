"""The selective scan (Mamba's S6; Gu & Dao, 2023, arXiv:2312.00752): every channel a diagonal state space of its own.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t,    y_t = C_t . h_t        for each channel, h_t of size N

Time is cut into blocks that fit the cache, and a block into pieces. All pieces of a block take their steps at once from
an empty state; then the pieces' ends are carried from piece to piece, and what each was handed is added to its states
through the product of its decays, which is at most one. The backward recomputes a block's states from those at the
pieces' starts, so that no [time, N, channels] is ever held.

x, dt, y: [batch, time, channels], dt >= 0; A: [groups, channels, N], negative, where the batch is groups times as large
as that of one group (groups outermost); B, C: [batch, time, N]; h: [batch, channels, N]. All is computed in fp32 at
least. A change of segment sets h to zero.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.ops import dispatch
from contexture.ops.chunks import wide
from contexture.ops.segments import padding, runs

BLOCK = 2**19
"""How many numbers a block's states may hold."""


def selective_scan_reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, state: Tensor, segments: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    dtype, outputs = x.dtype, []
    stretch = None if segments is None else runs(segments)
    x, dt, A, B, C = (part.to(state.dtype) for part in (x, dt, A, B, C))
    A = A.repeat_interleave(len(x) // len(A), 0)
    for t in range(x.shape[1]):
        if stretch is not None and t > 0:
            state = state * (stretch[:, t] == stretch[:, t - 1]).to(state.dtype).view(-1, 1, 1)
        added = (dt[:, t] * x[:, t]).unsqueeze(2) * B[:, t].unsqueeze(1)
        state = torch.exp(dt[:, t].unsqueeze(2) * A) * state + added
        outputs.append((state @ C[:, t].unsqueeze(2)).squeeze(2))
    return torch.stack(outputs, 1).to(dtype), state


class Cut(NamedTuple):
    """How time is cut: `blocks` of `pieces` of `steps` each."""

    blocks: int
    pieces: int
    steps: int

    def split(self, x: Tensor) -> Tensor:
        """[batch, time, ...] to [blocks, steps, pieces, batch, ...], filled up with steps that change nothing."""
        time = self.blocks * self.pieces * self.steps
        x = F.pad(x, (*(0, 0) * (x.dim() - 2), 0, time - x.shape[1]))
        return torch.unflatten(x, 1, self).movedim(0, 3).transpose(1, 2).contiguous()

    def join(self, x: Tensor, time: int) -> Tensor:
        """Undo `split`."""
        return x.transpose(1, 2).movedim(3, 0).flatten(1, 3)[:, :time]


def cut(time: int, numbers: int) -> Cut:
    """Blocks of about `BLOCK` numbers where a step has `numbers`, in about as many pieces as a piece has steps.

    >>> cut(2048, 16 * 512)
    Cut(blocks=32, pieces=8, steps=8)
    """
    blocks = -(-time // max(1, BLOCK // numbers))
    length = -(-time // blocks)
    if length < 32:
        return Cut(blocks, 1, length)
    steps = math.isqrt(length)
    for fewer in range(steps - 1, steps // 2, -1):
        if -length % fewer < -length % steps:
            steps = fewer
    return Cut(blocks, -(-length // steps), steps)


def _steps(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, keep: Tensor | None, *, a: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """A block's decays and what its steps add, written into `a` and `h`: fresh memory would take longer than they."""
    torch.mul(dt.unsqueeze(-2), A, out=a).exp_()
    if keep is not None:
        a.mul_(keep[..., None, None])
    return a, torch.mul(u.unsqueeze(-2), B.unsqueeze(-1), out=h)


def _forward_scan(a: Tensor, h: Tensor, state: Tensor) -> Tensor:
    """Turn what each step adds, h, into the states, in place; returns the pieces' first states and the last state.

    a, h: [steps, pieces, batch, N, channels]; a is used up.
    """
    for before, step, after, decay in zip(h[:-1], h[1:], a[1:], a[:-1], strict=True):
        step.addcmul_(after, before)
        after.mul_(decay)
    starts = [state]
    for end, decay in zip(h[-1], a[-1], strict=True):
        starts.append(torch.addcmul(end, decay, starts[-1]))
    handed = torch.stack(starts)
    h.addcmul_(a, handed[:-1])
    return handed


def _backward_scan(a: Tensor, d_h: Tensor, d_state: Tensor) -> Tensor:
    """Turn what each state's output asks of it into its gradient, in place; returns the first state's.

    The same recurrence from the end: d_h_t = d_y_t C_t + a_{t+1} d_h_{t+1}. a is used up.
    """
    first = a[0].clone()
    for t in range(len(a) - 2, -1, -1):
        d_h[t].addcmul_(a[t + 1], d_h[t + 1])
        if t + 2 < len(a):
            a[t + 1].mul_(a[t + 2])
    if len(a) > 1:
        a[0].mul_(a[1])
    ends = [d_state]
    for decay, whole, local in zip(reversed(first), reversed(a[0]), reversed(d_h[0]), strict=True):
        ends.append(torch.addcmul(decay * local, whole, ends[-1]))
    handed = torch.stack(ends[-2::-1])
    d_h[:-1].addcmul_(a[1:], handed)
    d_h[-1].add_(handed)
    return ends[-1]


class _Scan(torch.autograd.Function):
    """The scan over blocks. u = dt x, dt: [blocks, steps, pieces, batch, channels]; B, C: the same with N; A: [batch or
    1, N, channels]; keep: the same as dt without channels, zero where a segment starts; state: [batch, N, channels]."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        outputs, starts = [], []
        a, h = (u.new_empty(*B.shape[1:], u.shape[-1]) for _ in range(2))
        for n in range(len(u)):
            _steps(u[n], dt[n], A, B[n], None if keep is None else keep[n], a=a, h=h)
            handed = _forward_scan(a, h, state)
            outputs.append((C[n].unsqueeze(-2) @ h).squeeze(-2))
            starts.append(handed[:-1])
            state = handed[-1]
        ctx.save_for_backward(u, dt, A, B, C, keep, *starts)
        return torch.stack(outputs), state.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_y, d_state = gradients[0].contiguous(), gradients[1]
        u, dt, A, B, C, keep, *starts = ctx.saved_tensors
        d_A, rows = torch.zeros_like(A), []
        a, h, kept = (u.new_empty(*B.shape[1:], u.shape[-1]) for _ in range(3))
        for n in range(len(u) - 1, -1, -1):
            _steps(u[n], dt[n], A, B[n], None if keep is None else keep[n], a=a, h=h)
            before = starts[n]
            for decay, step, passed in zip(a, h, kept, strict=True):
                torch.mul(decay, before, out=passed)
                before = step.add_(passed)
            d_C = (d_y[n].unsqueeze(-2) @ h.mT).squeeze(-2)
            d_h = torch.mul(C[n].unsqueeze(-1), d_y[n].unsqueeze(-2), out=h)
            d_state = _backward_scan(a, d_h, d_state)
            d_u, d_B = (B[n].unsqueeze(-2) @ d_h).squeeze(-2), (u[n].unsqueeze(-2) @ d_h.mT).squeeze(-2)
            moved = kept.mul_(d_h)
            d_dt = torch.mul(moved, A, out=a).sum(-2)
            d_A += moved.mul_(dt[n].unsqueeze(-2)).sum((0, 1)).sum_to_size(A.shape)
            rows.append((d_u, d_dt, d_B, d_C))
        d_u, d_dt, d_B, d_C = (torch.stack(parts[::-1]) for parts in zip(*rows, strict=True))
        return d_u, d_dt, d_A, d_B, d_C, d_state, None


def selective_scan_blocked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, state: Tensor, segments: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Pieces of a block side by side, blocks one after another."""
    (batch, time, channels), dtype = x.shape, x.dtype
    plan, keep = cut(time, batch * channels * A.shape[2]), None
    x, dt, A, B, C = (part.to(state.dtype) for part in (x, dt, A, B, C))
    if segments is not None:
        keep = plan.split(F.pad(runs(segments).diff(dim=1) == 0, (1, 0), value=True).to(state.dtype))
    if len(A) > 1:
        A = A.repeat_interleave(batch // len(A), 0)
    parts = plan.split(dt * x), plan.split(dt), A.mT.contiguous(), plan.split(B), plan.split(C)
    out, last = _Scan.apply(*parts, state.mT.contiguous(), keep)  # type: ignore[no-untyped-call]
    return plan.join(out, time).to(dtype), last.mT


def selective_scan(
    x: Float[Tensor, "batch time channels"],
    dt: Float[Tensor, "batch time channels"],
    A: Float[Tensor, "groups channels size"],
    B: Float[Tensor, "batch time size"],
    C: Float[Tensor, "batch time size"],
    *,
    initial_state: Float[Tensor, "batch channels size"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time channels"], Float[Tensor, "batch channels size"]]:
    """Run every channel's state space over time; returns the outputs and the last states.

    >>> one = torch.ones(1, 3, 1)
    >>> half = torch.full((1, 1, 1), 0.5).log()
    >>> [round(y, 6) for y in selective_scan(one, one, half, one, one)[0].flatten().tolist()]
    [1.0, 1.5, 1.75]
    """
    if initial_state is None:
        initial_state = torch.zeros(len(x), x.shape[2], A.shape[2], dtype=wide(x.dtype), device=x.device)
    hidden = None if segments is None else padding(segments).unsqueeze(-1)
    shown = x if hidden is None else x.masked_fill(hidden, 0.0)
    out, state = dispatch.run(OP, shown, dt, A, B, C, keys=x.shape[1], state=initial_state, segments=segments)
    return (out if hidden is None else out.masked_fill(hidden, 0.0)), state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    channels, size = heads * dim, 4
    x, dt = draw(batch, time, channels), F.softplus(draw(batch, time, channels) - 1)
    return x, dt, -draw(1, channels, size).exp(), draw(batch, time, size), draw(batch, time, size)


OP = dispatch.Op(
    name="selective-scan",
    paths={"reference": selective_scan_reference, "blocked": selective_scan_blocked},
    call=selective_scan,
    sample=_sample,
)
