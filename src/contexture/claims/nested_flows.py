"""When nested logits rise (`contexture.models.nested_logits`): how suddenly, and how early, from small random numbers.

    64 starts ─▶ gradient flow on three numbers ─▶ the steps at which each share reaches a level

Shapes: a path [runs, steps, 3] holds joined, found, said.
"""

from functools import cache

import torch
from torch import Tensor

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.models.nested_logits import nested_flow
from contexture.randomness import generator
from contexture.tasks.draws import uniform

CONTEXT, LABELS = 8, 32
RATE, STEPS, FLOWS = 0.5, 600, 64


@cache
def flow(seed: int, *, labels: int = LABELS, alone: bool = False, ahead: float = 0.0) -> Tensor:
    """The reduced model from small numbers, g `ahead` of the others."""
    start = uniform(FLOWS, 3, high=0.2, generator=generator("claim", seed, "flow"))
    start[:, 2] += ahead
    return nested_flow(start, num_items=CONTEXT, num_labels=labels, rate=RATE, steps=STEPS, alone=alone)


def reaches(curves: Tensor, level: float) -> Tensor:
    """The first step at which each run reaches a level; the number of steps where it never does."""
    reached = curves >= level
    first = reached.int().argmax(1)
    return torch.where(reached.any(1), first, curves.shape[1]).double()


def sharpness(run: Run, *, alone: bool, known: bool = False) -> Samples:
    """The time that the right label's probability takes from 0.3 to 0.9, per the time until then."""

    def one(seed: int) -> OneSeed:
        seen = flow(seed, alone=alone)
        said = seen[:, :, 2]
        start, end = reaches(said, 0.3), reaches(said, 0.9)
        drawn = range(0, 150, 3)
        chain = {"joined to its item": 0, "found by the query": 1, "said, by the chain": 2}
        names = {"said, by a logit alone": 2} if alone else chain
        return OneSeed(
            values=torch.zeros_like(end) if known else end - start,
            per=end,
            errors=1 - said[:, -1],
            zero_errors=torch.full_like(end, 1 - 1 / LABELS),
            curves={} if known else {name: (drawn, seen[:, list(drawn), i].mean(0)) for name, i in names.items()},
        )

    return over_seeds(run, one)


def earlier(run: Run, *, labels: int, ahead: float = 0.0) -> Samples:
    """When the query finds the right label, per when it does with no labels but those of the context."""

    def one(seed: int) -> OneSeed:
        own, plain = flow(seed, labels=labels, ahead=ahead), flow(seed, labels=CONTEXT)
        end = own[:, -1, 2]
        return OneSeed(
            values=reaches(own[:, :, 1], 0.5),
            per=reaches(plain[:, :, 1], 0.5),
            errors=1 - end,
            zero_errors=torch.full_like(end, 1 - 1 / labels),
        )

    return over_seeds(run, one)
