"""OmegaNet: a matrix memory that learns from a window of tokens at once (Behrouz et al., 2025, arXiv:2505.23735).

    M_t = (1 - alpha_t) M_{t-1} + theta_t sum_{t - window < i <= t} gamma_i k_i (v_i - A_t' k_i)'
    y_t = rms_norm(M_t' q_t) W_o

with gamma_i = sigmoid(x_i W_c), alpha_t = sigmoid(x_t W_a - 4), and theta_t = sigmoid(x_t W_t) / (window + chunk - 1),
so that a window of like keys does not overshoot. The gradients of a chunk of tokens are taken at one memory, the one
before its first token (A_t): that chunk is part of the mechanism, and 1 makes A_t = M_{t-1}.

See `contexture.mixers.learned_memory` for projections and shapes, `contexture.ops.omega` for the rule.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.mixers.learned_memory import SLOW_FORGETTING, LearnedMemory
from contexture.ops.learned_memory import Learned
from contexture.ops.omega import omega
from contexture.protocols import MixerCard


class Omega(LearnedMemory):
    """A matrix memory whose every step is on the loss over the last `window` tokens."""

    card = MixerCard(
        name="omega",
        summary="A matrix memory corrected on a window of tokens at a time, its gradients taken chunk by chunk.",
        paper="Behrouz et al., ATLAS: Learning to Optimally Memorize the Context at Test Time, arXiv:2505.23735",
        year=2025,
        state="constant",
        cost="linear",
    )
    num_gates = 3
    momentum = False

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        window: int = 16,
        chunk: int = 16,
        short_convolution: int = 4,
        gain: float = 1.0,
    ) -> None:
        super().__init__(
            width,
            num_heads=num_heads,
            generator=generator,
            window=window,
            chunk=chunk,
            short_convolution=short_convolution,
            gain=gain,
        )

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
        """The Omega rule."""
        theta, gamma, alpha = gates
        return omega(
            q,
            k,
            v,
            torch.sigmoid(theta) / (self.window + self.chunk - 1),
            torch.sigmoid(gamma),
            F.logsigmoid(SLOW_FORGETTING - alpha),
            window=self.window,
            chunk=self.chunk,
            initial_state=state,
            segments=segments,
        )
