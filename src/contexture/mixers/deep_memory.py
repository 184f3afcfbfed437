"""Layers whose memory is a small network that learns while it is read.

    S_t = eta_t S_{t-1} - theta_t sum_{t - window < i <= t} gamma_i  grad loss(A_t; k_i, v_i)
    M_t = (1 - alpha_t) M_{t-1} + S_t;    y_t = rms_norm(M_t(q_t)) W_o,    M(x) = x + W_2' s(W_1' x)

DeepMemory: Titans' memory (Behrouz et al., arXiv:2501.00663), the squared loss |M(k) - v|^2 / 2 of one token at a time.
DeepLinearAttention: the product loss -M(k).v, which adds without correcting (ATLAS, arXiv:2505.23735).
SlidingWindowLinearAttention: that loss over the last `window` tokens.

A sequence begins from learned weights; forgetting draws them to zero. `gated` takes the form
M(x) = x + W_2' (s(W_1' x) * W_3' x). theta = sigmoid(x W_t) / (window + chunk - 1), gamma and eta are sigmoids of x,
alpha = sigmoid(x W_a - 4). The gradients of a chunk of tokens are taken at one memory (A_t), the one before its first
token: the chunk is part of the mechanism, and 1 makes A_t = M_{t-1}.

See `contexture.mixers.learned_memory` for projections and shapes, `contexture.ops.deep_memory` for the rule.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contexture.leaves.embedding import Embedding
from contexture.mixers.learned_memory import SLOW_FORGETTING, LearnedMemory
from contexture.ops.deep_memory import deep_memory
from contexture.ops.learned_memory import Learned
from contexture.ops.memories import Loss, Parts
from contexture.protocols import MixerCard

ATLAS = "Behrouz et al., ATLAS: Learning to Optimally Memorize the Context at Test Time, arXiv:2505.23735"


class DeepMemory(LearnedMemory):
    """A network of two layers learned by gradient descent with momentum and forgetting.

    `expansion` is how many hidden units there are for each entry of a head.
    """

    card = MixerCard(
        name="deep-memory",
        summary="A network of two layers as a memory, learned by gradient descent with momentum and forgetting.",
        paper="Behrouz et al., Titans: Learning to Memorize at Test Time, arXiv:2501.00663",
        year=2025,
        state="constant",
        cost="linear",
    )
    num_gates = 3
    momentum = True
    loss: Loss = "squared"

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        chunk: int = 16,
        expansion: int = 2,
        gated: bool = False,
        window: int = 1,
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
        dim, hidden = self.heads.dim, expansion * self.heads.dim
        self.shapes = [*([(dim, hidden)] * (2 if gated else 1)), (hidden, dim)]
        self.weights = nn.ModuleList(
            Embedding(num_heads, rows * columns, generator=generator, std=rows**-0.5) for rows, columns in self.shapes
        )

    def fresh(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Parts:
        """The learned weights of every head, [batch, heads, in, out]."""
        ids = torch.arange(self.heads.num_heads, device=device).expand(batch, -1)
        parts = zip(self.weights, self.shapes, strict=True)
        return tuple(torch.unflatten(weights(ids), -1, shape).to(dtype) for weights, shape in parts)

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
        """Descent on the network's weights."""
        theta, eta, alpha, *rest = gates
        return deep_memory(
            q,
            k,
            v,
            torch.sigmoid(theta) / (self.window + self.chunk - 1),
            torch.sigmoid(rest[0]) if rest else torch.ones_like(theta),
            F.logsigmoid(SLOW_FORGETTING - alpha),
            F.logsigmoid(eta),
            *self.fresh(q.shape[0], device=q.device, dtype=q.dtype),
            loss=self.loss,
            window=self.window,
            chunk=self.chunk,
            initial_state=state,
            segments=segments,
        )


class DeepLinearAttention(DeepMemory):
    """A network that is moved towards every value by its product with the memory's output, and never corrected."""

    card = MixerCard(
        name="deep-linear-attention",
        summary="A network of two layers as a memory, to which every token adds without correcting (DLA).",
        paper=ATLAS,
        year=2025,
        state="constant",
        cost="linear",
    )
    loss = "product"


class SlidingWindowLinearAttention(DeepLinearAttention):
    """Deep linear attention whose every step covers a window of tokens."""

    card = MixerCard(
        name="sliding-window-linear-attention",
        summary="Deep linear attention whose every step adds a window of tokens, each weighted by a gate (SWLA).",
        paper=ATLAS,
        year=2025,
        state="constant",
        cost="linear",
    )
    num_gates = 4

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        chunk: int = 16,
        expansion: int = 2,
        gated: bool = False,
        window: int = 16,
        short_convolution: int = 4,
        gain: float = 1.0,
    ) -> None:
        super().__init__(
            width,
            num_heads=num_heads,
            generator=generator,
            chunk=chunk,
            expansion=expansion,
            gated=gated,
            window=window,
            short_convolution=short_convolution,
            gain=gain,
        )
