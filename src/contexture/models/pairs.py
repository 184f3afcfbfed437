"""A sequence model over labelled examples (x_t, y_t): predicts y_t from x up to t and y before t.

x: [batch, time, features]; y: [batch, time] floats, or int64 class codes. `contexture.models.forms` says how pairs
become tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.embedding import Embedding
from contexture.leaves.linear import Linear
from contexture.models.backbone import Backbone, BackboneConfig
from contexture.models.forms import FORMS, Interleaved, PairsState
from contexture.models.kinds import AnyConfig, build_backbone, read_backbone
from contexture.models.state import repeat_state
from contexture.ops.chunks import wide


@dataclass(frozen=True, kw_only=True)
class PairsModelConfig:
    """The shape of a model over pairs; `num_classes` of 0 makes it a regression.

    head: "mean" gives a number, "gaussian" a mean and a log-variance; a classification gives logits under "mean".
    """

    num_features: int
    num_classes: int = 0
    form: Literal["interleaved", "joint", "shifted"] = "interleaved"
    head: Literal["mean", "gaussian"] = "mean"
    backbone: AnyConfig = field(default_factory=BackboneConfig)

    def __post_init__(self) -> None:
        if isinstance(self.backbone, Mapping):
            object.__setattr__(self, "backbone", read_backbone(self.backbone))
        if self.num_features < 1 or self.num_classes < 0 or self.num_classes == 1:
            raise InputError("a model over pairs needs at least one feature, and no classes or at least two")
        if self.form not in FORMS:
            raise InputError(f"no form of pairs is named {self.form!r}: there are {', '.join(FORMS)}")
        if self.num_classes and self.head != "mean":
            raise InputError(f"a classification has no {self.head!r} head")


class PairsOutput(NamedTuple):
    """What is said of every y: mean and perhaps log-variance [batch, time], or logits [batch, time, classes]."""

    mean: Tensor | None = None
    log_variance: Tensor | None = None
    logits: Tensor | None = None


class PairsLesson(NamedTuple):
    """What a training step scores: outputs, how much the loss of each counts, and what is added to the loss."""

    said: tuple[PairsOutput, ...]
    weights: tuple[float, ...]
    penalty: Float[Tensor, "batch time"] | None = None


class PairsEmbeddings(nn.Module):
    """Vectors for x (a linear map) and for y (a line in a number, or a vector per class); an unknown y has its own."""

    def __init__(self, config: PairsModelConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        width = config.backbone.width
        self.num_classes = config.num_classes
        self.x = Linear(config.num_features, width, generator=generator)
        self.y: Linear | Embedding
        if config.num_classes:
            self.y = Embedding(config.num_classes + 1, width, generator=generator)
        else:
            self.y = Linear(2, width, generator=generator, bias=False, gain=2**0.5)

    def features(self, x: Float[Tensor, "batch time features"]) -> Float[Tensor, "batch time width"]:
        """Embed x."""
        return self.x(x)

    def target(
        self, y: Shaped[Tensor, "batch time"], known: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time width"]:
        """Embed y where it is known."""
        if self.num_classes:
            return self.y(torch.where(known, y, self.num_classes))
        flag = known.to(y.dtype)
        return self.y(torch.stack((y * flag, 1 - flag), dim=-1))


class PairsModel(nn.Module):
    """Embeddings, a causal backbone and a head.

    >>> model = PairsModel(PairsModelConfig(num_features=3), generator=torch.Generator().manual_seed(0))
    >>> model(torch.ones(2, 5, 3), torch.ones(2, 5)).mean.shape
    torch.Size([2, 5])
    """

    def __init__(self, config: PairsModelConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.form = FORMS[config.form]
        self.embed = PairsEmbeddings(config, generator=generator)
        self.backbone = build_backbone(config.backbone, generator=generator)
        outputs = config.num_classes or (2 if config.head == "gaussian" else 1)
        self.head = Linear(config.backbone.width, outputs, generator=generator)

    def forward(self, x: Float[Tensor, "batch time features"], y: Shaped[Tensor, "batch time"]) -> PairsOutput:
        """Predict every y_t from x up to t and y before t."""
        return self.say(self.form.forward(self.embed, self.backbone, x, y))

    def lesson(
        self, x: Float[Tensor, "batch time features"], y: Shaped[Tensor, "batch time"], *, generator: torch.Generator
    ) -> PairsLesson:
        """What a training step scores; for a looped backbone, what it says after several of its loops."""
        if isinstance(self.backbone, Backbone):
            return PairsLesson((self(x, y),), (1.0,))
        if not isinstance(self.form, Interleaved):
            raise InputError(f"a looped backbone learns from interleaved pairs, not from {self.config.form!r} ones")
        hidden, weights, penalty = self.backbone.lesson(
            self.form.tokens(self.embed, x, y), every=2, generator=generator
        )
        return PairsLesson(tuple(map(self.say, hidden)), weights, penalty)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> PairsState:
        """The state before any example."""
        return PairsState(
            self.backbone.init_state(batch, device=device, dtype=dtype),
            torch.zeros(batch, device=device, dtype=torch.int64 if self.config.num_classes else dtype),
            torch.zeros(batch, device=device, dtype=torch.bool),
        )

    def stream(
        self, x: Float[Tensor, "batch time features"], y: Shaped[Tensor, "batch time"], state: PairsState
    ) -> tuple[PairsOutput, PairsState]:
        """Take further examples; the prediction at t comes before y_t is seen."""
        hidden, backbone = self.form.stream(self.embed, self.backbone, x, y, state)
        return self.say(hidden), PairsState(backbone, y[:, -1], torch.ones_like(state.known))

    def read(self, x: Float[Tensor, "batch queries features"], state: PairsState) -> PairsOutput:
        """Answer every query from the state alone: queries do not see each other and write nothing."""
        queries = x.shape[1]
        rows = x.flatten(0, 1).unsqueeze(1)
        hidden = self.form.read(self.embed, self.backbone, rows, repeat_state(state, queries))
        return self.say(torch.unflatten(hidden.squeeze(1), 0, (x.shape[0], queries)))

    def say(self, hidden: Float[Tensor, "batch time width"]) -> PairsOutput:
        """What the head makes of hidden vectors."""
        said = self.head(hidden)
        said = said.to(wide(said.dtype))
        if self.config.num_classes:
            return PairsOutput(logits=said)
        if self.config.head == "gaussian":
            mean, log_variance = said.unbind(-1)
            return PairsOutput(mean=mean, log_variance=log_variance)
        return PairsOutput(mean=said.squeeze(-1))
