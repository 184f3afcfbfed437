"""The type of a mixer as blocks hold it: a module with the three verbs of `contexture.protocols.CausalMixer`."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn


class Mixer(nn.Module):
    """What a block asks of its mixer; mixers need not inherit from it."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, *, segments: Tensor | None = None) -> Tensor:
            """Mix or map x."""

        def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Any:
            """The state before any token."""

        def stream(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
            """Mix further tokens."""
