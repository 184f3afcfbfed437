"""The masked mixer (Badger, 2024, arXiv:2409.01482): an MLP-Mixer's mixing over positions, made causal, in heads.

    v = x W_v;    o_t = sum_{s <= t} M_ts v_s for every head's M;    y = concat over heads of o, times W_o

x, y: [batch, time, width]; v, o: [batch, time, num_heads, dim]; M: [num_heads, max_length, max_length], of which the
lower triangle counts. Weights belong to positions, so nothing can be said past `max_length`. The state is every v so
far.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.leaves.linear import Linear
from contexture.leaves.table import drawn
from contexture.mixers.heads import head_size
from contexture.mixers.learned_positions import positions_in, reach
from contexture.ops.masked_mixing import masked_mixing
from contexture.protocols import MixerCard


class MaskedMixer(nn.Module):
    """Learned weights between positions, the same for every sequence."""

    card = MixerCard(
        name="masked-mixer",
        summary="Every position mixes earlier ones with learned weights that belong to the two positions alone.",
        paper="Badger, Masked Mixers for Language Generation and Retrieval, arXiv:2409.01482",
        year=2024,
        state="grows",
        cost="quadratic",
    )

    def __init__(
        self, width: int, *, num_heads: int, generator: torch.Generator, max_length: int = 1024, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.num_heads, self.dim, self.max_length = num_heads, head_size(width, num_heads), max_length
        self.projection = Linear(width, width, generator=generator, bias=False)
        self.mixing = drawn(num_heads, max_length, max_length, std=max_length**-0.5, generator=generator)
        self.output = Linear(width, width, generator=generator, bias=False, gain=gain)

    def init_state(
        self, batch: int, *, device: torch.device | str, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "batch past heads dim"]]:
        """No inputs yet."""
        return (torch.zeros(batch, 0, self.num_heads, self.dim, device=device, dtype=dtype),)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: tuple[Float[Tensor, "batch past heads dim"]]
    ) -> tuple[Float[Tensor, "batch time width"], tuple[Float[Tensor, "batch seen heads dim"]]]:
        """Mix further tokens with all before them; InputError past `max_length`."""
        reach(state[0].shape[1] + x.shape[1], self.max_length, name=self.card.name)
        out, inputs = masked_mixing(self._split(x), self.mixing.read(), initial_state=state[0])
        return self.output(out.flatten(2)), (inputs,)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence; InputError past `max_length`."""
        positions_in(x, segments, members=None, max_length=self.max_length, name=self.card.name)
        out, _ = masked_mixing(self._split(x), self.mixing.read(), segments=segments)
        return self.output(out.flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(self.projection(x), -1, (self.num_heads, self.dim))
