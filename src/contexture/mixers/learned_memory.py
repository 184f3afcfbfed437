"""What layers around a memory that learns while it is read share; not a mixer, but what such mixers inherit.

    q, k = norm(silu(conv(x W_q))), norm(silu(conv(x W_k)));  v = silu(conv(x W_v));  gates = x W_g + b
    y = rms_norm(memory(q, k, v, gates)) W_o

A mixer says in `learn` what its memory does, and in `fresh` with what parts a sequence begins.

x, y: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]; gates: num_gates of [batch, time, num_heads].
"""

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import ConvolvedHeads
from contexture.mixers.memory import ConvolvedMemoryMixer
from contexture.ops.chunks import wide
from contexture.ops.learned_memory import Learned, unlearned
from contexture.ops.memories import Parts
from contexture.ops.unit import unit

SLOW_FORGETTING = 4.0
"""Subtracted before the sigmoid of the forgetting gate, so that a new memory forgets 2 % a token."""


class LearnedMemory(ConvolvedMemoryMixer):
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

    def empty(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Learned:
        """A memory that has seen nothing."""
        return unlearned(
            self.fresh(batch, device=device, dtype=wide(dtype)),
            batch,
            dim=self.num_features,
            out=self.heads.dim,
            window=self.window,
            momentum=self.momentum,
            device=device,
        )

    def recall(
        self, x: Tensor, heads: tuple[Tensor, ...], *, memory: Learned | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Learned]:
        """Read a memory that `learn` updates at every token."""
        q, k, v = heads
        gates = torch.unflatten(self.gates(x), -1, (self.num_gates, -1)).unbind(2)
        out, memory = self.learn(self.features(q), self.features(k), v, gates, state=memory, segments=segments)
        return self.heads.join(self.norm(out)), memory
