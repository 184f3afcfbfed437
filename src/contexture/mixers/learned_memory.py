"""What layers around a memory that learns while it is read share; not a mixer, but what such mixers inherit.

    q, k = norm(silu(conv(x W_q))), norm(silu(conv(x W_k)));  v = silu(conv(x W_v));  gates = x W_g + b
    y = rms_norm(memory(q, k, v, gates)) W_o

A mixer says in `learn` what its memory does, and in `fresh` with what parts a sequence begins.

x, y: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]; gates: num_gates of [batch, time, num_heads].
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import ConvolvedHeads
from contexture.ops.chunks import wide
from contexture.ops.learned_memory import Learned, unlearned
from contexture.ops.memories import Parts
from contexture.ops.unit import unit

SLOW_FORGETTING = 4.0
"""Subtracted before the sigmoid of the forgetting gate, so that a new memory forgets 2 % a token."""


class LearnedState(NamedTuple):
    """The memory with the tokens of its window, and the convolution's last inputs, [batch, taps - 1, 3 * width]."""

    memory: Learned
    inputs: Tensor


class LearnedMemory(nn.Module):
    """Projections, gates and state around a memory; a subclass adds `learn`, and `fresh` if it starts from weights.

    `window` is how many tokens the inner loss covers, `chunk` how many take their gradients at one memory. Raises
    InputError if either is below 1.
    """

    num_gates: int
    momentum: bool

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        window: int,
        chunk: int,
        short_convolution: int,
        gain: float,
        key_dim: int | None = None,
    ) -> None:
        super().__init__()
        if min(window, chunk) < 1:
            raise InputError(f"a window of {window} or a chunk of {chunk} tokens holds none: give 1 or more")
        self.window, self.chunk = window, chunk
        self.heads = ConvolvedHeads(
            width,
            num_heads=num_heads,
            generator=generator,
            short_convolution=short_convolution,
            key_dim=key_dim,
            gain=gain,
        )
        self.gates = Linear(width, self.num_gates * num_heads, generator=generator)
        self.norm = RMSNorm(self.heads.dim, device=generator.device)

    def fresh(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Parts:
        """The parts with which a sequence begins: here a matrix of zeros, [batch, heads, num_features, dim]."""
        heads, dim = self.heads.num_heads, self.heads.dim
        return (torch.zeros(batch, heads, self.num_features, dim, device=device, dtype=dtype),)

    def learn(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        gates: tuple[Tensor, ...],
        *,
        state: Learned | None,
        segments: Tensor | None,
    ) -> tuple[Tensor, Learned]:
        """The memory's outputs and last state; a subclass says how."""
        raise NotImplementedError

    @property
    def num_features(self) -> int:
        """The size of a key as the memory sees it."""
        return self.heads.dim

    def features(self, x: Float[Tensor, "batch time heads dim"]) -> Float[Tensor, "batch time heads features"]:
        """Queries and keys as the memory sees them: here of length one."""
        return unit(x)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> LearnedState:
        """A memory that has seen nothing, and no inputs."""
        memory = unlearned(
            self.fresh(batch, device=device, dtype=wide(dtype)),
            batch,
            dim=self.num_features,
            out=self.heads.dim,
            window=self.window,
            momentum=self.momentum,
            device=device,
        )
        return LearnedState(memory, self.heads.init_state(batch, device=device, dtype=dtype))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: LearnedState
    ) -> tuple[Float[Tensor, "batch time width"], LearnedState]:
        """Mix further tokens with what the memory holds."""
        heads, inputs = self.heads.stream(x, state.inputs)
        out, memory = self._recall(x, heads, memory=state.memory)
        return out, LearnedState(memory, inputs)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self._recall(x, self.heads.split(x, segments=segments), segments=segments)[0]

    def _recall(
        self,
        x: Tensor,
        heads: tuple[Tensor, ...],
        *,
        memory: Learned | None = None,
        segments: Tensor | None = None,
    ) -> tuple[Tensor, Learned]:
        q, k, v = heads
        gates = torch.unflatten(self.gates(x), -1, (self.num_gates, -1)).unbind(2)
        out, memory = self.learn(self.features(q), self.features(k), v, gates, state=memory, segments=segments)
        return self.heads.join(self.norm(out)), memory
