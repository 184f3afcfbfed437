"""Mixers side by side, as in Hymba (Dong et al., 2024, arXiv:2411.13676): one input, the mean of their normed outputs.

    y = (1 / n) sum_i rms_norm_i(mixer_i(x))

x, y: [batch, time, width]. Without the norms the mixer with the largest outputs would drown the others. The norms'
gains are learned and start at `gain`, the scale that a mixer by itself gives its output. The state is the tuple of the
mixers' states.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.blocks.mixer import Mixer
from contexture.leaves.norm import RMSNorm


class Mixers(nn.ModuleList):
    """The mixers in order."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Mixer]:
            """Iterate over the mixers."""


class Norms(nn.ModuleList):
    """The norms in the mixers' order."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[RMSNorm]:
            """Iterate over the norms."""


class Parallel(Mixer):
    """Several causal mixers as one."""

    def __init__(self, mixers: Sequence[Mixer], *, width: int, gain: float, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.mixers = Mixers(mixers)
        self.norms = Norms(RMSNorm(width, device=device) for _ in mixers)
        with torch.no_grad():
            for norm in self.norms:
                norm.weight.fill_(gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> tuple[Any, ...]:
        """The mixers' states before any token."""
        return tuple(mixer.init_state(batch, device=device, dtype=dtype) for mixer in self.mixers)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: tuple[Any, ...]
    ) -> tuple[Float[Tensor, "batch time width"], tuple[Any, ...]]:
        """Mix further tokens."""
        outputs, states = zip(
            *(mixer.stream(x, one) for mixer, one in zip(self.mixers, state, strict=True)), strict=True
        )
        return self._mean(outputs), states

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self._mean([mixer(x, segments=segments) for mixer in self.mixers])

    def _mean(self, outputs: Sequence[Tensor]) -> Tensor:
        normed = [norm(out) for norm, out in zip(self.norms, outputs, strict=True)]
        return torch.stack(normed).mean(0)
