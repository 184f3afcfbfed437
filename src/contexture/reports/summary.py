"""What a comparison shows, in plain sentences made from its intervals: who leads where, by how much, who ties.

A learner *leads* at a context size if no other has a better score that a paired interval can tell from it. The sizes
are cut into as few runs as possible that each have one learner leading throughout.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contexture.evaluation.comparison import Comparison
from contexture.protocols import Measurement
from contexture.reports.numbers import listed, number

_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead:
    """A run of context sizes at which one learner leads; `first` if its score is the best at every one of them."""

    leader: str
    sizes: tuple[int, ...]
    first: bool


def leads(comparison: Comparison) -> list[Lead]:
    """The runs, from the smallest context to the largest; sizes at which nobody has a score are left out."""
    known = [(n, names) for n, names in zip(comparison.context, comparison.tied, strict=False) if names]
    found: list[Lead] = []
    while known:
        length, shared = 1, set(known[0][1])
        while length < len(known) and shared & set(known[length][1]):
            shared &= set(known[length][1])
            length += 1
        run, known = known[:length], known[length:]
        leader = min(shared, key=lambda name: (-sum(names[0] == name for _, names in run), _places(name, run), name))
        found.append(
            Lead(
                leader=leader,
                sizes=tuple(n for n, _ in run),
                first=all(names[0] == leader for _, names in run),
            )
        )
    return found


def _places(name: str, run: Sequence[tuple[int, tuple[str, ...]]]) -> int:
    return sum(names.index(name) for _, names in run)


def summary(comparison: Comparison) -> str:
    """One to three sentences: who leads at which sizes, how near to the oracle, and whether anyone beats chance."""
    if not comparison.contestants:
        return "Nothing was measured."
    runs = leads(comparison)
    if not runs:
        return "No learner has a score at any of these context sizes."
    if len(comparison.contestants) == 1:
        sentences = [_alone(comparison, comparison.contestants[0])]
    else:
        sentences = [f"{_capital('; '.join(_clause(comparison, run) for run in runs))}."]
    sentences += _against_oracle(comparison, runs[-1])
    sentences += _against_chance(comparison, runs[-1])
    return " ".join(sentences)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _span(comparison: Comparison, sizes: Sequence[int]) -> str:
    known = [names for names in comparison.tied if names]
    if len(sizes) == 1:
        return f"after {sizes[0]} {comparison.counted}"
    return "at every size" if len(sizes) == len(known) else f"from {sizes[0]} to {sizes[-1]} {comparison.counted}"


def _score(comparison: Comparison, name: str, size: int) -> str:
    measurement = comparison.of(name)
    i = comparison.context.index(size)
    text = number(measurement.value[i])
    if math.isfinite(measurement.low[i]):
        level = f"{100 * comparison.level:g} %"
        text += f", {level} interval {number(measurement.low[i])} to {number(measurement.high[i])}"
    return text


def _clause(comparison: Comparison, run: Lead) -> str:
    metric = comparison.scoring
    words = {"lower": "has the lowest", "higher": "has the highest", "level": "is nearest to the right"}
    last = run.sizes[-1]
    after = f" after {last}" if len(run.sizes) > 1 else ""
    score = f"({_score(comparison, run.leader, last)}{after})"
    level = [name for name in comparison.tied[comparison.context.index(last)] if name != run.leader]
    rivals = f"{_named(level)} cannot be told apart from it{after}" if level else ""
    span = _span(comparison, run.sizes)
    if run.first:
        leads = f"{span} {run.leader} {words[metric.direction]} {metric.label} {score}"
        return f"{leads}, but {rivals}" if rivals else leads
    leads = f"{span} no learner measurably beats {run.leader} {score}"
    return f"{leads}, and {rivals}" if rivals else leads


def _named(names: Sequence[str]) -> str:
    """The names, cut after a few."""
    more = len(names) - _MOST_NAMED
    return listed([*names[:_MOST_NAMED], f"{more} more"] if more > 0 else names)


def _alone(comparison: Comparison, measurement: Measurement) -> str:
    known = [n for n, v in zip(comparison.context, measurement.value, strict=True) if math.isfinite(v)]
    score = _score(comparison, measurement.name, known[-1])
    return f"After {known[-1]} {comparison.counted} the {comparison.scoring.label} of {measurement.name} is {score}."


def _against_oracle(comparison: Comparison, run: Lead) -> list[str]:
    if comparison.oracle is None or comparison.oracle == run.leader or not comparison.scoring.lower_is_better:
        return []
    i = comparison.context.index(run.sizes[-1])
    best, oracle = comparison.of(run.leader).value[i], comparison.of(comparison.oracle).value[i]
    if not (math.isfinite(oracle) and oracle > 0):
        return []
    ratio = best / oracle
    near = "about that" if abs(ratio - 1) < 0.02 else f"{number(ratio)} times that"
    oracle_name = comparison.oracle.removesuffix(" (oracle)")
    when = f"After {run.sizes[-1]} {comparison.counted}"
    return [f"{when} its {comparison.scoring.label} is {near} of the oracle, {oracle_name}."]


def _against_chance(comparison: Comparison, run: Lead) -> list[str]:
    chance, metric = comparison.chance, comparison.scoring
    if chance is None or metric.direction == "level":
        return []
    i = comparison.context.index(run.sizes[-1])
    best = comparison.of(run.leader)
    worst_end = best.high[i] if metric.lower_is_better else best.low[i]
    beats = worst_end < chance if metric.lower_is_better else worst_end > chance
    if not math.isfinite(worst_end) or beats:
        return []
    return [f"Even so, its interval does not exclude chance ({number(chance)})."]
