"""Attention as a recurrent network (Aaren; Feng et al., 2024, arXiv:2405.13956).

    k, v = x W_k, x W_v;    y_t = concat over heads of  sum_{s <= t} softmax_s(q.k_s / sqrt(dim)) v_s,  times W_o

The query q is a parameter of each head and the same for all tokens, so that attention to a prefix is a state that the
next token updates: the largest score, the sum of weights and the weighted sum of values.
x: [batch, time, width]; k, v: [batch, time, num_heads, dim]; q: [num_heads, dim].
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.leaves.gain import Gain
from contexture.leaves.linear import Linear
from contexture.mixers.heads import head_size
from contexture.ops.chunks import wide
from contexture.ops.prefix_softmax import prefix_softmax
from contexture.ops.softmax_parts import SoftmaxPart, no_part
from contexture.protocols import MixerCard


class Aaren(nn.Module):
    """Softmax attention of one learned query per head to all tokens so far, in constant memory.

    >>> mixer = Aaren(8, num_heads=2, generator=torch.Generator().manual_seed(0))
    >>> mixer.init_state(1, device="cpu", dtype=torch.float32).summed.shape
    torch.Size([1, 2, 4])
    """

    card = MixerCard(
        name="aaren",
        summary="Attention of a learned query to every prefix, computed as a recurrent network.",
        paper="Feng et al., Attention as an RNN, arXiv:2405.13956",
        year=2024,
        state="constant",
        cost="linear",
    )

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.num_heads, self.dim = num_heads, head_size(width, num_heads)
        self.projection = Linear(width, 2 * width, generator=generator, bias=False)
        # A query of ones asks random keys what a random query would.
        self.query = Gain(width, device=generator.device)
        self.output = Linear(width, width, generator=generator, bias=False, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> SoftmaxPart:
        """Nothing seen yet."""
        return no_part(batch, self.num_heads, out=self.dim, device=device, dtype=wide(dtype))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: SoftmaxPart
    ) -> tuple[Float[Tensor, "batch time width"], SoftmaxPart]:
        """Mix further tokens with the averages in the state."""
        out, state = prefix_softmax(*self._scores_and_values(x), initial_state=state)
        return self.output(out.flatten(2)), state

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        out, _ = prefix_softmax(*self._scores_and_values(x), segments=segments)
        return self.output(out.flatten(2))

    def _scores_and_values(self, x: Tensor) -> tuple[Float[Tensor, "batch time heads"], Tensor]:
        k, v = self.projection(x).chunk(2, -1)
        products = torch.unflatten(self.query(k), -1, (self.num_heads, self.dim))
        return products.sum(-1) * self.dim**-0.5, torch.unflatten(v, -1, (self.num_heads, self.dim))
