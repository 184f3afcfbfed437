"""The parts of the Set Transformer (Lee et al., 2018, arXiv:1810.00825): attention between sets by way of a few points.

    A(x, z):  every row of x attends with softmax weights to the rows of z, in num_heads heads

    induced set attention:  h = norm(p + A(p, z)),               y = A(x, h)    p: num_points learned inducing points
    pooled attention:       h = norm(s + A(s, gelu(z W_r + b))),  y = A(x, h)    s: num_seeds learned seeds

The items x read what the points or seeds have gathered from the set z, at a cost that is linear in the sizes of both.
`pool` gives the seeds' findings themselves, which is what the paper calls PMA: a summary that no order of z changes.
Shortcut and feed-forward network around y are those of the block that holds the mixer; the one that the paper also puts
on h is left out.

x: [batch, items, width]; z: [batch, others, width], the context, or x itself; p, s, h: [batch, points, width].
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.embedding import Embedding
from contexture.leaves.linear import Linear
from contexture.leaves.norm import LayerNorm
from contexture.mixers.heads import head_size
from contexture.mixers.set_attention import join_heads, set_attention, split_heads
from contexture.protocols import MixerCard


class _Attend(nn.Module):
    """A(x, z), every row of x attends to all rows of z."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, z: Tensor) -> Tensor:
            """Attend."""

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, head_size(width, num_heads) ** -0.5
        self.query = Linear(width, width, generator=generator, bias=False)
        self.memory = Linear(width, 2 * width, generator=generator, bias=False)
        self.output = Linear(width, width, generator=generator, bias=False, gain=gain)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        k, v = self.memory(z).chunk(2, -1)
        q, k, v = (split_heads(part, self.num_heads) for part in (self.query(x), k, v))
        return self.output(join_heads(set_attention(q, k, v, scale=self.scale), self.num_heads))


class _Gather(nn.Module):
    """h = norm(p + A(p, z)) for a few learned points p."""

    if TYPE_CHECKING:

        def __call__(self, z: Tensor) -> Tensor:
            """Gather."""

    def __init__(self, width: int, num_points: int, *, num_heads: int, generator: torch.Generator) -> None:
        super().__init__()
        if num_points < 1:
            raise InputError(f"{num_points} points gather nothing: there must be 1 at least")
        self.points = Embedding(num_points, width, generator=generator)
        self.attend = _Attend(width, num_heads=num_heads, generator=generator)
        self.norm = LayerNorm(width, device=generator.device)

    def forward(self, z: Tensor) -> Tensor:
        ids = torch.arange(self.points.num_entries, device=z.device).expand(z.shape[0], -1)
        points = self.points(ids).to(z.dtype)
        return self.norm(points + self.attend(points, z))


class InducedSetAttention(nn.Module):
    """Items attend to what a few learned inducing points have gathered from the set.

    >>> mixer = InducedSetAttention(8, num_heads=2, generator=torch.Generator().manual_seed(0))
    >>> mixer(torch.ones(1, 5, 8), context=torch.ones(1, 3, 8)).shape
    torch.Size([1, 5, 8])
    """

    card = MixerCard(
        name="induced-set-attention",
        summary="Attention within a set by way of a few learned points, at linear cost.",
        paper="Lee et al., Set Transformer, arXiv:1810.00825",
        year=2018,
        causal=False,
        state="none",
        cost="linear",
    )

    def __init__(
        self, width: int, *, num_heads: int, generator: torch.Generator, num_points: int = 16, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.gather = _Gather(width, num_points, num_heads=num_heads, generator=generator)
        self.read = _Attend(width, num_heads=num_heads, generator=generator, gain=gain)

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
            raise InputError("induced set attention takes one set per batch entry and no segments")
        return self.read(x, self.gather(x if context is None else context))


class PooledAttention(nn.Module):
    """Learned seeds summarise a set by attention; items read the summary.

    >>> mixer = PooledAttention(8, num_heads=2, num_seeds=3, generator=torch.Generator().manual_seed(0))
    >>> mixer.pool(torch.ones(1, 5, 8)).shape
    torch.Size([1, 3, 8])
    """

    card = MixerCard(
        name="pooled-attention",
        summary="A set's summary by the attention of a few learned seeds, which its items read.",
        paper="Lee et al., Set Transformer, arXiv:1810.00825",
        year=2018,
        causal=False,
        state="none",
        cost="linear",
    )

    def __init__(
        self, width: int, *, num_heads: int, generator: torch.Generator, num_seeds: int = 4, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.rows = Linear(width, width, generator=generator)
        self.gather = _Gather(width, num_seeds, num_heads=num_heads, generator=generator)
        self.read = _Attend(width, num_heads=num_heads, generator=generator, gain=gain)

    def pool(self, z: Float[Tensor, "batch others width"]) -> Float[Tensor, "batch seeds width"]:
        """One vector per seed, the same for every order of the set."""
        return self.gather(F.gelu(self.rows(z)))

    def forward(
        self,
        x: Float[Tensor, "batch items width"],
        *,
        context: Float[Tensor, "batch others width"] | None = None,
        segments: Int[Tensor, "batch items"] | None = None,
    ) -> Float[Tensor, "batch items width"]:
        """The items x read the summary of the set `context`, or of themselves.

        Raises InputError if `segments` is given: each batch entry is a set of its own.
        """
        if segments is not None:
            raise InputError("pooled attention takes one set per batch entry and no segments")
        return self.read(x, self.pool(x if context is None else context))
