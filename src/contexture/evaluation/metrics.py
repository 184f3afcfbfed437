"""Scores of predictions: what each learner's answer costs, one number per row or one per held-out set.

A metric takes a `Prediction` and the `Truth` and returns its rows, [batch, queries]; a metric whose scope is "set"
(the area under the ROC curve) judges each episode's queries together and returns [batch]. A learner that does not say
what a metric asks for (no interval, no probabilities) gets NaN, never a guess.

Shapes: batch = episodes, queries = held-out rows of an episode, classes = labels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from contexture.errors import InputError
from contexture.protocols import Prediction, Target

Direction = Literal["lower", "higher", "level"]

PROBABILITY_FLOOR = 1e-6
"""Log-loss counts a probability below this as this: a certain and wrong answer costs 13.8 nats, not infinity."""

PINBALL_LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
"""The quantiles that `pinball` averages over: the ends of the 95 % and 80 % intervals, and the median."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """What predictions are held against.

    y: [batch, queries], numbers or int64 class codes; clean: the target without its noise, where the task knows it;
    scale: broadcasts to [batch, queries], the mean squared error of the constant that relative errors are relative to.
    """

    y: Shaped[Tensor, "batch queries"]
    clean: Float[Tensor, "batch queries"] | None = None
    scale: Float[Tensor, "batch #queries"] | None = None


Score = Callable[[Prediction, Truth], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A named score: which way is better, its unit, and a sentence for the reader.

    `level` is the value that a metric of direction "level" should have (a 95 % interval should cover 95 %).
    """

    name: str
    label: str
    summary: str
    unit: str
    direction: Direction
    targets: frozenset[Target]
    score: Score
    scope: Literal["row", "set"] = "row"
    level: float | None = None
    bounds: tuple[float, float] = (0.0, float("inf"))

    @property
    def lower_is_better(self) -> bool:
        """True for a loss; False for a score and for a metric that should have a level."""
        return self.direction == "lower"

    def badness(self, value: Tensor) -> Tensor:
        """The value turned so that less is better, whatever the direction."""
        if self.direction == "level":
            assert self.level is not None
            return (value - self.level).abs()
        return value if self.direction == "lower" else -value

    def __call__(self, prediction: Prediction, truth: Truth) -> Tensor:
        """Score in fp64: [batch, queries], or [batch] where the scope is "set"."""
        return self.score(prediction, truth)


METRICS: dict[str, Metric] = {}

_REGRESSION: frozenset[Target] = frozenset({"regression"})
_CLASSIFICATION: frozenset[Target] = frozenset({"classification"})


def find(name: str) -> Metric:
    """The metric of that name; InputError lists what exists.

    >>> find("log-loss").unit
    'nats'
    """
    if name in ACTED:
        return ACTED[name]
    if name not in METRICS:
        raise InputError(f"no metric is named {name!r}: there are {', '.join(sorted(METRICS))}")
    return METRICS[name]


def _register(
    name: str,
    label: str,
    summary: str,
    *,
    unit: str,
    targets: frozenset[Target],
    direction: Direction = "lower",
    scope: Literal["row", "set"] = "row",
    level: float | None = None,
    bounds: tuple[float, float] = (0.0, float("inf")),
) -> Callable[[Score], Score]:
    def add(score: Score) -> Score:
        METRICS[name] = Metric(
            name=name,
            label=label,
            summary=summary,
            unit=unit,
            direction=direction,
            targets=targets,
            score=score,
            scope=scope,
            level=level,
            bounds=bounds,
        )
        return score

    return add


def _acted(prediction: Prediction, truth: Truth) -> Tensor:
    raise InputError("this scores agents that act, and no predictions")


ACTED: dict[str, Metric] = {}
"""The scores of agents, which are taken from what they did."""

ACTED["cumulative-regret"] = Metric(
    name="cumulative-regret",
    label="cumulative regret",
    summary="What an agent's actions so far gave away in expectation against the best ones.",
    unit="reward",
    direction="lower",
    targets=frozenset(),
    score=_acted,
)
ACTED["return"] = Metric(
    name="return",
    label="return of the episode",
    summary="The sum of an episode's rewards, for an agent that remembers the episodes before it.",
    unit="reward",
    direction="higher",
    targets=frozenset(),
    score=_acted,
    bounds=(-float("inf"), float("inf")),
)


def _mean(prediction: Prediction) -> Tensor:
    if prediction.mean is None:
        raise InputError("this metric scores numbers, but the learner predicted classes")
    return prediction.mean.double()


def _probabilities(prediction: Prediction) -> Tensor:
    if prediction.probabilities is None:
        raise InputError("this metric scores class probabilities, but the learner predicted numbers")
    return prediction.probabilities.double()


@_register(
    "squared-error",
    "squared error",
    "Mean of (y - prediction)^2; y holds its noise, so that even the best learner keeps the noise's variance.",
    unit="y^2",
    targets=_REGRESSION,
)
def squared_error(prediction: Prediction, truth: Truth) -> Tensor:
    """(y - prediction)^2."""
    return (truth.y.double() - _mean(prediction)).square()


@_register(
    "excess-error",
    "excess error",
    "Mean of (noiseless target - prediction)^2: squared error without the noise that nobody can predict.",
    unit="y^2",
    targets=_REGRESSION,
)
def excess_error(prediction: Prediction, truth: Truth) -> Tensor:
    """(clean - prediction)^2; raises InputError where the task does not know its noiseless target."""
    if truth.clean is None:
        raise InputError("excess error needs the noiseless target, which this task does not know: use squared-error")
    return (truth.clean.double() - _mean(prediction)).square()


@_register(
    "relative-squared-error",
    "relative squared error",
    "Held-out squared error over the held-out squared error of one constant, the mean of the whole training half "
    "(the same constant at every context size and for every learner): 1 is no better than that mean, 0 is perfect.",
    unit="share of variance",
    targets=_REGRESSION,
)
def relative_squared_error(prediction: Prediction, truth: Truth) -> Tensor:
    """(y - prediction)^2 / scale, so that the mean over a set is the set's relative error."""
    if truth.scale is None:
        raise InputError("relative squared error needs the scale of the targets")
    return squared_error(prediction, truth) / truth.scale


@_register(
    "absolute-error",
    "absolute error",
    "Mean of |y - prediction|.",
    unit="y",
    targets=_REGRESSION,
)
def absolute_error(prediction: Prediction, truth: Truth) -> Tensor:
    """|y - prediction|."""
    return (truth.y.double() - _mean(prediction)).abs()


@_register(
    "log-loss",
    "log-loss",
    "Mean of -log(probability of the true class), in nats; a probability below 1e-6 counts as 1e-6.",
    unit="nats",
    targets=_CLASSIFICATION,
)
def log_loss(prediction: Prediction, truth: Truth) -> Tensor:
    """-log max(p(y), PROBABILITY_FLOOR)."""
    chosen = _probabilities(prediction).gather(-1, truth.y.long().unsqueeze(-1)).squeeze(-1)
    return -chosen.clamp(min=PROBABILITY_FLOOR, max=1.0).log()


@_register(
    "error-rate",
    "error rate",
    "Share of rows whose most probable class is wrong; classes that tie for the largest probability share the row.",
    unit="share",
    targets=_CLASSIFICATION,
    bounds=(0.0, 1.0),
)
def error_rate(prediction: Prediction, truth: Truth) -> Tensor:
    """1 - [y is among the most probable classes] / (how many classes tie there)."""
    probabilities = _probabilities(prediction)
    top = probabilities == probabilities.amax(-1, keepdim=True)
    hit = top.gather(-1, truth.y.long().unsqueeze(-1)).squeeze(-1)
    loss = 1 - hit.double() / top.sum(-1).clamp(min=1)
    return torch.where(probabilities.isnan().any(-1), torch.nan, loss)


@_register(
    "roc-auc",
    "ROC AUC",
    "Area under the ROC curve on the held-out rows, each class against the rest, averaged over the classes that the "
    "rows hold and do not consist of; ties count one half.",
    unit="share",
    targets=_CLASSIFICATION,
    direction="higher",
    scope="set",
    bounds=(0.0, 1.0),
)
def roc_auc(prediction: Prediction, truth: Truth) -> Tensor:
    """P(score of a row of the class > score of another row) + half of ties, macro-averaged: [batch].

    NaN for an episode whose queries are all of one class.
    """
    probabilities = _probabilities(prediction)
    scores = [_macro_auc(p, y) for p, y in zip(probabilities, truth.y.long(), strict=True)]
    return torch.stack(scores) if scores else probabilities.new_zeros(0)


def _macro_auc(probabilities: Tensor, y: Tensor) -> Tensor:
    """The mean over classes of the Mann-Whitney statistic, computed from mid-ranks; [queries, classes] -> scalar."""
    if probabilities.isnan().any():
        return probabilities.new_tensor(torch.nan)
    areas = []
    for code in range(probabilities.shape[-1]):
        positive = y == code
        num_positive, num_negative = int(positive.sum()), int((~positive).sum())
        if not num_positive or not num_negative:
            continue
        _, inverse, counts = torch.unique(probabilities[:, code], return_inverse=True, return_counts=True)
        mid_ranks = counts.cumsum(0) - (counts.double() - 1) / 2
        wins = mid_ranks[inverse][positive].sum() - num_positive * (num_positive + 1) / 2
        areas.append(wins / (num_positive * num_negative))
    return torch.stack(areas).mean() if areas else probabilities.new_tensor(torch.nan)


def _interval(prediction: Prediction, level: float) -> tuple[Tensor, Tensor]:
    found = prediction.interval(level)
    if found is None:
        nothing = torch.full_like(_mean(prediction), torch.nan)
        return nothing, nothing
    return found[0].double(), found[1].double()


def _coverage(level: float) -> Score:
    def score(prediction: Prediction, truth: Truth) -> Tensor:
        low, high = _interval(prediction, level)
        inside = ((low <= truth.y) & (truth.y <= high)).double()
        return torch.where(low.isnan() | high.isnan(), torch.nan, inside)

    return score


def _width(level: float) -> Score:
    def score(prediction: Prediction, truth: Truth) -> Tensor:
        del truth
        low, high = _interval(prediction, level)
        return high - low

    return score


for _percent in (80, 95):
    _register(
        f"coverage-{_percent}",
        f"coverage of the {_percent} % interval",
        f"Share of targets inside the learner's central {_percent} % interval; it should be {_percent / 100:g}.",
        unit="share",
        targets=_REGRESSION,
        direction="level",
        level=_percent / 100,
        bounds=(0.0, 1.0),
    )(_coverage(_percent / 100))
    _register(
        f"width-{_percent}",
        f"width of the {_percent} % interval",
        f"Mean width of the learner's central {_percent} % interval; narrower is better only at the same coverage.",
        unit="y",
        targets=_REGRESSION,
    )(_width(_percent / 100))


@_register(
    "pinball",
    "pinball loss",
    "Quantile loss max(q (y - f), (q - 1)(y - f)), averaged over the quantiles 0.025, 0.1, 0.5, 0.9 and 0.975.",
    unit="y",
    targets=_REGRESSION,
)
def pinball(prediction: Prediction, truth: Truth) -> Tensor:
    """The mean over PINBALL_LEVELS of the quantile loss; NaN where the learner models no spread."""
    total = torch.zeros_like(_mean(prediction))
    for level in PINBALL_LEVELS:
        low, high = _interval(prediction, abs(2 * level - 1))
        error = truth.y.double() - (low if level < 0.5 else high)
        total = total + torch.maximum(level * error, (level - 1) * error)
    return total / len(PINBALL_LEVELS)
