"""A sequence model over tokens: scores for the target at t from ids up to and including t.

ids: int64 [batch, time]; logits: [batch, time, vocabulary]. The logits come from a table of their own, not from the
embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.embedding import Embedding
from contexture.leaves.linear import Linear
from contexture.models.backbone import Backbone, BackboneConfig, BackboneState
from contexture.ops.chunks import wide


@dataclass(frozen=True, kw_only=True)
class TokenModelConfig:
    """The shape of a model over tokens: ids and targets both lie in 0..vocabulary-1."""

    vocabulary: int
    backbone: BackboneConfig = field(default_factory=BackboneConfig)

    def __post_init__(self) -> None:
        if isinstance(self.backbone, Mapping):
            object.__setattr__(self, "backbone", BackboneConfig(**self.backbone))
        if self.vocabulary < 2:
            raise InputError(f"a vocabulary of {self.vocabulary} leaves nothing to predict")


class TokenModel(nn.Module):
    """An embedding, a causal backbone and a table of scores.

    >>> model = TokenModel(TokenModelConfig(vocabulary=16), generator=torch.Generator().manual_seed(0))
    >>> model(torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 5, 16])
    """

    def __init__(self, config: TokenModelConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width = config.backbone.width
        self.embed = Embedding(config.vocabulary, width, generator=generator)
        self.backbone = Backbone(config.backbone, generator=generator)
        self.head = Linear(width, config.vocabulary, generator=generator, bias=False)

    def forward(
        self, ids: Int[Tensor, "batch time"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """Score the target at every position."""
        return self._score(self.backbone(self.embed(ids), segments=segments))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> BackboneState:
        """The state before any token."""
        return self.backbone.init_state(batch, device=device, dtype=dtype)

    def stream(
        self, ids: Int[Tensor, "batch time"], state: BackboneState
    ) -> tuple[Float[Tensor, "batch time vocabulary"], BackboneState]:
        """Score the targets of further tokens."""
        hidden, state = self.backbone.stream(self.embed(ids), state)
        return self._score(hidden), state

    def _score(self, hidden: Tensor) -> Tensor:
        scores = self.head(hidden)
        return scores.to(wide(scores.dtype))
