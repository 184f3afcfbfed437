r"""What softmax attention of a model over pairs weighs by, and how spread its weights are.

    entropy of a query   -sum_j A_ij log A_ij / log(keys it sees)      1: even, 0: all on one key

Collapsed entropy goes with unstable training (Zhai et al., 2023, arXiv:2303.06296), which also bounds it: a row of
logits l of T keys with |l| <= s, as every row of a table of spectral norm s, has at least the entropy

    log(1 + (T - 1) b) + D (T - 1) b / (1 + (T - 1) b),    b = exp(-D),  D = s sqrt(T / (T - 1)).

Shapes: scores [batch, heads, queries, keys], -inf where a key is not seen.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.mixers.softmax import SoftmaxAttention
from contexture.models.pairs import PairsModel
from contexture.protocols import Pairs


@torch.no_grad()
def attention_scores(model: PairsModel, episodes: Pairs) -> list[Float[Tensor, "batch heads queries keys"]]:
    """The scores of every softmax layer, in the order in which they run."""
    found: list[Tensor] = []

    def look(mixer: torch.nn.Module, arrived: tuple[Tensor, ...]) -> None:
        assert isinstance(mixer, SoftmaxAttention)
        found.append(mixer.scores(arrived[0]))

    layers = [module for module in model.modules() if isinstance(module, SoftmaxAttention)]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    shown = episodes.to(dtype=next(model.parameters()).dtype)
    try:
        model(shown.x, shown.y)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def attention_weights(model: PairsModel, episodes: Pairs) -> list[Float[Tensor, "batch heads tokens tokens"]]:
    """The weights of every layer of softmax attention, in order, in the model's own precision.

    >>> from contexture.learners.in_context import InContext
    >>> from contexture.tasks.linear_regression import LinearRegression
    >>> episodes = LinearRegression(num_points=3).sample(5, generator=torch.Generator().manual_seed(0))
    >>> [tuple(one.shape) for one in attention_weights(InContext.example().model, episodes)]
    [(5, 2, 6, 6), (5, 2, 6, 6)]
    """
    return [scores.softmax(-1) for scores in attention_scores(model, episodes)]


def entropy(scores: Float[Tensor, "*lead keys"]) -> Float[Tensor, "*lead"]:
    """The entropy of the softmax of scores, in nats.

    >>> round(entropy(torch.zeros(4)).item(), 4)
    1.3863
    """
    logs = scores.double().log_softmax(-1)
    return -(logs.exp() * logs.masked_fill(logs.isinf(), 0.0)).sum(-1)


def relative_entropy(scores: Float[Tensor, "*lead queries keys"]) -> Float[Tensor, "*lead later"]:
    """Each query's entropy over that of even weights, for queries that see two keys at least.

    >>> even = torch.zeros(3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
    >>> [round(one, 12) for one in relative_entropy(even).tolist()]
    [1.0, 1.0]
    """
    seen = torch.arange(2, scores.shape[-1] + 1, dtype=torch.float64, device=scores.device)
    return entropy(scores[..., 1:, :]) / seen.log()


def least_entropy(norm: Float[Tensor, "*lead"], keys: int) -> Float[Tensor, "*lead"]:
    """The least entropy of a row of so many scores whose Euclidean norm is at most `norm`, in nats.

    >>> round(least_entropy(torch.tensor(0.0), 4).item(), 4)
    1.3863
    """
    gap = norm.double() * math.sqrt(keys / (keys - 1))
    others = (keys - 1) * torch.exp(-gap)
    return torch.log1p(others) + gap * others / (1 + others)


def layer_entropies(model: PairsModel, episodes: Pairs) -> Float[Tensor, " layers"]:
    """The mean relative entropy of every softmax layer.

    >>> from contexture.learners.in_context import InContext
    >>> from contexture.tasks.linear_regression import LinearRegression
    >>> episodes = LinearRegression(num_points=3).sample(5, generator=torch.Generator().manual_seed(0))
    >>> tuple(layer_entropies(InContext.example().model, episodes).shape)
    (2,)
    """
    return torch.stack([relative_entropy(scores).mean() for scores in attention_scores(model, episodes)])
