"""What mixers share whose whole past is one memory per head: how that memory is begun, carried and left behind.

The state is the memory, [batch, heads, ...] in fp32. A mixer of this kind gives the memory's shape and one function
from tokens and memory to outputs and memory. Where queries, keys and values
pass a short convolution first, its last inputs are kept besides. The classes here are no mixers: they have no card.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.mixers.heads import ConvolvedHeads
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


class ConvolvedMemory(NamedTuple):
    """A memory of any kind, the batch first, and the convolution's last inputs, [batch, taps - 1, channels]."""

    memory: Any
    inputs: Tensor


class ConvolvedMemoryMixer(nn.Module):
    """A mixer whose heads pass a short convolution, if any, and whose state is one memory besides.

    The memory is a matrix for each head unless `empty` says otherwise; `recall` reads and updates it.
    """

    heads: ConvolvedHeads

    def empty(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Any:
        """A memory that has seen nothing."""
        heads = self.heads
        return torch.zeros(batch, heads.num_heads, heads.dim, heads.dim, device=device, dtype=wide(dtype))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> ConvolvedMemory:
        """An empty memory and no inputs."""
        inputs = self.heads.init_state(batch, device=device, dtype=dtype)
        return ConvolvedMemory(self.empty(batch, device=device, dtype=dtype), inputs)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: ConvolvedMemory
    ) -> tuple[Float[Tensor, "batch time width"], ConvolvedMemory]:
        """Mix further tokens with what the memory holds."""
        heads, inputs = self.heads.stream(x, state.inputs)
        out, memory = self.recall(x, heads, memory=state.memory)
        return out, ConvolvedMemory(memory, inputs)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self.recall(x, self.heads.split(x, segments=segments), segments=segments)[0]

    def recall(
        self, x: Tensor, heads: tuple[Tensor, ...], *, memory: Any = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Outputs and the memory after them, from queries, keys and values; no memory means an empty one."""
        raise NotImplementedError
