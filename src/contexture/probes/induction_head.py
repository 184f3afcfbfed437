r"""How much of what softmax heads attend to makes an induction head.

Examples are interleaved, x_1, y_1, x_2, ..: example s has its item at token 2s and its label at token 2s + 1.

    own item         weight of a label's token on its own item, the token before it
    matching labels  weight of the last item on the labels of earlier items of its class
    induction        that weight less what a head without preference would give, over the most it could gain

An induction head is made of a first layer that joins labels to their items and a second that looks for the item and
reads the label (Olsson et al. 2022; Reddy 2023, arXiv:2312.03002).
Shapes: weights [batch, heads, tokens, tokens], rows attend; classes int64 [batch, time], tokens = 2 time.
"""

from jaxtyping import Float, Int
from torch import Tensor


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

    >>> import torch
    >>> weights = torch.full((1, 1, 6, 6), 1 / 6)
    >>> weights[..., 4, :] = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    >>> induction_strength(weights, torch.tensor([[7, 3, 7]])).item()
    1.0
    """
    tokens = weights.shape[3] - 1
    alike = _matching(classes).sum(1, keepdim=True).to(weights) / tokens
    return (to_matching_labels(weights, classes) - alike) / (1 - alike)


def _from_last(weights: Tensor) -> Tensor:
    """The last item's weights on the labels before it, [batch, heads, time - 1]."""
    last = weights.shape[3] - 2
    return weights[:, :, last, 1:last:2]


def _matching(classes: Tensor) -> Tensor:
    """Which earlier items are of the last one's class, bool [batch, time - 1]."""
    return classes[:, :-1] == classes[:, -1:]
