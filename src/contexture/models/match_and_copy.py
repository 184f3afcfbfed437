r"""A transformer with weights set by hand that learns from examples by matching patterns and copying labels.

Tokens hold an example's attributes, one-hot, and its label; the query's token has no label. Every layer of attention
leaves out the token itself and the query.

    match   head a of layer 1: softmax over the examples that share attribute a's value copies their labels, c_a
    check   agree_a = <c_a, y>: whether the attribute would have named the example's own label
    weigh   layer 2: the query averages agree_a over the examples, and multiplies its own values of a by it
    copy    layer 3: softmax over s sum_a agree_a [same value of a] copies labels to the query

Products are made of four GELU units each (`contexture.models.primitives`). After the construction of Fu et al. 2023,
arXiv:2309.06054; the weights are ours.
Shapes: attributes [batch, time + 1, A V] with the query last; labels int64 [batch, time]; said [batch, labels].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.models.primitives import SHARP, Attention, Layer, Slots, multiply


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchAndCopy:
    """The layers, and the slots of a token."""

    slots: Slots
    layers: Sequence[Layer]

    def __call__(
        self, attributes: Float[Tensor, "batch tokens size"], labels: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch labels"]:
        """The shares of labels that the query copies."""
        place = self.slots["label"]
        h = self.slots.fill(attributes.shape[0], attributes.shape[1], here=attributes.double())
        h[:, :-1, place] = F.one_hot(labels, place.stop - place.start).double()
        for layer in self.layers:
            h = layer(h)
        return h[:, -1, self.slots["said"]]


def match_and_copy(num_attributes: int, num_values: int, *, weighs: bool = True) -> MatchAndCopy:
    """The transformer for items of A attributes with V values, and as many labels as values.

    Without `weighs` every attribute counts as much as another: the nearest examples are copied.

    >>> model = match_and_copy(2, 2)
    >>> items = torch.tensor([[[1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0]]])
    >>> model(items, torch.tensor([[1, 0, 1, 0]])).round(decimals=3).tolist()
    [[0.0, 1.0]]
    """
    size = num_attributes * num_values
    slots = Slots(here=size, label=num_values, copied=size, agree=num_attributes, weighed=size, said=num_values)
    here, weighed = slots.rows("here"), slots.rows("weighed")
    blocks = here.view(num_attributes, num_values, -1)
    label = slots.rows("label")
    match = Attention(
        queries=SHARP * blocks,
        keys=blocks,
        values=label.expand(num_attributes, -1, -1),
        outputs=slots.rows("copied").view(num_attributes, num_values, -1),
        weigh=_others,
    )
    agree = slots.rows("agree")
    owner = agree.repeat_interleave(num_values, 0)
    check = multiply(slots.rows("copied"), label.repeat(num_attributes, 1), owner)
    nothing = torch.zeros(1, 1, slots.width, dtype=torch.float64)
    average = Attention(
        queries=nothing, keys=nothing, values=agree.unsqueeze(0), outputs=agree.unsqueeze(0), weigh=_others
    )
    weigh = multiply(here, owner, weighed)
    asked = weighed if weighs else here
    copy = Attention(
        queries=SHARP * asked.unsqueeze(0),
        keys=here.unsqueeze(0),
        values=label.unsqueeze(0),
        outputs=slots.rows("said").unsqueeze(0),
        weigh=_others,
    )
    return MatchAndCopy(slots=slots, layers=(match, check, average, weigh, copy) if weighs else (copy,))


def _others(scores: Float[Tensor, "batch heads tokens tokens"]) -> Float[Tensor, "batch heads tokens tokens"]:
    """Softmax over all tokens but the last, and but the one that asks."""
    hidden = torch.eye(scores.shape[3], dtype=torch.bool)
    hidden[:, -1] = True
    return scores.masked_fill(hidden, -torch.inf).softmax(-1)
