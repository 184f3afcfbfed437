"""Learning on a stream with river's face (Montiel et al., 2021, arXiv:2012.04740).

    from river import datasets, metrics, evaluate
    from contexture.estimators.river import ContextStreamClassifier
    evaluate.progressive_val_score(datasets.Phishing(), ContextStreamClassifier(), metrics.LogLoss())

A transformer that is conditioned on its recent pairs and trained online at the same time; see
`contexture.training.streams.learner`. Features may come and go, numbers and texts alike, and classes may be new.
`save` and `load` interrupt a stream: what follows is the same, bit for bit.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from contexture.errors import InputError
from contexture.training.streams.config import StreamConfig
from contexture.training.streams.learner import StreamLearner
from contexture.training.streams.saving import load_stream, save_stream, stream_from_bytes, stream_to_bytes

try:
    from river import base
except ImportError as error:
    raise InputError("river is not installed: python -m pip install 'contexture[river]'") from error

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = ("context", "chunk", "replay", "relabelled", "stretch", "memory", "rate", "width", "num_heads", "seed")


class _ContextStream(base.Estimator):
    """What the classifier and the regressor share; their settings are those of StreamConfig."""

    _kind: Any

    def __init__(
        self,
        context: int = 100,
        chunk: int = 16,
        replay: int = 4,
        relabelled: int = 2,
        stretch: int = 8,
        memory: int = 8192,
        rate: float = 1e-3,
        width: int = 128,
        num_heads: int = 4,
        seed: int = 0,
    ) -> None:
        self.context = context
        self.chunk = chunk
        self.replay = replay
        self.relabelled = relabelled
        self.stretch = stretch
        self.memory = memory
        self.rate = rate
        self.width = width
        self.num_heads = num_heads
        self.seed = seed
        self._learner = StreamLearner(
            StreamConfig(target=self._kind, **{name: getattr(self, name) for name in SETTINGS})
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in SETTINGS}, "_learner": stream_to_bytes(self._learner)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._learner = stream_from_bytes(state["_learner"])

    @property
    def num_seen(self) -> int:
        """How many pairs were learned from."""
        return self._learner.seen

    def learn_one(self, x: dict[Any, Any], y: Any) -> None:
        """Learn from one pair."""
        self._learner.learn(x, _plain(y))

    def learn_many(self, X: "pd.DataFrame", y: "pd.Series") -> None:
        """Learn from the rows of a frame, in their order."""
        self._learner.absorb(_rows(X), [_plain(value) for value in y])

    def save(self, folder: str | Path) -> None:
        """Write everything into a new checkpoint folder."""
        save_stream(self._learner, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Go on from what `save` wrote; InputError if it is of the other kind."""
        learner = load_stream(folder)
        if learner.config.target != cls._kind:
            raise InputError(f"{folder} holds a {learner.config.target} of a stream, not a {cls._kind}")
        found = cls(**{name: getattr(learner.config, name) for name in SETTINGS})
        found._learner = learner
        return found


class ContextStreamClassifier(_ContextStream, base.MiniBatchClassifier):
    """Probabilities of the classes met so far, from the recent pairs and from weights that follow the stream."""

    _kind = "classification"

    @property
    def _multiclass(self) -> bool:
        return True

    def predict_proba_one(self, x: dict[Any, Any], **_: Any) -> dict[Any, float]:
        """The probability of each class met so far; nothing before any."""
        return self._learner.predict(x).chances

    def predict_proba_many(self, X: "pd.DataFrame") -> "pd.DataFrame":
        """The probabilities for every row, each from the pairs learned so far."""
        import pandas as pd

        return pd.DataFrame([self.predict_proba_one(row) for row in _rows(X)], index=X.index)

    def predict_many(self, X: "pd.DataFrame") -> "pd.Series":
        """The likeliest class for every row."""
        import pandas as pd

        return pd.Series([self.predict_one(row) for row in _rows(X)], index=X.index)


class ContextStreamRegressor(_ContextStream, base.MiniBatchRegressor):
    """The mean of a number, from the recent pairs and from weights that follow the stream."""

    _kind = "regression"

    def predict_one(self, x: dict[Any, Any], **_: Any) -> float:
        """The mean; 0 before any pair."""
        return self._learner.predict(x).mean if self._learner.seen else 0.0

    def predict_many(self, X: "pd.DataFrame") -> "pd.Series":
        """The mean for every row, each from the pairs learned so far."""
        import pandas as pd

        return pd.Series([self.predict_one(row) for row in _rows(X)], index=X.index, dtype=float)


def _rows(frame: "pd.DataFrame") -> list[dict[Any, Any]]:
    rows: list[dict[Any, Any]] = frame.to_dict(orient="records")
    return rows


def _plain(y: Any) -> Any:
    """A label or number as Python has it."""
    return y.item() if hasattr(y, "item") else y
