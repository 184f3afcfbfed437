"""A model over a stream of pairs that need not be known beforehand: features and classes may still come.

    token t  =  A x_t + B x_{t-1} + e(y_{t-1})        said at t, of y_t, from all pairs before and x_t
    x  ->  [values, which of them are there]          e(y)  ->  row of a table, or y w + b
    scores:  one for each class met, and one for a class never met;    numbers: a mean and a log-variance

One token a pair, with the pair before in it (shifted), so that one layer of attention finds the pairs that resemble
what is asked. It begins as kernel regression (Nadaraya, 1964): of four quarters of the width the first holds A x_t, the
second A x_{t-1}, the third e(y_{t-1}); the first layer asks with the first, compares with the second, and brings what
the third holds into the fourth, where scores are products with the classes' own vectors:

    sum_s p_ts e(y_s),   p_ts = softmax over s of  b <A x_t, A x_s> - slope (t - s),   score of c  =  a <e(c), sum_s ..>

From there everything is trained. values, present: [batch, time, slots], a slot for each feature, zero where a feature
is absent; y: [batch, time], int64 codes or numbers; said: [batch, time, classes + 1] or [batch, time, 2]. Slots and
classes beyond the present capacity make the model grow: old weights stay as they are, new ones are drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.embedding import Embedding
from contexture.leaves.linear import Linear
from contexture.mixers.positioned_heads import PositionedHeads
from contexture.models.backbone import Backbone, BackboneConfig, BackboneState

LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE = -8.0, 8.0
SHARPNESS, BROUGHT, TIE = 3.0, 4.0, 0.05
"""At the beginning: of the kernel, of what attention brings, and of the scores (a and b above hold these)."""
NOISE = 0.1
"""What random weights count beside those of the kernel regression, and whether a value is there beside the value."""


def two_layers(context: int = 100, width: int = 128, num_heads: int = 4) -> BackboneConfig:
    """Two layers of attention to the last `context` pairs, the nearest weighing most."""
    settings = {"sliding-window": {"window": max(1, context), "positions": "alibi"}}
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
        if self.backbone.width % 4:
            raise InputError(f"the width of a model of streams has four equal parts, and {self.backbone.width} has not")


class StreamState(NamedTuple):
    """The backbone's state, and what the next token holds of the pair before it, [batch, 1, width]."""

    backbone: BackboneState
    before: Tensor


class StreamModel(nn.Module):
    """Embeddings of features and targets, a causal backbone, and a head."""

    def __init__(self, config: StreamModelConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width, classes = config.backbone.width, config.num_classes
        self.ask = Linear(2 * config.num_slots, width, generator=generator, gain=2**0.5)
        self.recall = Linear(2 * config.num_slots, width, generator=generator, gain=2**0.5)
        self.told: Embedding | Linear
        if classes:
            self.told = Embedding(classes, width, generator=generator)
        else:
            self.told = Linear(1, width, generator=generator)
        self.backbone = Backbone(config.backbone, generator=generator)
        self.head = Linear(width, classes + 1 if classes else 2, generator=generator, gain=0.1)
        with torch.no_grad():
            self._start()

    def init_state(self, batch: int) -> StreamState:
        """The state before any pair."""
        before = torch.zeros(batch, 1, self.config.backbone.width)
        return StreamState(self.backbone.init_state(batch, device="cpu", dtype=torch.float32), before)

    def stream(
        self, values: Tensor, present: Tensor, y: Tensor, state: StreamState
    ) -> tuple[Float[Tensor, "batch time said"], StreamState]:
        """What is said of each pair's target before it is told, and the state after all of them."""
        features = _features(values, present)
        told = self.told(y if isinstance(self.told, Embedding) else y.unsqueeze(-1))
        before = torch.cat((state.before, self.recall(features) + told), 1)
        hidden, after = self.backbone.stream(self.ask(features) + before[:, :-1], state.backbone)
        return self._say(hidden), StreamState(after, before[:, -1:])

    def predict(self, values: Tensor, present: Tensor, state: StreamState) -> Float[Tensor, "batch said"]:
        """What is said of one more target; values: [batch, slots]."""
        token = self.ask(_features(values[:, None], present[:, None])) + state.before
        return self._say(self.backbone.stream(token, state.backbone)[0])[:, 0]

    def alone(self, values: Tensor, present: Tensor) -> Float[Tensor, "batch time said"]:
        """What is said of each target from its own features, without any context."""
        tokens = self.ask(_features(values, present)).flatten(0, 1).unsqueeze(1)
        return torch.unflatten(self._say(self.backbone(tokens))[:, 0], 0, values.shape[:2])

    def grow(self, *, num_slots: int, num_classes: int, generator: torch.Generator) -> None:
        """Make room for more: what was learned stays where it was."""
        old, new = (
            self.config,
            StreamModelConfig(num_slots=num_slots, num_classes=num_classes, backbone=self.config.backbone),
        )
        fresh = StreamModel(new, generator=generator)
        with torch.no_grad():
            for mine, theirs in ((fresh.ask, self.ask), (fresh.recall, self.recall)):
                for part in (0, 1):  # values, then presence
                    mine.weight[:, part * num_slots : part * num_slots + old.num_slots] = theirs.weight[
                        :, part * old.num_slots : (part + 1) * old.num_slots
                    ]
                mine.load_state_dict({"weight": mine.weight, "bias": theirs.bias})
            if old.num_classes:
                fresh.told.weight[: old.num_classes] = self.told.weight
                for scores, known in zip(fresh.head.parameters(), self.head.parameters(), strict=True):
                    scores[: old.num_classes], scores[-1] = known[:-1], known[-1]
        self.config, self.ask, self.recall = new, fresh.ask, fresh.recall
        if old.num_classes:
            self.told, self.head = fresh.told, fresh.head

    def _say(self, hidden: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time said"]:
        """The head's scores, and those of the targets that attention has brought into the last quarter."""
        said: Tensor = self.head(hidden)
        part = hidden.shape[-1] // 4
        brought = hidden[..., 3 * part :]
        if isinstance(self.told, Embedding):
            return said + F.pad(TIE * F.linear(brought, self.told.weight[:, 2 * part : 3 * part]), (0, 1))
        number = brought @ self.told.weight[2 * part : 3 * part] / (2 * part)
        return said + F.pad(number, (0, 1))

    def _start(self) -> None:
        """Weights of kernel regression, and little noise beside them."""
        width, slots = self.config.backbone.width, self.config.num_slots
        part = width // 4
        asked, recalled, target, brought = (slice(place * part, (place + 1) * part) for place in range(4))
        kernel = self.ask.weight[asked].clone()
        kernel[:, slots:] *= NOISE
        label = self.told.weight[:, target].clone() if self.config.num_classes else self.told.weight[target].clone()
        heads = self.backbone.get_submodule("blocks.0.mixer.heads")
        assert isinstance(heads, PositionedHeads)
        for weight in (
            self.ask.weight,
            self.recall.weight,
            self.told.weight,
            heads.projection.weight,
            heads.output.weight,
        ):
            weight.mul_(NOISE)
        self.ask.weight[asked] = self.recall.weight[recalled] = kernel
        if self.config.num_classes:
            self.told.weight[:, target] = label
        else:
            self.told.weight[target] = label
        queries, keys, values = (torch.unflatten(each, 0, (-1, heads.dim)) for each in heads.projection.weight.chunk(3))
        same = torch.eye(heads.dim, part)
        queries[..., asked] += SHARPNESS * same
        keys[..., recalled] += same
        values[..., target] += same
        torch.unflatten(heads.output.weight, 1, (-1, heads.dim))[brought] += (
            BROUGHT / heads.num_heads * same.T.unsqueeze(1)
        )


def _features(
    values: Float[Tensor, "*lead slots"], present: Shaped[Tensor, "*lead slots"]
) -> Float[Tensor, "*lead both"]:
    return torch.cat((values, present.to(values.dtype)), -1)


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
