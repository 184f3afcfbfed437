"""Performer: attention by positive orthogonal random features (Choromanski et al., 2020, arXiv:2009.14794).

    o_t = sum_{s <= t} v_s f(q_t).f(k_s) / sum_{s <= t} f(q_t).f(k_s)
    f(x) = exp(w_j.x' - |x'|^2 / 2), j = 1 .. num_features,    x' = x / dim^(1/4)

so that f(q).f(k) / num_features estimates exp(q.k / sqrt(dim)) without bias. The directions w_j are drawn once, from
the generator, and kept. How the exponentials are kept finite without looking ahead: `contexture.ops.random_features`.

x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]. The state is one [num_features, dim + 1] sum per head.
"""

import math

import torch
from torch import Tensor

from contexture.leaves.frozen import FrozenLinear
from contexture.mixers.heads import Heads
from contexture.mixers.memory import MemoryMixer
from contexture.ops.chunks import wide
from contexture.ops.linear_attention import linear_attention
from contexture.ops.random_features import key_features, orthogonal_directions, query_features
from contexture.ops.weighted_average import weighted_average
from contexture.protocols import MixerCard


class Performer(MemoryMixer):
    """Softmax attention estimated from random features, in constant memory.

    `num_features` is dim log(dim), rounded up, unless given; all heads share the directions.
    """

    card = MixerCard(
        name="performer",
        summary="Softmax attention estimated without bias from positive, orthogonal random features.",
        paper="Choromanski et al., Rethinking Attention with Performers, arXiv:2009.14794",
        year=2020,
        state="constant",
        cost="linear",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        num_features: int | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)
        dim = self.heads.dim
        if num_features is None:
            num_features = max(1, math.ceil(dim * math.log(dim)))
        self.directions = FrozenLinear(orthogonal_directions(num_features, dim, generator=generator))
        self.memory_shape = (num_heads, num_features, dim + 1)

    def attend(
        self, x: Tensor, *, memory: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Average values with the estimated weights."""
        q, k, v = (part.to(wide(part.dtype)) for part in self.heads.split(x))
        bound = self.directions.weight.square().sum(-1).amax() / 2
        out, memory = weighted_average(
            linear_attention,
            query_features(self._exponents(q)),
            key_features(self._exponents(k), bound=bound),
            v,
            initial_state=memory,
            segments=segments,
        )
        return self.heads.join(out.to(x.dtype)), memory

    def _exponents(self, x: Tensor) -> Tensor:
        # An exponent rounded to bf16 would be off by per cents once it is raised.
        with torch.autocast(x.device.type, enabled=False):
            x = x * x.shape[-1] ** -0.25
            return self.directions(x) - x.square().sum(-1, keepdim=True) / 2
