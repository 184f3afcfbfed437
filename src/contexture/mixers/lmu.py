"""The Legendre memory as a layer (Voelker et al., 2019), as LMUFormer places it (Liu et al., 2024, arXiv:2402.04882),
without spikes.

    u_t = x_t W_u + c;    m_t = A m_{t-1} + b u_t  for every head;    y_t = [m_t, x_t] W_o

A and b are those of `contexture.ops.legendre`: each head's m holds the last `window` values of its u as `order`
Legendre coefficients. They are not learned. x, y: [batch, time, width]; u: [batch, time, num_heads];
m: [batch, time, num_heads, order]. The state is the last m, in fp32 at least.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.ops.chunks import wide
from contexture.ops.legendre import legendre_system
from contexture.ops.linear_system import linear_system
from contexture.protocols import MixerCard


class LMU(nn.Module):
    """One number per head and token, remembered over a sliding window.

    `window` is in tokens; InputError unless it is longer than zero.
    """

    card = MixerCard(
        name="lmu",
        summary="Each head keeps a sliding window of one signal as coefficients of Legendre polynomials.",
        paper="Liu et al., LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory Units, "
        "arXiv:2402.04882",
        year=2024,
        state="constant",
        cost="linear",
    )
    matrix: Tensor
    drive: Tensor

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        order: int = 32,
        window: float = 128.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if window <= 0:
            raise InputError(f"a window of {window} tokens holds nothing: choose a positive one")
        self.num_heads, self.order = num_heads, order
        self.projection = Linear(width, num_heads, generator=generator)
        self.output = Linear(num_heads * order + width, width, generator=generator, gain=gain)
        for name, value in zip(("matrix", "drive"), legendre_system(order, window), strict=True):
            self.register_buffer(name, value.to(generator.device, torch.float32), persistent=False)

    def init_state(
        self, batch: int, *, device: torch.device | str, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "batch heads order"]]:
        """An empty window."""
        return (torch.zeros(batch, self.num_heads, self.order, device=device, dtype=wide(dtype)),)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: tuple[Float[Tensor, "batch heads order"]]
    ) -> tuple[Float[Tensor, "batch time width"], tuple[Float[Tensor, "batch heads order"]]]:
        """Move the window over further tokens."""
        memory, after = linear_system(self.projection(x), self.matrix, self.drive, initial_state=state[0])
        return self._join(memory, x), (after,)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        memory, _ = linear_system(self.projection(x), self.matrix, self.drive, segments=segments)
        return self._join(memory, x)

    def _join(self, memory: Tensor, x: Tensor) -> Tensor:
        return self.output(torch.cat((memory.flatten(2).to(x.dtype), x), 2))
