"""A model over a stream of pairs that need not be known beforehand: features and classes may still come.

    tokens   x_1 y_1 x_2 y_2 ...        said at x_t, of y_t, from all before and x_t
    x_t  ->  [values, which of them are there] W_x        y_t  ->  row of a table, or y_t w + b
    scores:  one for each class met, and one for a class never met;    numbers: a mean and a log-variance

values, present: [batch, time, slots], a slot for each feature, zero where a feature is absent; y: [batch, time], int64
codes or numbers; said: [batch, time, classes + 1] or [batch, time, 2]. Slots and classes beyond the present capacity
make the model grow: old weights stay as they are, new ones are drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.embedding import Embedding
from contexture.leaves.linear import Linear
from contexture.models.backbone import Backbone, BackboneConfig, BackboneState

LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE = -8.0, 8.0


def two_layers(context: int = 32, width: int = 64, num_heads: int = 4) -> BackboneConfig:
    """Two layers of attention to the last `context` pairs."""
    settings = {"sliding-window": {"window": max(1, 2 * context)}}
    return BackboneConfig(pattern="sliding-window*2", width=width, num_heads=num_heads, settings=settings)


@dataclass(frozen=True, kw_only=True)
class StreamModelConfig:
    """The shape of a model over pairs: room for features and for classes; no classes make the target a number."""

    num_slots: int = 8
    num_classes: int = 8
    backbone: BackboneConfig = field(default_factory=two_layers)

    def __post_init__(self) -> None:
        if isinstance(self.backbone, Mapping):
            object.__setattr__(self, "backbone", BackboneConfig(**self.backbone))
        if self.num_slots < 1 or self.num_classes < 0:
            raise InputError(
                f"a stream needs room for features, and for classes or none, not {self.num_slots}, {self.num_classes}"
            )


class StreamModel(nn.Module):
    """Embeddings of features and targets, a causal backbone, and a head."""

    def __init__(self, config: StreamModelConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width, classes = config.backbone.width, config.num_classes
        self.read = Linear(2 * config.num_slots, width, generator=generator)
        self.told: Embedding | Linear
        if classes:
            self.told = Embedding(classes, width, generator=generator, std=width**-0.5)
        else:
            self.told = Linear(1, width, generator=generator)
        self.backbone = Backbone(config.backbone, generator=generator)
        self.head = Linear(width, classes + 1 if classes else 2, generator=generator, gain=0.1)

    def init_state(self, batch: int) -> BackboneState:
        """The state before any pair."""
        return self.backbone.init_state(batch, device="cpu", dtype=torch.float32)

    def ask(
        self, values: Float[Tensor, "batch time slots"], present: Shaped[Tensor, "batch time slots"]
    ) -> Float[Tensor, "batch time width"]:
        """The tokens of what is asked about."""
        return self.read(torch.cat((values, present.to(values.dtype)), -1))

    def tell(self, y: Shaped[Tensor, "batch time"]) -> Float[Tensor, "batch time width"]:
        """The tokens of targets."""
        return self.told(y) if isinstance(self.told, Embedding) else self.told(y.unsqueeze(-1))

    def stream(
        self, values: Tensor, present: Tensor, y: Tensor, state: BackboneState
    ) -> tuple[Float[Tensor, "batch time said"], BackboneState]:
        """What is said of each pair's target before it is told, and the state after all of them."""
        tokens = torch.stack((self.ask(values, present), self.tell(y)), 2).flatten(1, 2)
        hidden, state = self.backbone.stream(tokens, state)
        return self.head(hidden[:, ::2]), state

    def predict(self, values: Tensor, present: Tensor, state: BackboneState) -> Float[Tensor, "batch said"]:
        """What is said of one more target; values: [batch, slots]."""
        hidden, _ = self.backbone.stream(self.ask(values[:, None], present[:, None]), state)
        return self.head(hidden[:, 0])

    def alone(self, values: Tensor, present: Tensor) -> Float[Tensor, "batch time said"]:
        """What is said of each target from its own features, without any context."""
        tokens = self.ask(values, present).flatten(0, 1).unsqueeze(1)
        return torch.unflatten(self.head(self.backbone(tokens)[:, 0]), 0, values.shape[:2])

    def grow(self, *, num_slots: int, num_classes: int, generator: torch.Generator) -> None:
        """Make room for more: what was learned stays where it was."""
        old, new = (
            self.config,
            StreamModelConfig(num_slots=num_slots, num_classes=num_classes, backbone=self.config.backbone),
        )
        fresh = StreamModel(new, generator=generator)
        with torch.no_grad():
            for part in (0, 1):  # values, then presence
                fresh.read.weight[:, part * num_slots : part * num_slots + old.num_slots] = self.read.weight[
                    :, part * old.num_slots : (part + 1) * old.num_slots
                ]
            fresh.read.load_state_dict({"weight": fresh.read.weight, "bias": self.read.bias})
            if old.num_classes:
                fresh.told.weight[: old.num_classes] = self.told.weight
                for mine, theirs in zip(fresh.head.parameters(), self.head.parameters(), strict=True):
                    mine[: old.num_classes], mine[-1] = theirs[:-1], theirs[-1]
        self.config, self.read = new, fresh.read
        if old.num_classes:
            self.told, self.head = fresh.told, fresh.head


def log_chances(
    said: Float[Tensor, "*batch classes_and_one"], known: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch classes_and_one"]:
    """The log-probability of every class, of which the first `known` have been met; last that of one never met."""
    place = torch.arange(said.shape[-1], device=said.device)
    unmet = (place >= known.unsqueeze(-1)) & (place < said.shape[-1] - 1)
    return F.log_softmax(said.masked_fill(unmet, -torch.inf), -1)


def gaussian(said: Float[Tensor, "*batch 2"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """The mean, and the log-variance kept within what numbers can bear."""
    return said[..., 0], said[..., 1].clamp(LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE)
