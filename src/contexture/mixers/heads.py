"""What mixers with queries, keys and values share: the way from the width to heads and back.

    q, k, v = split(x W);                          Heads
    q, k, v = split(silu(conv(x W)));              ConvolvedHeads (as in DeltaNet, Mamba and Titans)
    y = concat over heads of o, times W_o

x, y: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]. conv is a causal depthwise convolution of a few
taps; with one tap it is left out. Neither class is a mixer: a mixer holds one and adds its op.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.conv import Conv
from contexture.leaves.linear import Linear


def head_size(width: int, num_heads: int) -> int:
    """The size of each of `num_heads` equal heads; InputError if the width cannot be split so.

    >>> head_size(64, 4)
    16
    """
    if width % num_heads:
        raise InputError(f"a width of {width} cannot be split into {num_heads} heads")
    return width // num_heads


class Heads(nn.Module):
    """Queries, keys and values of every head, and the way back to the width.

    Queries and keys have `key_dim` entries, as many as values unless given.
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        key_dim: int | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_heads, self.dim = num_heads, head_size(width, num_heads)
        self.key_dim = self.dim if key_dim is None else key_dim
        channels = num_heads * (2 * self.key_dim + self.dim)
        self.projection = Linear(width, channels, generator=generator, bias=False)
        self.output = Linear(width, width, generator=generator, bias=False, gain=gain)

    def split(self, x: Float[Tensor, "batch time width"]) -> tuple[Tensor, ...]:
        """q, k and v, [batch, time, heads, key_dim or dim]."""
        projected = self.projection(x)
        if self.key_dim == self.dim:
            return torch.unflatten(projected, -1, (3, self.num_heads, self.dim)).unbind(2)
        keys, values = self.num_heads * self.key_dim, self.num_heads * self.dim
        parts = torch.split(projected, [keys, keys, values], dim=-1)
        return tuple(torch.unflatten(part, -1, (self.num_heads, -1)) for part in parts)

    def join(self, mixed: Float[Tensor, "batch time heads dim"]) -> Float[Tensor, "batch time width"]:
        """Back to the width."""
        return self.output(mixed.flatten(2))


class ConvolvedHeads(nn.Module):
    """Heads whose queries, keys and values pass a short convolution and SiLU.

    `short_convolution` is the number of taps; 1 leaves the convolution out. Queries and keys have `key_dim` entries, as
    many as values unless given. The streaming state is the convolution's last inputs, [batch, taps - 1, channels] with
    channels = num_heads * (2 * key_dim + dim).
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        short_convolution: int = 4,
        key_dim: int | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_heads, self.dim = num_heads, head_size(width, num_heads)
        self.key_dim = self.dim if key_dim is None else key_dim
        self.channels = num_heads * (2 * self.key_dim + self.dim)
        self.projection = Linear(width, self.channels, generator=generator, bias=False)
        self.conv = Conv(self.channels, taps=short_convolution, generator=generator) if short_convolution > 1 else None
        self.output = Linear(width, width, generator=generator, bias=False, gain=gain)

    def init_state(
        self, batch: int, *, device: torch.device | str, dtype: torch.dtype
    ) -> Float[Tensor, "batch past channels"]:
        """No inputs yet."""
        taps = 1 if self.conv is None else self.conv.taps
        return torch.zeros(batch, taps - 1, self.channels, device=device, dtype=dtype)

    def stream(
        self, x: Float[Tensor, "batch time width"], inputs: Float[Tensor, "batch past channels"]
    ) -> tuple[tuple[Tensor, ...], Float[Tensor, "batch past channels"]]:
        """q, k and v of further tokens, and the convolution's last inputs."""
        projected = self.projection(x)
        if self.conv is not None:
            projected, inputs = self.conv.stream(projected, inputs)
        return self._split(projected), inputs

    def split(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> tuple[Tensor, ...]:
        """q, k and v of a whole sequence, [batch, time, heads, key_dim or dim]."""
        projected = self.projection(x)
        if self.conv is not None:
            projected = self.conv(projected, segments=segments)
        return self._split(projected)

    def join(self, mixed: Float[Tensor, "batch time heads dim"]) -> Float[Tensor, "batch time width"]:
        """Back to the width."""
        return self.output(mixed.flatten(2))

    def _split(self, projected: Tensor) -> tuple[Tensor, ...]:
        if self.key_dim == self.dim:
            return torch.unflatten(F.silu(projected), -1, (3, self.num_heads, self.dim)).unbind(2)
        keys, values = self.num_heads * self.key_dim, self.num_heads * self.dim
        parts = torch.split(F.silu(projected), [keys, keys, values], dim=-1)
        return tuple(torch.unflatten(part, -1, (self.num_heads, -1)) for part in parts)
