"""Measuring a claim with its reference and its control, and what comes of it as a record.

claim, run ─▶ three sets of samples ─▶ three estimates ─▶ verdict ─▶ Result (plain values, with the figure's lines)
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from contexture.claims.judge import Estimate, conclude, judge
from contexture.claims.protocol import Claim, Curve, Direction, Kind, Measure, Paper, Samples, Verdict
from contexture.claims.run import Run, Scale
from contexture.errors import InputError

Line = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """A reference or a control as measured: its sentence and its own number and verdict."""

    sentence: str
    value: float
    low: float
    high: float
    verdict: Verdict
    competent: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A claim as measured. `as_expected` is what the exit status goes by; `lines` are the figure's, by name.

    seconds: of the processor, for the claim, its reference and its control, with the training of the `models` that they
    use (their own seconds by the hash of their configuration), whether that was done now or before.
    """

    name: str
    sentence: str
    kind: Kind
    scale: Scale
    value: float
    low: float
    high: float
    threshold: float
    direction: Direction
    verdict: Verdict
    note: str
    why: str
    reference: Side
    control: Side
    seeds: int
    seconds: float
    as_expected: bool
    settings: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, float] = field(default_factory=dict)
    axes: Mapping[str, Any] | None = None
    lines: Mapping[str, Line] = field(default_factory=dict)
    leaves_out: str = ""
    mechanism: str = ""
    tried: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Result":
        """What `to_json` gave."""
        sides = {name: Side(**values[name]) for name in ("reference", "control")}
        return cls(**{**values, **sides})


def measure(claim: Claim, run: Run) -> Result:
    """Measure a claim, its reference and its control under the same conditions and judge them by the same judge.

    Raises InputError for a claim without reference or control, and for samples that are not paired with the claim's.
    """
    if claim.ideal is None or claim.foil is None:
        raise InputError(f"the claim {claim.name!r} has no {'control' if claim.ideal else 'reference'}: mark one")
    began = time.process_time()
    run.settings.clear()
    run.models.forget()
    own = sampled(claim.measure, run)
    ideal, foil = sampled(claim.ideal.measure, run), sampled(claim.foil.measure, run)
    for what, samples in (("reference", ideal), ("control", foil)):
        if samples.values.shape != own.values.shape:
            raise InputError(
                f"the {what} of {claim.name!r} has samples {tuple(samples.values.shape)}, but the claim's are "
                f"{tuple(own.values.shape)}: they share seeds and episodes"
            )
    estimates = [_judge(claim, samples) for samples in (own, ideal, foil)]
    verdict, note = conclude(
        estimates[0], estimates[2], needs_competence=not claim.foil.incompetent, mechanism=bool(claim.mechanism)
    )
    return Result(
        name=claim.name,
        sentence=claim.sentence,
        kind=claim.kind,
        scale=run.scale,
        value=estimates[0].value,
        low=estimates[0].low,
        high=estimates[0].high,
        threshold=claim.threshold,
        direction=claim.direction,
        verdict=verdict,
        note=note,
        why=claim.why,
        reference=_side(claim.ideal.sentence, estimates[1]),
        control=_side(claim.foil.sentence, estimates[2]),
        seeds=len(run.seeds),
        seconds=round(time.process_time() - began - sum(run.models.spent) + sum(run.models.used.values()), 3),
        as_expected=expected(claim, run.scale, verdict, estimates[1], estimates[2]),
        settings=dict(run.settings),
        models=dict(run.models.used),
        axes=None if claim.axes is None else asdict(claim.axes),
        lines=_lines(own, ideal, foil),
        leaves_out=claim.leaves_out,
        mechanism=claim.mechanism,
        tried=claim.tried,
    )


def expected(claim: Claim, scale: Scale, verdict: Verdict, ideal: Estimate, foil: Estimate) -> bool:
    """Whether a claim came out as it should: exact ones as stated; trained ones at smoke by reference and control."""
    sides = ideal.verdict == "held" and foil.verdict == "not-held"
    if claim.kind == "trained":
        return sides if scale == "smoke" else True
    wanted = "mechanism-checked" if claim.mechanism and claim.expected == "held" else claim.expected
    return verdict == wanted and (sides or claim.expected != "held")


def sampled(measure: Measure, run: Run) -> Samples:
    """The samples of one function; InputError unless there is a row for every seed."""
    samples = measure(run)
    if samples.values.shape[0] != len(run.seeds):
        raise InputError(f"{measure} gave samples for {samples.values.shape[0]} seeds, not for {len(run.seeds)}")
    return samples


def _judge(claim: Claim, samples: Samples) -> Estimate:
    return judge(samples, threshold=claim.threshold, direction=claim.direction, spread=claim.spread)


def _side(sentence: str, found: Estimate) -> Side:
    return Side(sentence=sentence, **asdict(found))


def _lines(own: Samples, ideal: Samples, foil: Samples) -> dict[str, Line]:
    """Every named curve as its mean over seeds between the least and the largest; the claim's own come first."""
    curves: dict[str, Curve] = {}
    for samples in (own, ideal, foil):
        for name, curve in samples.curves.items():
            curves.setdefault(name, curve)
    return {
        name: {
            "x": [float(x) for x in curve.x],
            "y": curve.y.double().mean(0).tolist(),
            "low": curve.y.double().amin(0).tolist(),
            "high": curve.y.double().amax(0).tolist(),
        }
        for name, curve in curves.items()
    }


def total_seconds(results: Iterable[Result]) -> float:
    """What several claims take together, models that they share counted once."""
    models: dict[str, float] = {}
    own = 0.0
    for result in results:
        own += result.seconds - sum(result.models.values())
        models |= result.models
    return round(own + sum(models.values()), 3)


def document(paper: Paper, results: list[Result]) -> dict[str, Any]:
    """A paper's results as `--json` prints them and results/KEY.json holds them."""
    return {
        "paper": paper.key,
        "title": paper.title,
        "authors": paper.authors,
        "year": paper.year,
        "arxiv": paper.arxiv,
        "left_out": dict(paper.left_out),
        "seconds": total_seconds(results),
        "claims": [result.to_json() for result in results],
    }
