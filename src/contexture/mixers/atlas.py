"""ATLAS: a memory of polynomial features, learned over windows with orthogonalised steps (Behrouz et al., 2025).

    S_t = eta_t S_{t-1} + theta_t sum_{t - window < i <= t} gamma_i phi(k_i) (v_i - A_t' phi(k_i))'
    M_t = (1 - alpha_t) M_{t-1} + newton_schulz(S_t);    y_t = rms_norm(M_t' phi(q_t)) W_o           arXiv:2505.23735

phi(x) holds all monomials of degree at most 2, those of degree i times a learned r_i that starts at 1 / sqrt(i!), and
is then scaled to length one. theta and gamma are sigmoids of x, eta = sigmoid(x W_e + 2), alpha = sigmoid(x W_a - 4).
The gradients of a chunk of tokens are taken at one memory (A_t), the one before its first token: the chunk is part of
the mechanism. Since a step's singular values are near one whatever the values v are, these are divided by the share
that one step has in what a new memory holds.

Atlas orthogonalises once a chunk, at its last token, so that a token reads what whole chunks have written, and nothing
before the first one has ended; keys have as many entries as make at most dim features, which keeps M square or nearly
so. AtlasPerToken orthogonalises every S_t, as the paper writes it, at many times the cost.

See `contexture.mixers.learned_memory` for projections and shapes, `contexture.ops.atlas` for the rule.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contexture.leaves.gain import Gain
from contexture.mixers.heads import head_size
from contexture.mixers.learned_memory import SLOW_FORGETTING, LearnedMemory
from contexture.ops.atlas import atlas
from contexture.ops.learned_memory import Learned
from contexture.ops.polynomial_features import DEGREE, num_features, quadratic_features
from contexture.ops.unit import unit
from contexture.protocols import MixerCard

LONG_MOMENTUM = 2.0
"""Added before the sigmoid of the momentum's gate: what is orthogonalised should hold more tokens than a few."""


class Atlas(LearnedMemory):
    """A memory of quadratic features whose step is orthogonalised once a chunk.

    `key_dim` is the size of queries and keys before phi; unless given, the largest with at most dim features.
    """

    card = MixerCard(
        name="atlas",
        summary="A memory of quadratic features learned over a window, its step orthogonalised once a chunk.",
        paper="Behrouz et al., ATLAS: Learning to Optimally Memorize the Context at Test Time, arXiv:2505.23735",
        year=2025,
        state="constant",
        cost="linear",
    )
    num_gates = 4
    momentum = True
    every: Literal["token", "chunk"] = "chunk"

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        window: int = 16,
        chunk: int = 16,
        key_dim: int | None = None,
        short_convolution: int = 4,
        gain: float = 1.0,
    ) -> None:
        if key_dim is None:
            dim = head_size(width, num_heads)
            key_dim = max((size for size in range(1, dim + 1) if num_features(size) <= dim), default=1)
        super().__init__(
            width,
            num_heads=num_heads,
            generator=generator,
            window=window,
            chunk=chunk,
            key_dim=key_dim,
            short_convolution=short_convolution,
            gain=gain,
        )
        self.coefficients = torch.nn.ModuleList(
            Gain(1, initial=math.factorial(degree) ** -0.5, device=generator.device) for degree in range(DEGREE + 1)
        )

    @property
    def num_features(self) -> int:
        """The number of monomials."""
        return num_features(self.heads.key_dim)

    @property
    def step_size(self) -> float:
        """What a step of norm one is beside all those that a new memory holds."""
        tokens = self.chunk if self.every == "chunk" else 1
        return -math.expm1(-tokens * math.log1p(math.exp(-SLOW_FORGETTING)))

    def features(self, x: Float[Tensor, "batch time heads dim"]) -> Float[Tensor, "batch time heads features"]:
        """phi(x / |x|), scaled to length one."""
        degrees = quadratic_features(unit(x))
        scaled = [gain(part.unsqueeze(-1)).squeeze(-1) for gain, part in zip(self.coefficients, degrees, strict=True)]
        return unit(torch.cat(scaled, -1))

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
        """ATLAS's rule."""
        theta, gamma, eta, alpha = gates
        return atlas(
            q,
            k,
            v / self.step_size,
            torch.sigmoid(theta),
            torch.sigmoid(gamma),
            F.logsigmoid(SLOW_FORGETTING - alpha),
            F.logsigmoid(LONG_MOMENTUM + eta),
            every=self.every,
            window=self.window,
            chunk=self.chunk,
            initial_state=state,
            segments=segments,
        )


class AtlasPerToken(Atlas):
    """The same memory with every token's step orthogonalised, as the paper writes it."""

    card = MixerCard(
        name="atlas-per-token",
        summary="A memory of quadratic features learned over a window, the step of every token orthogonalised.",
        paper="Behrouz et al., ATLAS: Learning to Optimally Memorize the Context at Test Time, arXiv:2505.23735",
        year=2025,
        state="constant",
        cost="linear",
    )
    every = "token"
