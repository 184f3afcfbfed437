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
    """A run of context sizes at which one learner leads; `rivals` are level with it at every one of them."""

    leader: str
    sizes: tuple[int, ...]
    alone: bool
    rivals: tuple[str, ...]


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
        always = set.intersection(*(set(names) for _, names in run)) - {leader}
        found.append(
            Lead(
                leader=leader,
                sizes=tuple(n for n, _ in run),
                alone=all(len(names) == 1 for _, names in run),
                rivals=tuple(name for name in run[-1][1] if name in always),
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
        sentences = [f"{_capital('; '.join(_clause(comparison, run, first=not i) for i, run in enumerate(runs)))}."]
    sentences += _against_oracle(comparison, runs[-1])
    sentences += _against_chance(comparison, runs[-1])
    return " ".join(sentences)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _span(sizes: Sequence[int], *, every: bool) -> str:
    if every:
        return "at every size" if len(sizes) > 1 else f"after {sizes[0]} examples"
    return f"after {sizes[0]} examples" if len(sizes) == 1 else f"from {sizes[0]} to {sizes[-1]} examples"


def _score(comparison: Comparison, name: str, size: int) -> str:
    measurement = comparison.of(name)
    i = comparison.context.index(size)
    text = number(measurement.value[i])
    if math.isfinite(measurement.low[i]):
        level = f"{100 * comparison.level:g} %"
        text += f", {level} interval {number(measurement.low[i])} to {number(measurement.high[i])}"
    return text


def _clause(comparison: Comparison, run: Lead, *, first: bool) -> str:
    metric = comparison.scoring
    words = {"lower": "has the lowest", "higher": "has the highest", "level": "is nearest to the right"}
    span = _span(run.sizes, every=len(run.sizes) == len([names for names in comparison.tied if names]))
    last = run.sizes[-1]
    what = f"{words[metric.direction]} {metric.label}" if first else "leads"
    score = f"({_score(comparison, run.leader, last)}{f' after {last}' if len(run.sizes) > 1 else ''})"
    if run.alone:
        return f"{span} {run.leader} {what} {score}"
    if run.rivals:
        return f"{span} {run.leader} {what} {score}, which {_named(run.rivals)} cannot be told apart from"
    level = [name for name in comparison.tied[comparison.context.index(last)] if name != run.leader]
    also = f", with {_named(level)} level after {last}" if level else ""
    return f"{span} no learner measurably beats {run.leader} {score}{also}"


def _named(names: Sequence[str]) -> str:
    """The names, cut after a few."""
    more = len(names) - _MOST_NAMED
    return listed([*names[:_MOST_NAMED], f"{more} more"] if more > 0 else names)


def _alone(comparison: Comparison, measurement: Measurement) -> str:
    known = [n for n, v in zip(comparison.context, measurement.value, strict=True) if math.isfinite(v)]
    score = _score(comparison, measurement.name, known[-1])
    return f"After {known[-1]} examples the {comparison.scoring.label} of {measurement.name} is {score}."


def _against_oracle(comparison: Comparison, run: Lead) -> list[str]:
    if comparison.oracle is None or comparison.oracle == run.leader or not comparison.scoring.lower_is_better:
        return []
    i = comparison.context.index(run.sizes[-1])
    best, oracle = comparison.of(run.leader).value[i], comparison.of(comparison.oracle).value[i]
    if not (math.isfinite(oracle) and oracle > 0):
        return []
    ratio = best / oracle
    near = "that" if abs(ratio - 1) < 0.005 else f"{number(ratio)} times that"
    oracle_name = comparison.oracle.removesuffix(" (oracle)")
    return [f"After {run.sizes[-1]} examples its {comparison.scoring.label} is {near} of the oracle, {oracle_name}."]


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
