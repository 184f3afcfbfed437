"""Titans' neural memory as a layer, with a matrix for its memory (Behrouz et al., 2025, arXiv:2501.00663).

    q, k = norm(silu(conv(x W_q))), norm(silu(conv(x W_k)));  v = silu(conv(x W_v))
    theta = sigmoid(x W_t) / chunk,  eta = sigmoid(x W_e),  alpha = sigmoid(x W_a - 4)
    S_t = eta_t S_{t-1} - theta_t G_t;  M_t = (1 - alpha_t) M_{t-1} + S_t;  y_t = rms_norm(M_t' q_t) W_o

where G_t is the gradient of |M' k_t - v_t|^2 / 2 at the memory before t's chunk. With chunk = 1 that is M_{t-1}, the
equation as printed; longer chunks are what the paper trains with. Dividing theta by the chunk keeps a chunk of like
keys from overshooting; the offset of 4 lets a new memory forget 2 % a token.

x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]; theta, eta, alpha: [batch, time, num_heads]. The state
is memory, momentum and anchor, [dim, dim] per head in fp32, and the last inputs of the convolution.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import ConvolvedHeads
from contexture.mixers.memory import ConvolvedMemoryMixer
from contexture.ops.titans import MatrixMemory, empty_memory, titans
from contexture.ops.unit import unit
from contexture.protocols import MixerCard

SLOW_FORGETTING = 4.0


class Titans(ConvolvedMemoryMixer):
    """A matrix memory that learns by gradient descent with momentum and forgetting.

    `chunk` is how many tokens take their gradients at one memory, `short_convolution` the number of taps over queries,
    keys and values (1 leaves the convolution out). Raises InputError for a chunk below 1.
    """

    card = MixerCard(
        name="titans",
        summary="A matrix memory learned at every token by gradient descent with momentum and forgetting.",
        paper="Behrouz et al., Titans: Learning to Memorize at Test Time, arXiv:2501.00663",
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
        chunk: int = 1,
        short_convolution: int = 4,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if chunk < 1:
            raise InputError(f"a chunk of {chunk} tokens holds none: give 1 or more")
        self.chunk = chunk
        self.heads = ConvolvedHeads(
            width, num_heads=num_heads, generator=generator, short_convolution=short_convolution, gain=gain
        )
        self.gates = Linear(width, 3 * num_heads, generator=generator)
        self.norm = RMSNorm(self.heads.dim, device=generator.device)

    def empty(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> MatrixMemory:
        """An empty matrix without momentum."""
        heads = self.heads
        return empty_memory(batch, heads.num_heads, heads.dim, heads.dim, device=device, dtype=dtype)

    def recall(
        self,
        x: Tensor,
        heads: tuple[Tensor, ...],
        *,
        memory: MatrixMemory | None = None,
        segments: Tensor | None = None,
    ) -> tuple[Tensor, MatrixMemory]:
        """Read a memory that takes a gradient step at every token."""
        q, k, v = heads
        theta, eta, alpha = torch.unflatten(self.gates(x), -1, (3, -1)).unbind(2)
        out, memory = titans(
            unit(q),
            unit(k),
            v,
            torch.sigmoid(theta) / self.chunk,
            F.logsigmoid(eta),
            F.logsigmoid(SLOW_FORGETTING - alpha),
            chunk=self.chunk,
            initial_state=memory,
            segments=segments,
        )
        return self.heads.join(self.norm(out)), memory
