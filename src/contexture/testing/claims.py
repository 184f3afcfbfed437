"""The laws of claims: over the judge that gives verdicts, and over every paper's file.

judge   a constant on the claim's side holds, on the other does not, an interval that straddles is undecided, in both
        directions; what differs between seeds widens the interval; few trained seeds widen it by Student's t;
        a control that holds, straddles, or is no better than zero leaves the claim undecided
papers  at most a third of the results is left out, each with a reason; what is used is registered; sentences, reasons
        and controls are there
claims  at smoke scale: reproducible; seeds are used; the control is measured on the same seeds and is not the claim;
        exact claims come out as expected, trained ones' references hold and their controls fail
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from contexture.claims import judge as judging
from contexture.claims.harness import measure, sampled
from contexture.claims.judge import Estimate
from contexture.claims.protocol import Claim, Direction, Measure, Paper, Samples, Spread, Verdict
from contexture.claims.run import Run
from contexture.discovery import registered
from contexture.errors import InputError
from contexture.testing.errors import LawError
from contexture.testing.laws import run_laws

MOST_LEFT_OUT = 1 / 3
SAME = 1e-6
"""By what share of itself, or of the threshold, a value may change when it is measured again."""
WIDENING = 2.0
"""How many times wider an interval has to be where the seeds differ by as much as the episodes do."""


class Judge(Protocol):
    """What turns samples into an estimate: `contexture.claims.judge.judge`, or a stand-in for it."""

    def __call__(
        self, samples: Samples, *, threshold: float, direction: Direction, spread: Spread = "episodes"
    ) -> Estimate:
        """Judge samples."""
        ...


class Conclude(Protocol):
    """What turns a claim's and a control's estimate into a verdict: `contexture.claims.judge.conclude`."""

    def __call__(
        self, claim: Estimate, control: Estimate, *, needs_competence: bool, mechanism: bool = False
    ) -> tuple[Verdict, str]:
        """Conclude."""
        ...


def check_judge(judge: Judge = judging.judge) -> None:
    """Hold a judge to its laws: sides, straddling, seeds, few seeds, ratios."""
    run_laws(
        {
            "sides": _sides,
            "straddling": _straddling,
            "seeds": _seeds,
            "few seeds": _few_seeds,
            "ratios": _ratios,
        },
        judge,
    )


def check_conclusion(conclude: Conclude = judging.conclude) -> None:
    """Hold the conclusion from a claim and its control to the law: nothing holds beside a control that stands."""
    law = "controls"
    own = Estimate(value=0.1, low=0.0, high=0.2, verdict="held", competent=True)
    cases: tuple[tuple[Verdict, bool | None, bool, Verdict], ...] = (
        ("not-held", True, True, "held"),
        ("held", True, True, "undecided"),
        ("undecided", True, True, "undecided"),
        ("not-held", False, True, "undecided"),
        ("not-held", None, True, "undecided"),
        ("not-held", False, False, "held"),
    )
    for verdict, competent, needs, wanted in cases:
        foil = replace(own, verdict=verdict, competent=competent)
        said, _ = conclude(own, foil, needs_competence=needs)
        if said != wanted:
            raise LawError(
                law,
                f"a claim that holds beside a {verdict} control (competent: {competent}) is {said}, not {wanted}",
            )
    failing = replace(own, verdict="not-held")
    others: tuple[Verdict, ...] = ("not-held", "undecided")
    for verdict in others:
        said, _ = conclude(replace(own, verdict=verdict), failing, needs_competence=True, mechanism=True)
        if said != verdict:
            raise LawError(law, f"a claim that is {verdict} by itself becomes {said} beside its control")
    said, _ = conclude(own, failing, needs_competence=True, mechanism=True)
    if said != "mechanism-checked":
        raise LawError(law, f"a property tested in place of a printed number is {said}, not mechanism-checked")


def check_paper(paper: Paper, *, run: Run | None = None) -> None:
    """Hold a paper's file and each of its claims, at smoke scale, to their laws."""
    run_laws({"papers": _paper}, paper)
    conditions = run or Run()
    for claim in paper.claims:
        run_laws({f"claims ({claim.name})": _claim(conditions)}, claim)


def _spread_over(seeds: Tensor, episodes: Tensor, *, centre: float) -> Samples:
    """Values that differ by `seeds` between seeds and by `episodes` within each."""
    return Samples(values=centre + seeds[:, None] + episodes[None, :])


_EPISODES = torch.linspace(-1, 1, 400, dtype=torch.float64)
_SEEDS = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)


def _sides(judge: Judge) -> None:
    small = 0.01 * _EPISODES
    cases: tuple[tuple[Direction, float, Verdict], ...] = (
        ("below", 0.5, "held"),
        ("below", 1.5, "not-held"),
        ("above", 1.5, "held"),
        ("above", 0.5, "not-held"),
    )
    for direction, centre, wanted in cases:
        said = judge(_spread_over(0 * _SEEDS, small, centre=centre), threshold=1.0, direction=direction)
        if said.verdict != wanted:
            raise LawError("sides", f"{centre} wanted {direction} 1 is {said.verdict}, not {wanted}")
        if not said.low <= said.value <= said.high or abs(said.value - centre) > 1e-9:
            raise LawError("sides", f"values around {centre} give {said.value} between {said.low} and {said.high}")


def _straddling(judge: Judge) -> None:
    wide = _spread_over(0 * _SEEDS, 10 * _EPISODES, centre=0.95)
    directions: tuple[Direction, ...] = ("below", "above")
    for direction in directions:
        said = judge(wide, threshold=1.0, direction=direction)
        if said.verdict != "undecided":
            raise LawError("straddling", f"0.95 of a spread of 10 wanted {direction} 1 is {said.verdict}")


def _seeds(judge: Judge) -> None:
    """The same values, once with their spread among episodes alone and once among seeds."""
    within = judge(_spread_over(0 * _SEEDS, _EPISODES, centre=0.0), threshold=1.0, direction="below")
    between = judge(_spread_over(_SEEDS, 0 * _EPISODES, centre=0.0), threshold=1.0, direction="below")
    if between.high - between.low < WIDENING * (within.high - within.low):
        raise LawError("seeds", "an interval is no wider where the seeds differ: it takes episodes for independent")
    if not within.high > within.low:
        raise LawError("seeds", "an interval has no width where the episodes differ")


def _few_seeds(judge: Judge) -> None:
    """Three seeds at -1, 0, 1: Student's t gives 4.303 / sqrt 3 on each side."""
    said = judge(_spread_over(_SEEDS, 0 * _EPISODES, centre=0.0), threshold=1.0, direction="below", spread="seeds")
    reach = 4.302653 / 3**0.5
    if abs(said.high - reach) > 1e-4 or abs(said.low + reach) > 1e-4:
        raise LawError("few seeds", f"three seeds at -1, 0, 1 give {said.low} to {said.high}, not -+{reach:.3f}")


def _ratios(judge: Judge) -> None:
    """A ratio is one of means, not a mean of ratios: (1 + 30) / (1 + 10), seed by seed."""
    top = torch.tensor([1.0, 30.0]).repeat(3, 50)
    bottom = torch.tensor([1.0, 10.0]).repeat(3, 50)
    for spread in ("episodes", "seeds"):
        said = judge(Samples(values=top, per=bottom), threshold=5.0, direction="below", spread=spread)
        if abs(said.value - 31 / 11) > 1e-6:
            raise LawError("ratios", f"1 and 30 per 1 and 10 give {said.value}, not 31/11")


def _paper(paper: Paper) -> None:
    law = "papers"
    if len(paper.left_out) > MOST_LEFT_OUT * (len(paper.claims) + len(paper.left_out)):
        raise LawError(law, f"{paper.key} leaves out {len(paper.left_out)} results beside {len(paper.claims)} claims")
    for sentence, reason in paper.left_out.items():
        if len(reason.split()) < 3:
            raise LawError(law, f"{paper.key} leaves out {sentence!r} without naming the data or scale that is missing")
    known = {name for room in ("learners", "tasks", "mixers") for name in registered(room)}
    for name in paper.uses:
        if name not in known:
            raise LawError(law, f"{paper.key} uses {name!r}, which is not registered")
    for claim in paper.claims:
        if claim.ideal is None or claim.foil is None:
            raise LawError(law, f"the claim {claim.name} of {paper.key} lacks a reference or a control")
        said = (claim.sentence, claim.why, claim.ideal.sentence, claim.foil.sentence)
        if any(len(text.split()) < 3 for text in said):
            raise LawError(
                law, f"the claim {claim.name} of {paper.key} has a sentence or a reason of fewer than 3 words"
            )
        if claim.expected != "held" and not claim.tried:
            raise LawError(law, f"the claim {claim.name} is expected to be {claim.expected}: say what was tried")


def _claim(run: Run) -> Callable[[Claim], None]:
    law = "claims"

    def check(claim: Claim) -> None:
        assert claim.ideal is not None
        assert claim.foil is not None
        seen: dict[str, Samples] = {}
        recorded = replace(
            claim,
            measure=_recording(claim.measure, seen, "claim"),
            foil=replace(claim.foil, measure=_recording(claim.foil.measure, seen, "control")),
        )
        torch.manual_seed(0)
        try:
            result = measure(recorded, run)
        except InputError as error:
            raise LawError(law, f"{claim.name}: {error}") from error
        torch.manual_seed(1)
        rows = seen["claim"].values
        # Kernels may round by where memory lies, and some values are nothing but rounding: that much is left open.
        change = (sampled(claim.measure, run).values - rows).abs()
        if bool((change > SAME * rows.abs().clamp_min(abs(claim.threshold))).any()):
            raise LawError(law, f"{claim.name} gives other values when measured again: it draws from a stray generator")
        if rows.shape[1] > 1 and any(torch.equal(rows[0], row) for row in rows[1:]):
            raise LawError(law, f"{claim.name} gives every seed the same values")
        if torch.equal(seen["control"].values, rows):
            raise LawError(law, f"the control of {claim.name} is the claim itself")
        if not result.as_expected:
            raise LawError(
                law,
                f"{claim.name} is {result.verdict} ({result.value:.3g}, wanted {claim.direction} {claim.threshold:g}; "
                f"reference {result.reference.verdict}, control {result.control.verdict}) {result.note}",
            )

    return check


def _recording(measured: Measure, seen: dict[str, Samples], name: str) -> Measure:
    """The same measure, whose samples are kept under a name."""

    def record(run: Run) -> Samples:
        seen[name] = measured(run)
        return seen[name]

    return record
