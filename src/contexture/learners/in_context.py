"""A trained sequence model as a learner: it learns in its forward pass, its weights stay as they are.

`prequential` is one causal pass over the episodes. `predict` streams the context once and answers every query from the
state that this leaves, without writing to it. The model computes in its own dtype (fp32 as trained), predictions are
fp64.
"""

import dataclasses
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.models.backbone import BackboneConfig
from contexture.models.forms import PairsState
from contexture.models.pairs import PairsModel, PairsModelConfig, PairsOutput
from contexture.models.state import state_bytes
from contexture.protocols import LearnerCard, Pairs, Prediction, Target
from contexture.randomness import generator

READ_BYTES = 2**28
"""How much memory the repeated states of one block of queries may take."""


class InContext:
    """A PairsModel shown examples and asked queries.

    Episodes with fewer features than the model was made for are padded with zeros, as in the curriculum of Garg et al.
    (2022); more features, or more classes, are refused with InputError.
    """

    card = LearnerCard(
        name="in-context",
        summary="A trained sequence model that learns in its forward pass.",
        paper="Garg et al., What Can Transformers Learn In-Context?, arXiv:2208.01066",
        year=2022,
        kind="in-context",
        targets=frozenset({"regression", "classification"}),
    )

    def __init__(self, model: PairsModel, *, name: str = "in-context") -> None:
        self.model = model
        target: Target = "classification" if model.config.num_classes else "regression"
        self.card = dataclasses.replace(type(self).card, name=name, targets=frozenset({target}))

    @classmethod
    def example(cls) -> Self:
        """A small model with random weights, for the laws."""
        config = PairsModelConfig(num_features=8, backbone=BackboneConfig(pattern="softmax*2", width=16, num_heads=2))
        return cls(PairsModel(config, generator=generator(0, "in-context")))

    @property
    def num_parameters(self) -> int:
        """How many numbers the model has learned."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def state(self, context: Pairs) -> PairsState:
        """What is kept of the context to answer queries; the batch is the first axis of every tensor."""
        with torch.no_grad():
            return self._encode(context)

    def state_bytes(self, context: Pairs) -> int:
        """The bytes kept of one episode to answer queries after `context`."""
        return state_bytes(self.state(context.select(torch.zeros(1, dtype=torch.int64))))

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Answer every query after the whole context."""
        with torch.no_grad():
            state = self._encode(context)
            block = max(1, READ_BYTES // max(1, state_bytes(state)))
            parts = [self.model.read(part, state) for part in torch.split(self._features(queries), block, dim=1)]
        return _prediction(PairsOutput(*(_join(said) for said in zip(*parts, strict=True))))

    def prequential(self, episodes: Pairs) -> Prediction:
        """Predict every y_t from x up to t and y before t, in one pass."""
        with torch.no_grad():
            return _prediction(self.model(self._features(episodes.x), self._targets(episodes)))

    def _encode(self, context: Pairs) -> PairsState:
        x, y = self._features(context.x), self._targets(context)
        state = self.model.init_state(context.batch, device=x.device, dtype=x.dtype)
        return self.model.stream(x, y, state)[1] if context.time else state

    def _features(self, x: Tensor) -> Tensor:
        missing = self.model.config.num_features - x.shape[2]
        if missing < 0:
            raise InputError(
                f"{self.card.name} was made for at most {self.model.config.num_features} features, "
                f"but the episodes have {x.shape[2]}"
            )
        weight = next(self.model.parameters())
        return torch.nn.functional.pad(x.to(device=weight.device, dtype=weight.dtype), (0, missing))

    def _targets(self, episodes: Pairs) -> Tensor:
        weight, classes = next(self.model.parameters()), self.model.config.num_classes
        if bool(classes) != (episodes.schema.task == "classification") or episodes.schema.num_classes > classes:
            made_for = f"a classification of at most {classes} classes" if classes else "a regression"
            raise InputError(f"{self.card.name} was made for {made_for}, but the episodes are not one")
        if classes:
            return episodes.y.to(weight.device)
        return episodes.y.to(device=weight.device, dtype=weight.dtype)


def _join(said: tuple[Tensor | None, ...]) -> Tensor | None:
    parts = [part for part in said if part is not None]
    return torch.cat(parts, dim=1) if parts else None


def _prediction(said: PairsOutput) -> Prediction:
    if said.logits is not None:
        return Prediction(probabilities=said.logits.double().softmax(-1))
    assert said.mean is not None
    variance = None if said.log_variance is None else said.log_variance.double().exp()
    return Prediction(mean=said.mean.double(), variance=variance)
