r"""Predictors that answer queries, beside one that is known: by errors, by their difference, read-out by read-out.

    errors        (a - t)^2  per  (b - t)^2             a what is said, b what the other one says, t the targets
    difference    (a - b)^2  per  b^2
    apart         |a - b| of each episode over the root of the mean b^2; of several read-outs the largest

Shapes: what is said, wanted and the targets [episodes, queries].
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.predictors import Asked, Predictor, difference

Prompts = Callable[[int], Asked]
"""The prompts of a seed."""

ReadOuts = Callable[[Asked], list[Tensor]]
"""What is said of the queries after each of several layers or steps."""


def silent(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """The predictor that always says zero."""
    return queries.new_zeros(queries.shape[:2])


def compared(
    p: Asked, said: Float[Tensor, "episodes queries"], wanted: Float[Tensor, "episodes queries"], *, errors: bool
) -> OneSeed:
    """The errors of what is said per those of what is wanted, or the difference per the latter's square.

    >>> p = Asked(torch.zeros(1, 1, 1), torch.zeros(1, 1), torch.zeros(1, 2, 1), torch.tensor([[1.0, 1.0]]))
    >>> one = compared(p, torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 3.0]]), errors=False)
    >>> one.values.tolist(), one.per.tolist(), one.errors.tolist(), one.zero_errors.tolist()
    ([0.5], [6.5], [2.0], [1.0])
    """
    own, others = ((answers - p.targets).square().mean(1) for answers in (said, wanted))
    values, per = (own, others) if errors else difference(said, wanted)
    return OneSeed(values=values, per=per, errors=own, zero_errors=p.targets.square().mean(1))


def beside(
    run: Run, prompts: Prompts, ours: Sequence[Predictor], theirs: Sequence[Predictor], *, errors: bool
) -> Samples:
    """`compared` for each seed; of either side one predictor for each seed, or one for all."""

    def one(seed: int) -> OneSeed:
        p, index = prompts(seed), run.seeds.index(seed)
        said, wanted = (by[index % len(by)](p.x, p.y, p.queries) for by in (ours, theirs))
        return compared(p, said, wanted, errors=errors)

    return over_seeds(run, one)


def relative(said: Sequence[Tensor], wanted: Sequence[Tensor]) -> Float[Tensor, "read_outs episodes"]:
    """How far each read-out is from what is wanted of it, over the size of what is wanted.

    >>> relative([torch.tensor([[1.0], [2.0]])], [torch.tensor([[1.0], [7.0]])])
    tensor([[0., 1.]])
    """
    parts = [difference(ours, theirs) for ours, theirs in zip(said, wanted, strict=True)]
    return torch.stack([(gap / size.mean()).sqrt() for gap, size in parts])


def apart(
    p: Asked,
    said: Sequence[Tensor],
    wanted: Sequence[Tensor],
    name: str = "",
    *,
    first: int = 1,
    competent: int = -1,
) -> OneSeed:
    """The largest relative difference over read-outs, drawn over their number, which counts from `first`.

    competent: the read-out whose errors show whether the predictor is.
    """
    gaps = relative(said, wanted)
    return OneSeed(
        values=gaps.amax(0),
        errors=(said[competent] - p.targets).square().mean(1),
        zero_errors=p.targets.square().mean(1),
        curves={name: (range(first, first + len(gaps)), gaps.mean(1))},
    )
