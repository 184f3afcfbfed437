"""Sparse state expansion (Pan et al., 2025, arXiv:2507.16577): many memories, of which a token uses a few.

    q, k, v = x W_q, x W_k, x W_v;    q2, k2 = q + x A_q B_q, k + x A_k B_k;    r = softmax(x W_r)
    o = linear_attention(silu(q), softmax(k), silu(v))  +  routed_linear_attention(silu(q2), softmax(k2), silu(v), r)
    y = (rms_norm(o) * silu(x W_g)) W_o

The first term is one memory that every token writes and reads. The second has `num_partitions`, of which every token
takes those `num_routes` with the largest shares; the share scales its key when it writes and its query when it reads.
A softmax over a key's entries makes writing a choice of rows. Parameters and work stay what they are however many
partitions there are; the state grows. The paper's decays of the memories are left out: the inner update is the sum.

x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]; r: [batch, time, num_partitions].
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import Heads
from contexture.ops.chunks import wide
from contexture.ops.linear_attention import linear_attention
from contexture.ops.routed_linear_attention import routed_linear_attention
from contexture.ops.routing import routes
from contexture.protocols import MixerCard


class SparseState(NamedTuple):
    """The memory that all tokens use, [batch, heads, dim, dim], and the partitions, [batch, partitions, ...]."""

    shared: Tensor
    partitions: Tensor


class SparseStateExpansion(nn.Module):
    """Linear attention over one shared memory and a few of many."""

    card = MixerCard(
        name="sse",
        summary="Linear attention over many memories, of which a router lets each token use a few.",
        paper="Pan et al., Scaling Linear Attention with Sparse State Expansion, arXiv:2507.16577",
        year=2025,
        state="constant",
        cost="linear",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        num_partitions: int = 4,
        num_routes: int = 1,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if not 1 <= num_routes <= num_partitions:
            raise InputError(f"a token cannot use {num_routes} of {num_partitions} partitions: use 1 to all of them")
        self.num_partitions, self.num_routes = num_partitions, num_routes
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)
        dim = self.heads.dim
        self.narrow = Linear(width, 2 * dim, generator=generator, bias=False)
        self.query_change = Linear(dim, width, generator=generator, bias=False)
        self.key_change = Linear(dim, width, generator=generator, bias=False)
        self.router = Linear(width, num_partitions, generator=generator, bias=False)
        self.gate = Linear(width, width, generator=generator, bias=False)
        self.norm = RMSNorm(dim, device=generator.device)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> SparseState:
        """Empty memories."""
        shape, held = (self.heads.num_heads, self.heads.dim, self.heads.dim), wide(dtype)
        return SparseState(
            torch.zeros(batch, *shape, device=device, dtype=held),
            torch.zeros(batch, self.num_partitions, *shape, device=device, dtype=held),
        )

    def stream(
        self, x: Float[Tensor, "batch time width"], state: SparseState
    ) -> tuple[Float[Tensor, "batch time width"], SparseState]:
        """Mix further tokens with what the memories hold."""
        return self._recall(x, state)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self._recall(x, None, segments)[0]

    def balance(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch"]:
        """How evenly every sequence uses its partitions: 1 if evenly, num_partitions / num_routes if always the same.

        It is num_partitions / num_routes * sum_n f_n p_n, where f_n is how often n is taken and p_n its mean share; to
        be kept low by whoever trains the mixer.
        """
        shares = self._shares(x)
        taken = F.one_hot(routes(shares, self.num_routes)[1], self.num_partitions).sum(2).to(shares.dtype)
        return (taken.mean(1) * shares.mean(1)).sum(-1) * (self.num_partitions / self.num_routes)

    def _shares(self, x: Tensor) -> Tensor:
        return torch.softmax(self.router(x), -1)

    def _recall(
        self, x: Tensor, state: SparseState | None, segments: Tensor | None = None
    ) -> tuple[Tensor, SparseState]:
        q, k, v = self.heads.split(x)
        narrow_query, narrow_key = self.narrow(x).chunk(2, -1)
        routed_q = q + self.query_change(narrow_query).view_as(q)
        routed_k = k + self.key_change(narrow_key).view_as(k)
        values = F.silu(v)
        shared, kept = linear_attention(
            F.silu(q),
            torch.softmax(k, -1).to(q.dtype),
            values,
            initial_state=None if state is None else state.shared,
            segments=segments,
        )
        routed, partitions = routed_linear_attention(
            F.silu(routed_q),
            torch.softmax(routed_k, -1).to(q.dtype),
            values,
            self._shares(x).to(q.dtype),
            num_routes=self.num_routes,
            initial_state=None if state is None else state.partitions,
            segments=segments,
        )
        gate = torch.unflatten(F.silu(self.gate(x)), -1, (self.heads.num_heads, -1))
        return self.heads.join(self.norm(shared + routed) * gate), SparseState(kept, partitions)
