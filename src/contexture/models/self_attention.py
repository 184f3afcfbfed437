r"""Layers of self-attention alone over pairs, without norms, feed-forward or positions: what theory is proved about.

    token e_j = (x_j, y_j) for j = 1..n,  query e = (x, 0)
    e <- e + sum_h P_h sum_{j<=n} weigh_j(<W_Q,h e, W_K,h e_j>) W_V,h e_j          a layer
    prediction = -(the query's last entry after all layers)

weigh is s/n for linear attention, s where it only sums, exp(s) / sum exp(s) for softmax. Queries are read by nobody, so
many can stand in one prompt. Von Oswald et al. 2022, arXiv:2212.07677 (the sign of the read-out is theirs).
Shapes: x [batch, time, features], y [batch, time], queries [batch, queries, features]; tokens [batch, items, width].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.models.pairs import PairsOutput

Weigh = Callable[[Float[Tensor, "batch heads items context"]], Tensor]


def linear_weights(scores: Float[Tensor, "batch heads items context"]) -> Tensor:
    """s / n."""
    return scores / scores.shape[-1]


def softmax_weights(scores: Float[Tensor, "batch heads items context"]) -> Tensor:
    """exp(s) / sum exp(s)."""
    return scores.softmax(-1)


def sum_weights(scores: Float[Tensor, "batch heads items context"]) -> Tensor:
    """s: linear attention that grows with the context."""
    return scores


WEIGHTS: Mapping[str, Weigh] = {"linear": linear_weights, "softmax": softmax_weights, "sum": sum_weights}


@dataclass(frozen=True, kw_only=True)
class SelfAttentionConfig:
    """The shape of a model of attention layers over pairs; `std` is that of its weights at the start.

    A looped model applies its one layer `num_layers` times. `embed` are the sizes of a perceptron's layers that x
    passes first. A model that writes "targets" alone leaves the x of every token as it is.
    """

    num_features: int
    num_layers: int = 1
    num_heads: int = 1
    weights: str = "linear"
    looped: bool = False
    embed: tuple[int, ...] = ()
    writes: Literal["all", "targets"] = "all"
    std: float = 0.02

    def __post_init__(self) -> None:
        object.__setattr__(self, "embed", tuple(self.embed))
        if min(self.num_features, self.num_layers, self.num_heads) < 1:
            raise InputError("a model of self-attention needs at least one feature, one layer and one head")
        if self.weights not in WEIGHTS:
            raise InputError(f"attention weighs by {', '.join(WEIGHTS)}, not by {self.weights!r}")
        if self.writes not in ("all", "targets"):
            raise InputError(f"a layer writes all or targets, not {self.writes!r}")

    @property
    def width(self) -> int:
        """The width of a token."""
        return (self.embed[-1] if self.embed else self.num_features) + 1


class SelfAttention(nn.Module):
    """One layer with heads as wide as the tokens, and a residual connection."""

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        weigh: Weigh,
        generator: torch.Generator,
        std: float = 0.02,
        targets_only: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads, self.weigh, self.targets_only = num_heads, weigh, targets_only
        inner, gain = width * num_heads, std * width**0.5
        self.query = Linear(width, inner, generator=generator, bias=False, gain=gain)
        self.key = Linear(width, inner, generator=generator, bias=False, gain=gain)
        self.value = Linear(width, inner, generator=generator, bias=False, gain=gain)
        self.output = Linear(inner, width, generator=generator, bias=False, gain=std * inner**0.5)

    def forward(self, tokens: Float[Tensor, "batch items width"], num_context: int, *, start: int = 0) -> Tensor:
        """Every token from `start` on, and nothing before it, reads the first `num_context` ones."""
        context, readers = tokens[:, :num_context], tokens[:, start:]
        q, k, v = self._heads(self.query(readers)), self._heads(self.key(context)), self._heads(self.value(context))
        read = self.weigh(q @ k.mT) @ v
        written = self.output(read.transpose(1, 2).flatten(2))
        if self.targets_only:
            written = F.pad(written[..., -1:], (written.shape[-1] - 1, 0))
        return readers + written

    def _heads(self, x: Tensor) -> Float[Tensor, "batch heads items width"]:
        return torch.unflatten(x, -1, (self.num_heads, -1)).transpose(1, 2)


class SelfAttentionModel(nn.Module):
    """Layers of attention over pairs, which answer a query after a context.

    >>> config = SelfAttentionConfig(num_features=2, num_layers=3)
    >>> model = SelfAttentionModel(config, generator=torch.Generator().manual_seed(0))
    >>> model.answer(torch.ones(4, 5, 2), torch.ones(4, 5), torch.ones(4, 7, 2)).shape
    torch.Size([4, 7])
    """

    def __init__(self, config: SelfAttentionConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        sizes = (config.num_features, *config.embed)
        self.embed = nn.ModuleList(Linear(before, after, generator=generator) for before, after in pairwise(sizes))
        self.layers = nn.ModuleList(
            SelfAttention(
                config.width,
                num_heads=config.num_heads,
                weigh=WEIGHTS[config.weights],
                generator=generator,
                std=config.std,
                targets_only=config.writes == "targets",
            )
            for _ in range(1 if config.looped else config.num_layers)
        )

    def forward(self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]) -> PairsOutput:
        """Predict the last y alone, from its x and the pairs before it: mean [batch, 1]."""
        return PairsOutput(mean=self.answer(x[:, :-1], y[:, :-1], x[:, -1:]))

    def answer(
        self,
        x: Float[Tensor, "batch time features"],
        y: Float[Tensor, "batch time"],
        queries: Float[Tensor, "batch queries features"],
    ) -> Float[Tensor, "batch queries"]:
        """Predict every query after all of the pairs."""
        return self.read_outs(x, y, queries)[-1]

    def read_outs(
        self,
        x: Float[Tensor, "batch time features"],
        y: Float[Tensor, "batch time"],
        queries: Float[Tensor, "batch queries features"],
    ) -> list[Float[Tensor, "batch queries"]]:
        """The prediction as it stands after each layer."""
        features = self.features(torch.cat((x, queries), 1))
        targets = torch.cat((y, queries.new_zeros(queries.shape[:2])), 1)
        tokens = torch.cat((features, targets.unsqueeze(-1)), 2)
        *before, last = self.sequence()
        said = []
        for layer in before:
            tokens = layer(tokens, x.shape[1])
            said.append(-tokens[:, x.shape[1] :, -1])
        # Nobody reads what the last layer writes to the examples.
        return [*said, -last(tokens, x.shape[1], start=x.shape[1])[..., -1]]

    def features(self, x: Float[Tensor, "batch items features"]) -> Float[Tensor, "batch items embedded"]:
        """What stands in a token for x: x itself, or what the perceptron makes of it."""
        for index, layer in enumerate(self.embed):
            x = layer(F.gelu(x) if index else x)
        return x

    def sequence(self) -> list[nn.Module]:
        """The layers in the order in which they are applied."""
        return list(self.layers) * (self.config.num_layers if self.config.looped else 1)
