"""Learners on a stream, one after another: every target is predicted before it is seen (Dawid, 1984, prequential).

Of a class the loss is minus the logarithm of the probability that it was given, never taken to be under FLOOR, since
trees and counts say zero of what they have not met; of a number it is the squared error over the variance of all
targets.
A rival is named, and brings `predict_one` and `learn_one` as river has them; ours take many pairs at once.
"""

import math
import numbers
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from contexture.errors import InputError
from contexture.store.environment import environment
from contexture.training.streams.config import StreamConfig
from contexture.training.streams.learner import StreamLearner

OURS = "context-stream"
"""The name of ours with all its parts, the first of `our_settings`."""
FLOOR = 1e-3
PIECE = 512
"""Pairs between two reports of progress."""

Row = Mapping[str, Any]
Scores = tuple[list[float], list[bool]]


Rival = Any
"""A learner with river's verbs: learn_one(x, y), predict_one(x), and of classes predict_proba_one(x)."""


@dataclass(frozen=True, kw_only=True)
class StreamScore:
    """One learner's losses, averaged over consecutive windows of pairs, and all of them; seconds of processor time."""

    name: str
    loss: float
    accuracy: float | None
    windows: tuple[float, ...]
    hits: tuple[float, ...] = ()
    """The accuracy in every window; nothing of numbers."""
    seconds: float
    pairs_per_second: float


@dataclass(frozen=True, kw_only=True)
class StreamComparison:
    """Learners on one stream."""

    source: str
    target: str
    num_pairs: int
    window: int
    drifts: tuple[int, ...] = ()
    """The pairs at which the law is known to change."""
    scores: tuple[StreamScore, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    command: str = ""
    environment: Mapping[str, Any] = field(default_factory=environment)

    def to_document(self) -> dict[str, Any]:
        """Plain values."""
        return {"schema": "contexture.stream/1", "floor": FLOOR, **asdict(self)}


def our_settings(target: str, *, seed: int = 0) -> dict[str, StreamConfig]:
    """Ours: all of it, and what is left when one part is taken away."""
    parts: dict[str, dict[str, Any]] = {
        OURS: {},
        "without replay": {"replay": 0},
        "gradient only": {"replay": 0, "context": 0},
        "context only": {"replay": 0, "rate": 0.0},
    }
    return {name: StreamConfig(target=target, seed=seed, **changes) for name, changes in parts.items()}  # type: ignore[arg-type]


class Persistence:
    """What came last, as sure as that has been right so far: the control that a drifting stream asks for."""

    def __init__(self) -> None:
        self.last: Any = None
        self.right, self.seen = 1.0, 2.0
        self.labels: dict[Any, None] = {}

    def learn_one(self, x: Row, y: Any) -> None:
        """Take the target as the next prediction."""
        if self.last is not None:
            self.right, self.seen = self.right + (y == self.last), self.seen + 1
        self.last = y
        self.labels[y] = None

    def predict_one(self, x: Row) -> Any:
        """What came last."""
        return self.last

    def predict_proba_one(self, x: Row) -> dict[Any, float]:
        """The share of repetitions so far for what came last; the rest for the other classes alike."""
        if self.last is None:
            return {}
        sure = self.right / self.seen
        others = [label for label in self.labels if label != self.last]
        rest = {label: (1 - sure) / len(others) for label in others}
        return {self.last: sure if others else 1.0, **rest}


def river_rivals(target: str, *, seed: int = 0) -> dict[str, Callable[[], Rival]]:
    """River's learners that belong beside ours; InputError without river."""
    try:
        from river import compose, forest, linear_model, multiclass, naive_bayes, preprocessing, tree
    except ImportError as error:
        raise InputError("river is not installed: python -m pip install 'contexture[river]'") from error

    def coded(numeric: Rival) -> Rival:
        """Texts as one number for each value, beside the numbers."""
        texts = compose.SelectType(str) | preprocessing.OneHotEncoder()
        return (compose.SelectType(numbers.Number) | numeric) + texts

    def scaled() -> Rival:
        return coded(preprocessing.StandardScaler())

    if target == "regression":
        return {
            "linear regression": lambda: scaled() | linear_model.LinearRegression(),
            "hoeffding tree": tree.HoeffdingTreeRegressor,
            "adaptive random forest": lambda: forest.ARFRegressor(seed=seed),
        }
    return {
        "logistic regression": lambda: scaled() | multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
        "naive bayes": lambda: coded(compose.FuncTransformer(dict)) | naive_bayes.GaussianNB(),  # type: ignore[no-untyped-call]
        "hoeffding tree": tree.HoeffdingTreeClassifier,
        "adaptive random forest": lambda: forest.ARFClassifier(seed=seed),
    }


def score_ours(config: StreamConfig, rows: Sequence[Row], targets: Sequence[Any]) -> Iterator[Scores]:
    """Losses and hits of a stream learner, piece by piece."""
    learner = StreamLearner(config)
    spread = _spread(targets) if config.target == "regression" else 1.0
    for start in range(0, len(rows), PIECE):
        piece = targets[start : start + PIECE]
        said = learner.absorb(rows[start : start + PIECE], piece)
        if config.target == "regression":
            losses = [(one.mean - y) ** 2 / spread for one, y in zip(said, piece, strict=True)]
            yield losses, []
            continue
        floor = -math.log(FLOOR)
        yield (
            [min(one.log_loss(y), floor) for one, y in zip(said, piece, strict=True)],
            [one.label == y for one, y in zip(said, piece, strict=True)],
        )


def score_rival(rival: Rival, target: str, rows: Sequence[Row], targets: Sequence[Any]) -> Iterator[Scores]:
    """Losses and hits of a learner with river's verbs, piece by piece."""
    spread = _spread(targets) if target == "regression" else 1.0
    losses: list[float] = []
    hits: list[bool] = []
    for row, y in zip(rows, targets, strict=True):
        if target == "regression":
            losses.append((float(rival.predict_one(row) or 0.0) - y) ** 2 / spread)
        else:
            chances = rival.predict_proba_one(row)
            losses.append(-math.log(max(chances.get(y, 0.0), FLOOR)))
            hits.append(bool(chances) and max(chances, key=chances.get) == y)
        rival.learn_one(row, y)
        if len(losses) == PIECE:
            yield losses, hits
            losses, hits = [], []
    if losses:
        yield losses, hits


def scored(
    name: str, pieces: Iterator[Scores], *, num_pairs: int, window: int, advance: Callable[[float, str], None] | None
) -> StreamScore:
    """Run a learner to the end of the stream."""
    began, losses, hits = time.process_time(), list[float](), list[bool]()
    for more, right in pieces:
        losses += more
        hits += right
        if advance is not None:
            advance(len(losses) / num_pairs, name)
    spent = time.process_time() - began
    cuts = range(0, len(losses), window)
    return StreamScore(
        name=name,
        loss=sum(losses) / len(losses),
        accuracy=sum(hits) / len(hits) if hits else None,
        windows=tuple(float(np.mean(losses[cut : cut + window])) for cut in cuts),
        hits=tuple(float(np.mean(hits[cut : cut + window])) for cut in cuts) if hits else (),
        seconds=spent,
        pairs_per_second=len(losses) / max(spent, 1e-9),
    )


def _spread(targets: Sequence[Any]) -> float:
    return float(np.var(np.asarray(targets, dtype=float))) or 1.0
