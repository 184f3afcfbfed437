"""The episodes on which learners are held to their laws, and the changes made to them.

Shapes: x [batch, time, features]; y [batch, time]. Targets and columns are of unit scale, so that differences can be
judged as they are; the table's columns are not.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contexture.protocols import Card, Column, Learner, LearnerCard, Pairs, Prediction, Schema, Target
from contexture.randomness import generator

BATCH, TIME, NUM_CLASSES = 3, 10, 3
REFIT_SIZES = (0, 1, TIME - 1)
REFIT_TIME = 3
HUGE_X, HUGE_Y = 1e3, 1e9
"""So large that even the rounding of what later targets went into shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerCase:
    """A learner, and episodes of one kind to show it."""

    learner: Learner
    episodes: Pairs
    tolerance: float

    @property
    def card(self) -> LearnerCard:
        """The learner's card."""
        card: Card = self.learner.card
        assert isinstance(card, LearnerCard)
        return card

    @property
    def context(self) -> Pairs:
        """All but the last two examples."""
        return self.episodes.prefix(self.episodes.time - 2)

    @property
    def queries(self) -> Tensor:
        """The rows of the last two examples and of an early one."""
        return torch.cat([self.episodes.x[:, -2:], self.episodes.x[:, 1:2]], dim=1)

    @property
    def what(self) -> str:
        """How messages name the case."""
        kind = "numbers" if self.episodes.schema.is_plain else "a table"
        return f"{self.card.name} on {self.episodes.schema.task} of {kind}"

    def answer(self, *, context: Pairs | None = None, queries: Tensor | None = None) -> dict[str, Tensor]:
        """What the learner predicts, by the prediction's fields."""
        said = self.learner.predict(
            self.context if context is None else context, self.queries if queries is None else queries
        )
        return fields(said)

    def along(self, episodes: Pairs | None = None) -> dict[str, Tensor]:
        """Predictions at every t; of a learner that is refitted, at a few context sizes."""
        episodes = self.episodes if episodes is None else episodes
        if self.card.prequential == "exact":
            return fields(self.learner.prequential(episodes))
        sizes = [size for size in REFIT_SIZES if size < episodes.time]
        return self.one_by_one(episodes, sizes)

    def one_by_one(self, episodes: Pairs, sizes: list[int]) -> dict[str, Tensor]:
        """`predict` after every given number of examples, for the next row."""
        said = [fields(self.learner.predict(episodes.prefix(t), episodes.x[:, t : t + 1])) for t in sizes]
        return {name: torch.cat([one[name] for one in said], dim=1) for name in said[0]}


def fields(said: Prediction) -> dict[str, Tensor]:
    """The tensors of a prediction by name."""
    named = {name: getattr(said, name) for name in ("mean", "variance", "probabilities", "quantiles")}
    return {name: value for name, value in named.items() if value is not None}


def build(target: Target, num_features: int) -> Pairs:
    """Noisy linear episodes; one holds a row twice, and the first examples of one are all of one class."""
    draw = generator(0, "learner laws", target)
    x = torch.randn(BATCH, TIME, num_features, generator=draw, dtype=torch.float64)
    x[1, 4] = x[1, 1]
    noise = torch.randn(BATCH, TIME, NUM_CLASSES, generator=draw, dtype=torch.float64)
    weights = torch.randn(BATCH, num_features, NUM_CLASSES, generator=draw, dtype=torch.float64)
    scores = x @ weights / num_features**0.5 + 0.3 * noise
    if target == "regression":
        return Pairs(x=x, y=scores[..., 0].clone(), schema=Schema.numeric(num_features))
    y = scores.argmax(-1)
    y[0, :3] = y[0, 0]
    return Pairs(x=x, y=y, schema=Schema.classes(num_features, NUM_CLASSES))


def as_table(pairs: Pairs) -> Pairs:
    """The same episodes with a column of categories, missing cells and columns of other scales."""
    x = torch.cat([pairs.x, (pairs.x[..., :1] * 2).round().clamp(-1, 2) + 1], dim=-1)
    x[..., 0] *= 1000
    x[0, 3, 0] = x[1, 0, 1] = x[2, 5, -1] = x[2, 9, 0] = torch.nan
    colour = Column(name="colour", kind="categorical", categories=("red", "green", "blue", "grey"))
    schema = replace(pairs.schema, features=(*pairs.schema.features, colour))
    return Pairs(x=x, y=pairs.y, schema=schema)


def other_future(episodes: Pairs, t: int) -> Pairs:
    """The same episodes with other, much larger y from t on and other x after t."""
    x, y = episodes.x.clone(), other_targets(episodes)
    y[:, :t] = episodes.y[:, :t]
    x[:, t + 1 :] = other_rows(episodes)[:, t + 1 :]
    return replace(episodes, x=x, y=y)


def other_targets(episodes: Pairs) -> Tensor:
    """Other valid targets: numbers far away, or the next class."""
    if episodes.schema.num_classes:
        return (episodes.y + 1) % episodes.schema.num_classes
    return HUGE_Y * (1 + episodes.y)


def other_rows(episodes: Pairs) -> Tensor:
    """Other valid rows: numbers far away, the next category."""
    x = HUGE_X * (1 - episodes.x)
    for j, column in enumerate(episodes.schema.features):
        if column.kind == "categorical":
            x[..., j] = (episodes.x[..., j] + 1) % len(column.categories)
    return x


def other_episodes(episodes: Pairs, kept: int) -> Pairs:
    """The same batch with every episode but one changed."""
    x, y = other_rows(episodes), other_targets(episodes)
    x[kept], y[kept] = episodes.x[kept], episodes.y[kept]
    return replace(episodes, x=x, y=y)
