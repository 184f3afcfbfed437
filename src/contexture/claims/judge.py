"""From raw samples to a number, its interval, and a verdict.

value = mean(values), or mean(values) / mean(per);   interval by the two-level bootstrap, or Student's t over seeds
held        the whole interval lies on the claim's side of the threshold, and the control's on the other
not held    the whole interval lies on the wrong side
undecided   the interval straddles the threshold; or the control does not fail; or it is not competent
mechanism checked   held, where the printed number is out of reach and the property was tested in its place
"""

from dataclasses import dataclass

import torch

from contexture.claims.protocol import Direction, Samples, Spread, Verdict
from contexture.evaluation.intervals import LEVEL, Interval, bootstrap, paired_ratio, seed_interval
from contexture.randomness import generator


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number between the ends of its interval, and on which side of the threshold that lies."""

    value: float
    low: float
    high: float
    verdict: Verdict
    competent: bool | None = None
    """Whether the learner does better than the zero predictor; None where its samples do not say."""


def judge(samples: Samples, *, threshold: float, direction: Direction, spread: Spread = "episodes") -> Estimate:
    """Judge samples by themselves.

    >>> low = Samples(values=torch.full((3, 8), 0.25))
    >>> judge(low, threshold=0.5, direction="below").verdict, judge(low, threshold=0.5, direction="above").verdict
    ('held', 'not-held')
    """
    found = estimate(samples, spread=spread)
    value, low, high = (float(end) for end in (found.value, found.low, found.high))
    return Estimate(
        value=value,
        low=low,
        high=high,
        verdict=side(low, high, threshold=threshold, direction=direction),
        competent=competence(samples),
    )


def estimate(samples: Samples, *, spread: Spread = "episodes") -> Interval:
    """The number that the samples stand for, with its interval."""
    if spread == "seeds":
        return seed_interval(_by_seed(samples))
    if samples.per is None:
        return bootstrap(samples.values, generator=generator("claim", "interval"))
    return paired_ratio(samples.values, samples.per, generator=generator("claim", "interval"))


def _by_seed(samples: Samples) -> torch.Tensor:
    """One number for each seed, [seeds, 1]."""
    means = samples.values.double().mean(1, keepdim=True)
    return means if samples.per is None else means / samples.per.double().mean(1, keepdim=True)


def side(low: float, high: float, *, threshold: float, direction: Direction) -> Verdict:
    """Where an interval lies; its ends count as the claim's side only beyond the threshold.

    >>> side(0.1, 0.2, threshold=0.2, direction="below")
    'undecided'
    """
    if direction == "above":
        low, high, threshold = -high, -low, -threshold
    return "held" if high < threshold else "not-held" if low > threshold else "undecided"


def competence(samples: Samples) -> bool | None:
    """Whether the learner's errors lie below the zero predictor's, by a paired interval."""
    if samples.errors is None or samples.zero_errors is None:
        return None
    found = paired_ratio(samples.errors, samples.zero_errors, generator=generator("claim", "competence"), level=LEVEL)
    return bool(found.high < 1)


def conclude(
    claim: Estimate, control: Estimate, *, needs_competence: bool, mechanism: bool = False
) -> tuple[Verdict, str]:
    """The claim's verdict in the light of its control, and what spoke against it."""
    if claim.verdict == "not-held":
        return "not-held", ""
    if claim.verdict == "undecided":
        return "undecided", "the interval straddles the threshold"
    if control.verdict != "not-held":
        return "undecided", "the control does not fail" if control.verdict == "undecided" else "the control holds too"
    if needs_competence and not control.competent:
        return "undecided", "the control is no better than the zero predictor"
    return ("mechanism-checked" if mechanism else "held"), ""
