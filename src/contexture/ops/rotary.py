"""Rotary position embedding (Su et al., 2021, RoFormer, arXiv:2104.09864).

The pair (x_i, x_{i+dim/2}) of a head at position p turns by the angle p * base^(-2i/dim), so that the product of a
query and a key depends on their distance alone.
x: [batch, time, heads, dim]; positions: int64 [batch, time] or [1, time].
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def angles(
    positions: Int[Tensor, "rows time"], dim: int, *, base: float = 10_000.0, dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "rows time 1 half"], Float[Tensor, "rows time 1 half"]]:
    """Cosine and sine of every position's angles, in fp32, or in fp64 where `dtype` is fp64."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    rates = base ** -(torch.arange(dim // 2, device=positions.device, dtype=torch.float64) * (2 / dim))
    turned = (positions.unsqueeze(-1).to(torch.float64) * rates).unsqueeze(2)
    return turned.cos().to(wide), turned.sin().to(wide)


def rotate(
    x: Float[Tensor, "batch time heads dim"], cosine: Float[Tensor, "rows time 1 half"], sine: Tensor
) -> Float[Tensor, "batch time heads dim"]:
    """Turn every head of x; the arithmetic is that of the angles, the result has x's dtype."""
    first, second = torch.unflatten(x.to(cosine.dtype), -1, (2, -1)).unbind(-2)
    turned = torch.stack((first * cosine - second * sine, second * cosine + first * sine), dim=-2)
    return turned.flatten(-2).to(x.dtype)
