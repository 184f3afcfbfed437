r"""What softmax heads attend to, and how much of it makes an induction head.

Examples are interleaved, x_1, y_1, x_2, ..: example s has its item at token 2s and its label at token 2s + 1.

    own item         weight of a label's token on its own item, the token before it
    matching labels  weight of the last item on the labels of earlier items of its class
    induction        that weight less what a head without preference would give, over the most it could gain
    entropy          -sum_s w_ts log w_ts, the mean over tokens t, in nats

An induction head is made of a first layer that joins labels to their items and a second that looks for the item and
reads the label (Olsson et al. 2022; Reddy 2023, arXiv:2312.03002).
Shapes: weights [batch, heads, tokens, tokens], rows attend; classes int64 [batch, time], tokens = 2 time.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.mixers.softmax import SoftmaxAttention
from contexture.models.pairs import PairsModel
from contexture.protocols import Pairs


@torch.no_grad()
def attention_weights(model: PairsModel, episodes: Pairs) -> list[Float[Tensor, "batch heads tokens tokens"]]:
    """The weights of every layer of softmax attention, in order, in the model's own precision.

    >>> from contexture.learners.in_context import InContext
    >>> from contexture.tasks.linear_regression import LinearRegression
    >>> episodes = LinearRegression(num_points=3).sample(5, generator=torch.Generator().manual_seed(0))
    >>> [tuple(one.shape) for one in attention_weights(InContext.example().model, episodes)]
    [(5, 2, 6, 6), (5, 2, 6, 6)]
    """
    found: list[Tensor] = []
    heads = [module for module in model.modules() if isinstance(module, SoftmaxAttention)]
    hooks = [one.register_forward_pre_hook(lambda own, given: found.append(own.weights(given[0]))) for one in heads]
    shown = episodes.to(dtype=next(model.parameters()).dtype)
    try:
        model(shown.x, shown.y)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def to_own_item(weights: Float[Tensor, "batch heads tokens tokens"]) -> Float[Tensor, "batch heads"]:
    """The mean weight of a label's token on its own item, over all examples but the last."""
    return weights.diagonal(-1, dim1=2, dim2=3)[:, :, 0:-2:2].mean(2)


def to_matching_labels(
    weights: Float[Tensor, "batch heads tokens tokens"], classes: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch heads"]:
    """The weight of the last item on the labels of all earlier items of its class."""
    return (_from_last(weights) * _matching(classes).to(weights).unsqueeze(1)).sum(2)


def induction_strength(
    weights: Float[Tensor, "batch heads tokens tokens"], classes: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch heads"]:
    """0 for a head whose last item looks at all tokens alike, 1 for one that looks at matching labels alone.

    >>> weights = torch.full((1, 1, 6, 6), 1 / 6)
    >>> weights[..., 4, :] = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    >>> induction_strength(weights, torch.tensor([[7, 3, 7]])).item()
    1.0
    """
    tokens = weights.shape[3] - 1
    alike = _matching(classes).sum(1, keepdim=True).to(weights) / tokens
    return (to_matching_labels(weights, classes) - alike) / (1 - alike)


def entropy(weights: Float[Tensor, "batch heads tokens tokens"]) -> Float[Tensor, "batch heads"]:
    """How spread out attention is, in nats: the mean over tokens."""
    spread: Tensor = torch.special.entr(weights).sum(3)
    return spread.mean(2)


def _from_last(weights: Tensor) -> Tensor:
    """The last item's weights on the labels before it, [batch, heads, time - 1]."""
    last = weights.shape[3] - 2
    return weights[:, :, last, 1:last:2]


def _matching(classes: Tensor) -> Tensor:
    """Which earlier items are of the last one's class, bool [batch, time - 1]."""
    return classes[:, :-1] == classes[:, -1:]
