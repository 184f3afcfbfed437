"""What mixers share whose whole past is one memory per head: how that memory is begun, carried and left behind.

The state is the memory, [batch, heads, ...] in fp32. A mixer of this kind gives the memory's shape and one function
from tokens and memory to outputs and memory. The class here is not a mixer: it has no card.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.ops.chunks import wide


class Memory(NamedTuple):
    """All that a mixer keeps of the past, [batch, heads, ...] in fp32."""

    memory: Tensor


class MemoryMixer(nn.Module):
    """A mixer whose state is one memory; `memory_shape` is its shape without the batch."""

    memory_shape: tuple[int, ...]

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Memory:
        """An empty memory."""
        return Memory(torch.zeros(batch, *self.memory_shape, device=device, dtype=wide(dtype)))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: Memory
    ) -> tuple[Float[Tensor, "batch time width"], Memory]:
        """Mix further tokens with what the memory holds."""
        out, memory = self.attend(x, memory=state.memory)
        return out, Memory(memory)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self.attend(x, segments=segments)[0]

    def attend(
        self, x: Tensor, *, memory: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs and the memory after them; no memory means an empty one."""
        raise NotImplementedError
