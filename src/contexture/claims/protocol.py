"""What a paper's file states: the paper, its claims, and for each claim what is measured, held against, and must fail.

    paper ─▶ claims ─▶ samples of the claim, of its reference, of its control ─▶ (harness) interval, verdict, figure

A claim is a sentence of ours and a function from a `Run` to `Samples`: raw values per seed and episode, judged by
nobody yet. Its *control* differs in the one ingredient that the claim credits, and must fail; its *reference* is the
ideal put in the learner's place, and must hold.

Shapes: seeds, episodes = the two levels of sampling; points = places along the x axis of a figure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.claims.run import Run
from contexture.errors import InputError

Direction = Literal["below", "above"]
Kind = Literal["exact", "trained"]
Spread = Literal["episodes", "seeds"]
Verdict = Literal["held", "not-held", "undecided", "mechanism-checked"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """One line of a figure: x, and a value at each x for every seed."""

    x: tuple[float, ...]
    y: Float[Tensor, "seeds points"]

    def __post_init__(self) -> None:
        if self.y.dim() != 2 or self.y.shape[1] != len(self.x):
            raise InputError(f"a curve over {len(self.x)} points needs y [seeds, points], not {tuple(self.y.shape)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """What a claim's figure shows: words for both axes, which of them are logarithmic.

    rule: whether y is the quantity of the threshold, which is then ruled across.
    """

    x: str
    y: str
    log_x: bool = False
    log_y: bool = False
    rule: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Samples:
    """Raw values, paired over seeds and episodes; the harness alone makes numbers and verdicts of them.

    The claim's number is the mean of `values` or, where `per` is given, mean(values) / mean(per) over the same
    episodes. `errors` beside `zero_errors` (those of the predictor that always says zero, or of chance) show whether
    the learner behind the values is competent. `curves` are lines of the figure by name.
    """

    values: Float[Tensor, "seeds episodes"]
    per: Float[Tensor, "seeds episodes"] | None = None
    errors: Float[Tensor, "seeds episodes"] | None = None
    zero_errors: Float[Tensor, "seeds episodes"] | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.dim() != 2 or 0 in self.values.shape:
            raise InputError(f"samples need values [seeds, episodes], not {tuple(self.values.shape)}")
        if self.per is not None and self.per.shape != self.values.shape:
            raise InputError("`per` is paired with the values, so it has their shape")
        if (self.errors is None) != (self.zero_errors is None):
            raise InputError("errors are shown beside the zero predictor's: give both, or neither")
        if not bool(torch.isfinite(self.values).all()):
            raise InputError("samples hold a value that is not a finite number")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OneSeed:
    """What one seed adds to `Samples`; curves are (x, y) with y [points], and one whose name is "" is not drawn."""

    values: Float[Tensor, " episodes"]
    per: Float[Tensor, " episodes"] | None = None
    errors: Float[Tensor, " episodes"] | None = None
    zero_errors: Float[Tensor, " episodes"] | None = None
    curves: Mapping[str, tuple[Sequence[float], Float[Tensor, " points"]]] = field(default_factory=dict)


def over_seeds(run: Run, measure: Callable[[int], OneSeed]) -> Samples:
    """The samples of every seed of the run, stacked."""
    seeds = [measure(seed) for seed in run.seeds]

    def stacked(parts: list[Tensor | None]) -> Tensor | None:
        present = [part for part in parts if part is not None]
        return torch.stack(present) if len(present) == len(seeds) else None

    return Samples(
        values=torch.stack([one.values for one in seeds]),
        per=stacked([one.per for one in seeds]),
        errors=stacked([one.errors for one in seeds]),
        zero_errors=stacked([one.zero_errors for one in seeds]),
        curves={
            name: Curve(x=tuple(map(float, x)), y=torch.stack([one.curves[name][1] for one in seeds]))
            for name, (x, _) in seeds[0].curves.items()
            if name
        },
    )


Measure = Callable[[Run], Samples]


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """What must fail: the claim's measure with one ingredient exchanged.

    `incompetent` says why a control that does no better than zero is right here; empty, it has to do better.
    """

    sentence: str
    measure: Measure
    incompetent: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """What a claim is held against: the ideal put in the learner's place and measured in the same way."""

    sentence: str
    measure: Measure


@dataclass(slots=True, eq=False)
class Claim:
    """One result of a paper, as code. Made by `claim`; `reference` and `control` are filled in by its decorators."""

    name: str
    sentence: str
    measure: Measure
    threshold: float
    direction: Direction
    why: str
    kind: Kind
    spread: Spread
    axes: Axes | None
    leaves_out: str
    mechanism: str
    expected: Verdict
    tried: str
    ideal: Reference | None = None
    foil: Control | None = None

    def __call__(self, run: Run) -> Samples:
        """Measure the claim itself."""
        return self.measure(run)

    def reference(self, sentence: str) -> Callable[[Measure], Measure]:
        """Mark the function that measures what the claim is held against."""

        def mark(measure: Measure) -> Measure:
            self.ideal = Reference(sentence=sentence, measure=measure)
            return measure

        return mark

    def control(self, sentence: str, *, incompetent: str = "") -> Callable[[Measure], Measure]:
        """Mark the function that measures what must fail."""

        def mark(measure: Measure) -> Measure:
            self.foil = Control(sentence=sentence, measure=measure, incompetent=incompetent)
            return measure

        return mark


def claim(
    sentence: str,
    *,
    threshold: float,
    direction: Direction,
    why: str,
    kind: Kind = "exact",
    spread: Spread = "episodes",
    axes: Axes | None = None,
    leaves_out: str = "",
    mechanism: str = "",
    expected: Verdict = "held",
    tried: str = "",
) -> Callable[[Measure], Claim]:
    """Make a claim of a function that measures it.

    why: why this threshold. kind: "exact" claims must come out as `expected` at every scale; "trained" ones at smoke
    scale only have to run, while their reference holds and their control fails. spread: "seeds" takes Student's t over
    the seeds, for values that differ more between trained models than between episodes. leaves_out: what these scales
    do not show. mechanism: where the printed number is out of reach, what is tested in its place. tried: for a claim
    that is not expected to hold, what was tried.
    """
    if direction not in ("below", "above"):
        raise InputError(f"a claim's direction is 'below' or 'above', not {direction!r}")

    def mark(measure: Measure) -> Claim:
        return Claim(
            name=measure.__name__.replace("_", "-"),
            sentence=sentence,
            measure=measure,
            threshold=threshold,
            direction=direction,
            why=why,
            kind=kind,
            spread=spread,
            axes=axes,
            leaves_out=leaves_out,
            mechanism=mechanism,
            expected=expected,
            tried=tried,
        )

    return mark


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Paper:
    """A paper, and which parts of the workbench its claims use.

    uses: names of registered learners, tasks and mixers. left_out: results of the abstract that are not measured, each
    with the data or the scale that is missing; at most a third of all. Discovery fills in the claims, and the hash of
    the file as `source`.
    """

    key: str
    title: str
    authors: str
    year: int
    arxiv: str = ""
    uses: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    source: str = ""

    def claim(self, name: str) -> Claim:
        """The claim of that name; InputError lists what there is."""
        for one in self.claims:
            if one.name == name:
                return one
        raise InputError(f"{self.key} has no claim {name!r}: there are {', '.join(c.name for c in self.claims)}")
