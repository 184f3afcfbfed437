"""Attention without softmax between the points of a function: Galerkin and Fourier type (Cao, 2021, arXiv:2105.14995).

    Galerkin:  y_i = concat over heads of  q_i' (1/n) sum_j norm(k_j) norm(v_j)',  times W_o
    Fourier:   y_i = concat over heads of  (1/n) sum_j (norm(q_i).norm(k_j)) v_j,  times W_o

with a layer norm over the features of each head (its gain and offset shared by the heads) where softmax attention has a
softmax over the points. Galerkin attention projects the values onto learned basis functions, of which the sum over n
points is the integral. The Fourier type is published as a table of n x n products; as nothing stands between them, the
same sum is taken here in the order that is linear in n.

x: [batch, items, width]; context: [batch, n, width]; q, k, v: [batch, items or n, num_heads, dim].
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.leaves.norm import LayerNorm
from contexture.mixers.heads import head_size
from contexture.protocols import MixerCard


class _Integral(nn.Module):
    """Projections of queries from the items and of keys and values from the set, and the mean of their products."""

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.num_heads, self.dim = num_heads, head_size(width, num_heads)
        self.query = Linear(width, width, generator=generator, bias=False)
        self.memory = Linear(width, 2 * width, generator=generator, bias=False)
        self.output = Linear(width, width, generator=generator, bias=False, gain=gain)

    def split(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        q = torch.unflatten(self.query(x), -1, (self.num_heads, self.dim))
        k, v = torch.unflatten(
            self.memory(x if context is None else context), -1, (2, self.num_heads, self.dim)
        ).unbind(2)
        return q, k, v

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "batch items width"]:
        means = torch.einsum("bnhd,bnhe->bhde", k, v / k.shape[1])
        return self.output(torch.einsum("bihd,bhde->bihe", q, means).flatten(2))


class Galerkin(nn.Module):
    """Queries read the mean of products of normalised keys and values."""

    card = MixerCard(
        name="galerkin",
        summary="Attention without softmax: values projected onto learned basis functions, normalised keys.",
        paper="Cao, Choose a Transformer: Fourier or Galerkin, arXiv:2105.14995",
        year=2021,
        causal=False,
        state="none",
        cost="linear",
    )

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.integral = _Integral(width, num_heads=num_heads, generator=generator, gain=gain)
        self.key_norm, self.value_norm = (LayerNorm(self.integral.dim, device=generator.device) for _ in range(2))

    def forward(
        self,
        x: Float[Tensor, "batch items width"],
        *,
        context: Float[Tensor, "batch others width"] | None = None,
        segments: Int[Tensor, "batch items"] | None = None,
    ) -> Float[Tensor, "batch items width"]:
        """The items x read the set `context`, or themselves.

        Raises InputError if `segments` is given: each batch entry is a set of its own.
        """
        if segments is not None:
            raise InputError("Galerkin attention takes one set per batch entry and no segments")
        q, k, v = self.integral.split(x, context)
        return self.integral.mix(q, self.key_norm(k), self.value_norm(v))


class FourierAttention(nn.Module):
    """Normalised queries weigh values by their products with normalised keys, whatever the sign."""

    card = MixerCard(
        name="fourier-attention",
        summary="Attention without softmax: values weighted by products of normalised queries and keys.",
        paper="Cao, Choose a Transformer: Fourier or Galerkin, arXiv:2105.14995",
        year=2021,
        causal=False,
        state="none",
        cost="linear",
    )

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.integral = _Integral(width, num_heads=num_heads, generator=generator, gain=gain)
        self.query_norm, self.key_norm = (LayerNorm(self.integral.dim, device=generator.device) for _ in range(2))

    def forward(
        self,
        x: Float[Tensor, "batch items width"],
        *,
        context: Float[Tensor, "batch others width"] | None = None,
        segments: Int[Tensor, "batch items"] | None = None,
    ) -> Float[Tensor, "batch items width"]:
        """The items x read the set `context`, or themselves.

        Raises InputError if `segments` is given: each batch entry is a set of its own.
        """
        if segments is not None:
            raise InputError("Fourier attention takes one set per batch entry and no segments")
        q, k, v = self.integral.split(x, context)
        return self.integral.mix(self.query_norm(q), self.key_norm(k), v)
