r"""Predictors beside the one that is known to be optimal, at every example of fresh prompts.

    gap      (said - wanted)^2 over wanted^2                 how far what is predicted is from the optimum's prediction
    excess   (said - y)^2 over (wanted - y)^2                what it costs

Both are averaged over the examples from `first` on, and drawn by the number of examples seen. A predictor is a function
from episodes to what is said of every y from x up to it and y before it.
Shapes: what is said [episodes, time].
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from contexture.claims.in_context import Predict, said_by
from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.learners.in_context import InContext
from contexture.models.pairs import PairsModel
from contexture.protocols import Pairs

Draw = Callable[[int], Pairs]
"""The episodes of a seed."""


def each(models: Sequence[PairsModel]) -> list[Predict]:
    """What every seed's trained model predicts."""
    return [said_by(InContext(model)) for model in models]


def gap(
    run: Run,
    draw: Draw,
    said: Sequence[Predict],
    wanted: Predict,
    *,
    name: str = "",
    first: int = 1,
    pooled: bool = True,
) -> Samples:
    """The squared difference from what is wanted, relative to its square; one predictor for each seed, or for all.

    pooled: the curve is over the mean square of all examples, since that at one may be next to nothing.
    """

    def one(seed: int) -> OneSeed:
        drawn = draw(seed)
        ours, best = _of(run, seed, said)(drawn), wanted(drawn)
        return _seed(drawn, ours, (ours - best).square(), best.square(), name=name, first=first, pooled=pooled)

    return over_seeds(run, one)


def excess(run: Run, draw: Draw, said: Sequence[Predict], best: Predict, *, name: str = "", first: int = 1) -> Samples:
    """The squared error per that of the best; one predictor for each seed, or for all."""

    def one(seed: int) -> OneSeed:
        drawn = draw(seed)
        ours = _of(run, seed, said)(drawn)
        errors, least = ((value - drawn.y).square() for value in (ours, best(drawn)))
        return _seed(drawn, ours, errors, least, name=name, first=first, pooled=False)

    return over_seeds(run, one)


def _of(run: Run, seed: int, said: Sequence[Predict]) -> Predict:
    return said[run.seeds.index(seed) % len(said)]


def _seed(drawn: Pairs, ours: Tensor, values: Tensor, per: Tensor, *, name: str, first: int, pooled: bool) -> OneSeed:
    below = per[:, first:].mean() if pooled else per[:, first:].mean(0)
    curve = values[:, first:].mean(0) / below
    return OneSeed(
        values=values[:, first:].mean(1),
        per=per[:, first:].mean(1),
        errors=(ours - drawn.y).square()[:, first:].mean(1),
        zero_errors=drawn.y.square()[:, first:].mean(1),
        curves={name: (range(first, drawn.time), curve)},
    )
