r"""Logistic regression for any number of classes, with a penalty on the squared length of the weights:

    argmin_W  - sum_s log softmax(x_s W)_{y_s} + penalty/2 |W|^2,      x with a 1 appended

The penalty is on the intercepts too, so that the minimum exists, is unique and treats all classes alike before every
class has been seen. Newton's method (iteratively reweighted least squares) with halved steps, every prefix a problem.
Cox (1958), The regression analysis of binary sequences. Shapes: x [batch, time, features]; y [batch, time]; shown
[prefixes, time]; W [batch, prefixes, features + 1, classes].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.inputs import blocks, classification, numeric
from contexture.protocols import LearnerCard, Pairs, Prediction

NEWTON_STEPS = 100
HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Logistic:
    """Multinomial logistic regression with a ridge penalty; InputError unless the penalty is positive.

    >>> from contexture.protocols import Schema
    >>> x, y = torch.tensor([[[-1.0], [1.0]]]), torch.tensor([[0, 1]])
    >>> context = Pairs(x=x, y=y, schema=Schema.classes(1, 2))
    >>> Logistic(penalty=1.0).predict(context, torch.tensor([[[0.0], [1.0]]])).probabilities[0].round(decimals=3)
    tensor([[0.5000, 0.5000],
            [0.2610, 0.7390]], dtype=torch.float64)
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="logistic",
        summary="Multinomial logistic regression with a ridge penalty.",
        paper="Cox, The regression analysis of binary sequences",
        year=1958,
        kind="classical",
        targets=frozenset({"classification"}),
        invariances=frozenset({"example-order", "column-order", "label-names"}),
    )

    penalty: float = 1.0

    def __post_init__(self) -> None:
        if not self.penalty > 0:
            raise InputError(f"logistic needs a positive penalty, but it is {self.penalty}")

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The probabilities of every query after all of the context."""
        queries = _with_one(numeric(self.card, context.schema, queries))
        x, y = classification(self.card, context)
        shown = torch.ones(1, context.time, dtype=torch.bool, device=x.device)
        weights = self._weights(_with_one(x), y, shown, context.schema.num_classes)[:, 0]
        return Prediction(probabilities=(queries @ weights).softmax(-1))

    def prequential(self, episodes: Pairs) -> Prediction:
        """The probabilities at every t from the examples before it."""
        x, y = classification(self.card, episodes)
        x = _with_one(x)
        shown = torch.ones(episodes.time, episodes.time, dtype=torch.bool, device=x.device).tril(-1)
        weights = self._weights(x, y, shown, episodes.schema.num_classes)
        return Prediction(probabilities=torch.einsum("btd,btdc->btc", x, weights).softmax(-1))

    def _weights(
        self, x: Tensor, y: Int[Tensor, "batch time"], shown: Bool[Tensor, "prefixes time"], num_classes: int
    ) -> Float[Tensor, "batch prefixes features classes"]:
        (prefixes, time), size = shown.shape, x.shape[-1] * num_classes
        weights = x.new_zeros(x.shape[0], prefixes, x.shape[-1], num_classes)
        numbers = prefixes * (size**2 + time * num_classes**2) + time * x.shape[-1] ** 2
        for block in blocks(x.shape[0], numbers):
            targets = torch.nn.functional.one_hot(y[block], num_classes).to(x)
            weights[block] = _Problem(x[block], targets, shown, self.penalty).solve()
        return weights


def _with_one(x: Float[Tensor, "batch rows features"]) -> Float[Tensor, "batch rows inputs"]:
    return torch.nn.functional.pad(x, (0, 1), value=1.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """One penalised fit for every episode and prefix at once."""

    x: Float[Tensor, "batch time inputs"]
    targets: Float[Tensor, "batch time classes"]
    shown: Bool[Tensor, "prefixes time"]
    penalty: float

    def solve(self) -> Float[Tensor, "batch prefixes inputs classes"]:
        """Newton's method until every gradient vanishes up to rounding."""
        weights = self.x.new_zeros(self.x.shape[0], len(self.shown), self.x.shape[2], self.targets.shape[2])
        for _ in range(NEWTON_STEPS):
            chances = (self.x[:, None] @ weights).softmax(-1)
            gradient = self._gradient(weights, chances)
            step = torch.linalg.solve(self._curvature(chances), gradient.flatten(-2)[..., None])[..., 0]
            step = step.reshape(gradient.shape)
            if float((step * gradient).sum((-2, -1)).amax()) < 1e-26:
                break
            weights = self._descend(weights, step)
        return weights

    def _loss(self, weights: Tensor) -> Float[Tensor, "batch prefixes"]:
        surprise = -((self.x[:, None] @ weights).log_softmax(-1) * self.targets[:, None]).sum(-1)
        return (surprise * self.shown).sum(-1) + 0.5 * self.penalty * weights.square().sum((-2, -1))

    def _gradient(self, weights: Tensor, chances: Tensor) -> Tensor:
        residual = (chances - self.targets[:, None]) * self.shown[..., None]
        return self.x.mT[:, None] @ residual + self.penalty * weights

    def _curvature(self, chances: Float[Tensor, "batch prefixes time classes"]) -> Tensor:
        """The Hessian, [batch, prefixes, inputs * classes, inputs * classes]."""
        inputs, classes = self.x.shape[2], chances.shape[3]
        spread = torch.diag_embed(chances) - chances[..., :, None] * chances[..., None, :]
        spread = (spread * self.shown[..., None, None]).flatten(-2).mT
        squares = (self.x[..., :, None] * self.x[..., None, :]).flatten(-2)
        joint = (spread @ squares[:, None]).reshape(*chances.shape[:2], classes, classes, inputs, inputs)
        hessian: Tensor = joint.permute(0, 1, 4, 2, 5, 3).reshape(*joint.shape[:2], inputs * classes, inputs * classes)
        hessian.diagonal(dim1=-2, dim2=-1).add_(self.penalty)
        return hessian

    def _descend(self, weights: Tensor, step: Tensor) -> Tensor:
        """Take the step where it does not raise the loss, else half of it, and so on."""
        before = self._loss(weights)
        allowed = before + 1e-12 * before.abs()
        share = torch.ones_like(before)
        for _ in range(HALVINGS):
            worse = self._loss(weights - share[..., None, None] * step) > allowed
            if not bool(worse.any()):
                break
            share = torch.where(worse, share / 2, share)
        return weights - share[..., None, None] * step
