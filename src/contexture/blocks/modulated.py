"""A pre-norm block whose two branches are scaled from outside, as in LoopFormer (Jeddi et al., 2026, arXiv:2602.11451).

    x <- x + g_1 * mixer((1 + s_1) * norm(x));    x <- x + g_2 * feed_forward((1 + s_2) * norm(x))

x: [batch, time, width]; factors g_1, s_1, g_2, s_2: [batch, 1, width]. With gates of zero the block is the identity.
"""

from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from contexture.blocks.residual import ResidualBlock


class Factors(NamedTuple):
    """The gate and the scale of the mixer's branch, and those of the feed-forward network's."""

    mixer_gate: Float[Tensor, "batch 1 width"]
    mixer_scale: Float[Tensor, "batch 1 width"]
    network_gate: Float[Tensor, "batch 1 width"]
    network_scale: Float[Tensor, "batch 1 width"]


def modulated(
    block: ResidualBlock,
    x: Float[Tensor, "batch time width"],
    factors: Factors,
    *,
    segments: Int[Tensor, "batch time"] | None = None,
) -> Float[Tensor, "batch time width"]:
    """Run over a whole sequence.

    >>> import torch
    >>> from contexture.blocks.feed_forward import GELU
    >>> from contexture.leaves.norm import RMSNorm
    >>> from contexture.mixers.softmax import SoftmaxAttention
    >>> fresh = torch.Generator().manual_seed(0)
    >>> mixer, network = SoftmaxAttention(4, num_heads=1, generator=fresh), GELU(4, hidden=8, generator=fresh)
    >>> block = ResidualBlock(mixer=mixer, feed_forward=network, norms=(RMSNorm(4), RMSNorm(4)))
    >>> x = torch.ones(1, 3, 4)
    >>> torch.equal(modulated(block, x, Factors(*torch.zeros(4, 1, 1, 4))), x)
    True
    """
    mixed = block.mixer((1 + factors.mixer_scale) * block.mixer_norm(x), segments=segments)
    return _leave(block, x, mixed, factors)


def modulated_stream(
    block: ResidualBlock, x: Float[Tensor, "batch time width"], factors: Factors, state: Any
) -> tuple[Float[Tensor, "batch time width"], Any]:
    """Continue from a state of the block's mixer."""
    mixed, state = block.mixer.stream((1 + factors.mixer_scale) * block.mixer_norm(x), state)
    return _leave(block, x, mixed, factors), state


def _leave(block: ResidualBlock, x: Tensor, mixed: Tensor, factors: Factors) -> Tensor:
    x = x + factors.mixer_gate * mixed
    entered = (1 + factors.network_scale) * block.feed_forward_norm(x)
    out: Tensor = x + factors.network_gate * block.feed_forward(entered)
    return out
