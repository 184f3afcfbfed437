"""One block that several layers share, as in Zamba (Glorioso et al., 2024, arXiv:2405.16712).

    z = [x, x_0];    x <- x + W_i (block(z) - z)

x: [batch, time, width]; x_0, the input of the first layer, and so z is [batch, time, 2 width] wide: the block, a mixer
and a feed-forward network each around a shortcut, works at twice the width. W_i belongs to the i-th layer that calls
the block; every such layer has a state of its own. In Zamba the result enters the next Mamba layer alone, and the
block has no shortcuts inside; here it enters what all later layers see.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.blocks.gated import GatedBlock
from contexture.blocks.hybrid_norm import HybridNormBlock
from contexture.blocks.post_norm import PostNormBlock
from contexture.blocks.residual import ResidualBlock
from contexture.blocks.steps import StepsBlock
from contexture.leaves.linear import Linear

Block = ResidualBlock | PostNormBlock | HybridNormBlock | GatedBlock | StepsBlock


class SharedCall(nn.Module):
    """A layer that calls a block held elsewhere, so that the block's parameters have one name."""

    def __init__(self, width: int, *, index: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.index = index
        self.output = Linear(2 * width, width, generator=generator, bias=False, gain=gain)

    def stream(
        self,
        x: Float[Tensor, "batch time width"],
        state: Any,
        *,
        start: Float[Tensor, "batch time width"],
        block: Block,
    ) -> tuple[Float[Tensor, "batch time width"], Any]:
        """Continue from a state."""
        both = torch.cat((x, start), -1)
        out, state = block.stream(both, state)
        return x + self.output(out - both), state

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        *,
        start: Float[Tensor, "batch time width"],
        block: Block,
        segments: Int[Tensor, "batch time"] | None = None,
        every: int = 1,
    ) -> Float[Tensor, "batch read width"]:
        """Run over a whole sequence, and return the positions 0, every, 2 * every, ..."""
        both = torch.cat((x, start), -1)
        out = block(both, segments=segments, every=every)
        return x[:, ::every] + self.output(out - both[:, ::every])
