"""A trained model over tokens as a learner: it learns in its forward pass, its weights stay as they are."""

import dataclasses
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.models.backbone import BackboneConfig
from contexture.models.state import state_bytes
from contexture.models.tokens import TokenModel, TokenModelConfig
from contexture.protocols import LearnerCard
from contexture.randomness import generator


class InContextTokens:
    """A TokenModel asked for the target at every position.

    >>> InContextTokens.example().logits(torch.tensor([[3, 1, 3]])).shape
    torch.Size([1, 3, 16])
    """

    card = LearnerCard(
        name="in-context-tokens",
        summary="A trained model over tokens that learns in its forward pass.",
        paper="Olsson et al.: In-context learning and induction heads",
        year=2022,
        kind="in-context",
        targets=frozenset(),
    )

    def __init__(self, model: TokenModel, *, name: str = "in-context-tokens") -> None:
        self.model = model
        self.card = dataclasses.replace(type(self).card, name=name)

    @classmethod
    def example(cls) -> Self:
        """A small model with random weights, for the laws."""
        config = TokenModelConfig(vocabulary=16, backbone=BackboneConfig(pattern="softmax*2", width=16, num_heads=2))
        return cls(TokenModel(config, generator=generator(0, "in-context-tokens")))

    def kept_bytes(self, length: int) -> int:
        """The bytes of one sequence's state after `length` tokens."""
        with torch.no_grad():
            weight = self.model.head.weight
            state = self.model.init_state(1, device=weight.device, dtype=weight.dtype)
            if length:
                blank = torch.zeros(1, length, dtype=torch.int64, device=weight.device)
                _, state = self.model.stream(blank, state)
        return state_bytes(state)

    def logits(
        self, tokens: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """One pass over the sequences; InputError for a token that the model has no vector for."""
        vocabulary = self.model.config.vocabulary
        if tokens.numel() and int(tokens.max()) >= vocabulary:
            raise InputError(
                f"{self.card.name} was made for {vocabulary} tokens, but the sequences hold token {int(tokens.max())}: "
                "train one for the task's own vocabulary"
            )
        device = self.model.head.weight.device
        with torch.no_grad():
            logits = self.model(tokens.to(device), segments=None if segments is None else segments.to(device))
        scores: Tensor = logits
        return scores
