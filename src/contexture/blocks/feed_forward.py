"""Position-wise feed-forward networks: two maps with a nonlinearity, or a gated pair.

    y = W_2 s(W_1 x),  s = GELU (Hendrycks & Gimpel, 2016, arXiv:1606.08415) or ReLU;
    y = W_2 (silu(W_1 x) * W_3 x)  (SwiGLU: Shazeer, 2020, arXiv:2002.05202)

x: [batch, time, width]; hidden: [batch, time, hidden]. GELU is the exact form: its erf is three times faster on a CPU
than the tanh approximation.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contexture.leaves.linear import Linear


class GELU(nn.Module):
    """W_2 gelu(W_1 x)."""

    def __init__(self, width: int, *, hidden: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.enter = Linear(width, hidden, generator=generator)
        self.leave = Linear(hidden, width, generator=generator, gain=gain)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """Map every position by itself."""
        return self.leave(F.gelu(self.enter(x)))


class ReLU(nn.Module):
    """W_2 relu(W_1 x)."""

    def __init__(self, width: int, *, hidden: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.enter = Linear(width, hidden, generator=generator)
        self.leave = Linear(hidden, width, generator=generator, gain=gain)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """Map every position by itself."""
        return self.leave(F.relu(self.enter(x)))


class SwiGLU(nn.Module):
    """W_2 (silu(W_1 x) * W_3 x), without biases."""

    def __init__(self, width: int, *, hidden: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.enter = Linear(width, 2 * hidden, generator=generator, bias=False)
        self.leave = Linear(hidden, width, generator=generator, bias=False, gain=gain)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """Map every position by itself."""
        gate, value = torch.unflatten(self.enter(x), -1, (2, -1)).unbind(-2)
        return self.leave(F.silu(gate) * value)


FEED_FORWARD: dict[str, type[GELU] | type[ReLU] | type[SwiGLU]] = {"gelu": GELU, "relu": ReLU, "swiglu": SwiGLU}
