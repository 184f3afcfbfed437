r"""A transformer with weights set by hand that averages known linear components by exponential weights.

    tokens   c_1 .. c_m, (x_1, 0), (0, y_1), (x_2, 0), ..      c_j: learned tokens at the start, one for each component

    attention     to the token before: y's token fetches its x
    feed-forward  r_j^2 = (y - w_j.x)^2                        for every component; nothing where x and y are empty
    attention     to all tokens so far alike: the mean of r_j^2
    feed-forward  mean times number of tokens: S_j = sum of r_j^2
    attention     to the tokens c_j alone, with scores -S_j / (2 s^2) and values w_j
    feed-forward  <w, x>                                       read at x_t's token: the prediction of y_t

A causal mask and a softmax in every attention. That the optimal rule for mixtures of regressions is within reach of a
transformer: Pathak, Sen, Kong, Das 2023, arXiv:2311.08362, whose construction is another.
Shapes: components [m, features], x [batch, time, features], y [batch, time]; h [batch, m + 2 time, width].
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.models.primitives import SHARP, Attention, FeedForward, Slots, multiply

NEVER = 1e4
"""How far below the components' scores all other tokens' stand."""


def causal(scores: Float[Tensor, "batch heads tokens tokens"]) -> Float[Tensor, "batch heads tokens tokens"]:
    """Softmax over the tokens up to each."""
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class ExponentialWeights:
    """The transformer for these components and this noise; without `counted` the means are taken for the sums.

    >>> model = ExponentialWeights(components=torch.tensor([[1.0], [-1.0]]).double(), noise_variance=1.0)
    >>> x = torch.ones(1, 2, 1, dtype=torch.float64)
    >>> [round(said, 4) for said in model.prequential(x, x[..., 0])[0].tolist()]
    [0.0, 0.7616]
    """

    components: Float[Tensor, "components features"]
    noise_variance: float
    counted: bool = True

    def prequential(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time"]:
        """What is said of every y from x up to it and y before it."""
        count, num_features = self.components.shape
        batch, num_tokens = len(y), count + 2 * y.shape[1]
        slots = Slots(
            component=count, input=num_features, target=1, one=1, number=1, here=num_tokens,
            fetched=num_features, square=count, mean=count, sum=count, w=num_features, said=1,
        )  # fmt: skip
        h = slots.fill(batch, num_tokens, one=1.0)
        h[..., slots["here"]] = torch.eye(num_tokens, dtype=h.dtype)
        h[..., slots["number"]] = torch.arange(1, num_tokens + 1, dtype=h.dtype).unsqueeze(1)
        h[:, :count, slots["component"]] = torch.eye(count, dtype=h.dtype)
        h[:, count::2, slots["input"]] = x
        h[:, count + 1 :: 2, slots["target"]] = y.unsqueeze(-1)
        for layer in (*self._sums(slots, num_tokens), *self._answer(slots)):
            h = layer(h)
        return h[:, count::2, slots["said"]].squeeze(-1)

    def _sums(self, slots: Slots, num_tokens: int) -> list[Attention | FeedForward]:
        """Layers after which every token holds S_j, or the means where nothing is counted."""
        here, one, squares = slots.rows("here"), slots.rows("one"), slots.rows("square")
        residuals = slots.rows("target") - self.components @ slots.rows("fetched")
        before = SHARP * torch.cat((here[1:], torch.zeros_like(one)))
        # Tokens of about unit size are multiplied most exactly.
        small = 1 / num_tokens
        if self.counted:
            number = small * slots.rows("number").expand(len(squares), -1)
        else:
            number = small * one.expand(len(squares), -1)
        return [
            Attention(
                queries=before.unsqueeze(0),
                keys=here.unsqueeze(0),
                values=slots.rows("input").unsqueeze(0),
                outputs=slots.rows("fetched").unsqueeze(0),
                weigh=causal,
            ),
            multiply(residuals, residuals, squares),
            Attention(
                queries=torch.zeros_like(one).unsqueeze(0),
                keys=torch.zeros_like(one).unsqueeze(0),
                values=squares.unsqueeze(0),
                outputs=slots.rows("mean").unsqueeze(0),
                weigh=causal,
            ),
            multiply(slots.rows("mean"), number, slots.rows("sum") / small),
        ]

    def _answer(self, slots: Slots) -> list[Attention | FeedForward]:
        """Layers that average the components and apply the average to x."""
        component, one, w = slots.rows("component"), slots.rows("one"), slots.rows("w")
        others = one - component.sum(0, keepdim=True)
        inputs = slots.rows("input")
        return [
            Attention(
                queries=torch.cat((slots.rows("sum"), one)).unsqueeze(0),
                keys=torch.cat((-component / (2 * self.noise_variance), -NEVER * others)).unsqueeze(0),
                values=component.unsqueeze(0),
                outputs=(self.components @ w).unsqueeze(0),
                weigh=causal,
            ),
            multiply(w, inputs, slots.rows("said").expand(len(inputs), -1)),
        ]
