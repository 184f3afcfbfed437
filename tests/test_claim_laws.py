"""The laws of claims over every paper, and planted mutants that each law must refuse."""

import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contexture.claims import judge as judging
from contexture.claims.judge import Estimate, conclude, judge, side
from contexture.claims.models import ModelCache
from contexture.claims.protocol import OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.discovery import paper_of, papers
from contexture.evaluation.intervals import bootstrap
from contexture.randomness import generator
from contexture.testing import LawError, check_conclusion, check_judge, check_paper


def test_the_judge_keeps_its_laws() -> None:
    check_judge()
    check_conclusion()


@pytest.mark.parametrize("key", papers())
def test_every_paper_keeps_the_laws(key: str, tmp_path: Path) -> None:
    check_paper(papers()[key], run=Run(models=ModelCache(tmp_path)))


def always_held(samples: Samples, *, threshold: float, direction: str, spread: str = "episodes") -> Estimate:
    return replace(judge(samples, threshold=threshold, direction=direction, spread=spread), verdict="held")


def by_the_value(samples: Samples, *, threshold: float, direction: str, spread: str = "episodes") -> Estimate:
    found = judge(samples, threshold=threshold, direction=direction, spread=spread)
    return replace(found, verdict=side(found.value, found.value, threshold=threshold, direction=direction))


def deaf_to_direction(samples: Samples, *, threshold: float, direction: str, spread: str = "episodes") -> Estimate:
    return judge(samples, threshold=threshold, direction="below", spread=spread)


def pooling(samples: Samples, *, threshold: float, direction: str, spread: str = "episodes") -> Estimate:
    """Episodes of all seeds as if they were independent."""
    if spread == "seeds" or samples.per is not None:
        return judge(samples, threshold=threshold, direction=direction, spread=spread)
    found = bootstrap(samples.values.reshape(1, -1), generator=generator("pooled"))
    low, high = float(found.low), float(found.high)
    verdict = side(low, high, threshold=threshold, direction=direction)
    return Estimate(value=float(found.value), low=low, high=high, verdict=verdict)


def one_seed_only(samples: Samples, *, threshold: float, direction: str, spread: str = "episodes") -> Estimate:
    return judge(Samples(values=samples.values[1:2], per=None), threshold=threshold, direction=direction)


def always_bootstrapping(samples: Samples, *, threshold: float, direction: str, spread: str = "episodes") -> Estimate:
    return judge(samples, threshold=threshold, direction=direction)


def averaging_ratios(samples: Samples, *, threshold: float, direction: str, spread: str = "episodes") -> Estimate:
    ratios = samples.values if samples.per is None else samples.values / samples.per
    return judge(Samples(values=ratios), threshold=threshold, direction=direction, spread=spread)


@pytest.mark.parametrize(
    ("mutant", "law"),
    [
        (always_held, "sides"),
        (by_the_value, "straddling"),
        (deaf_to_direction, "sides"),
        (pooling, "seeds"),
        (one_seed_only, "seeds"),
        (always_bootstrapping, "few seeds"),
        (averaging_ratios, "ratios"),
    ],
)
def test_a_wrong_judge_is_refused(mutant: Callable[..., Estimate], law: str) -> None:
    with pytest.raises(LawError) as caught:
        check_judge(mutant)
    assert caught.value.law == law


def ignoring_controls(own: Estimate, control: Estimate, *, needs_competence: bool, mechanism: bool = False) -> tuple:
    verdict = "mechanism-checked" if mechanism and own.verdict == "held" else own.verdict
    return verdict, ""


def lenient(own: Estimate, control: Estimate, *, needs_competence: bool, mechanism: bool = False) -> tuple:
    """Takes a control that straddles the threshold for one that fails."""
    foil = replace(control, verdict="not-held") if control.verdict == "undecided" else control
    return conclude(own, foil, needs_competence=needs_competence, mechanism=mechanism)


def without_competence(own: Estimate, control: Estimate, *, needs_competence: bool, mechanism: bool = False) -> tuple:
    return conclude(own, control, needs_competence=False, mechanism=mechanism)


def trusting_the_silent(own: Estimate, control: Estimate, *, needs_competence: bool, mechanism: bool = False) -> tuple:
    """Takes a control that does not say how good it is for a competent one."""
    foil = replace(control, competent=True) if control.competent is None else control
    return conclude(own, foil, needs_competence=needs_competence, mechanism=mechanism)


@pytest.mark.parametrize("mutant", [ignoring_controls, lenient, without_competence, trusting_the_silent])
def test_a_conclusion_that_forgives_its_control_is_refused(mutant: Callable[..., tuple]) -> None:
    with pytest.raises(LawError, match="controls"):
        check_conclusion(mutant)


def draws(run: Run, centre: float) -> Samples:
    def one(seed: int) -> OneSeed:
        values = centre + 0.1 * torch.rand(20, generator=run.generator(seed, "toy"))
        return OneSeed(values=values, errors=values, zero_errors=values + 1)

    return over_seeds(run, one)


def honest() -> types.ModuleType:
    """A module as a paper's file would be, all in order; each mutant spoils one thing."""
    module = types.ModuleType("toy")
    module.PAPER = Paper(key="toy", title="A toy of a paper", authors="Nobody", year=2024, uses=("ols",))

    @claim("uniform draws stay small", threshold=0.5, direction="below", why="they end at 0.1 by construction")
    def small(run: Run) -> Samples:
        return draws(run, 0.0)

    @small.reference("the same draws, halved in size")
    def half(run: Run) -> Samples:
        return draws(run, 0.0)

    @small.control("draws moved up by one")
    def moved(run: Run) -> Samples:
        return draws(run, 1.0)

    module.small = small
    return module


def test_an_honest_paper_passes() -> None:
    check_paper(paper_of(honest()))


def control_is_the_claim(module: types.ModuleType) -> None:
    module.small.foil = replace(module.small.foil, measure=module.small.measure)


def seeds_are_ignored(module: types.ModuleType) -> None:
    fixed = torch.rand(20, generator=torch.Generator().manual_seed(0))
    module.small.measure = lambda run: Samples(values=0.1 * fixed.expand(len(run.seeds), -1))


def global_generator(module: types.ModuleType) -> None:
    module.small.measure = lambda run: Samples(values=0.1 * torch.rand(len(run.seeds), 20))


def fewer_seeds(module: types.ModuleType) -> None:
    whole = module.small.measure
    module.small.measure = lambda run: Samples(values=whole(run).values[:2])


def control_holds(module: types.ModuleType) -> None:
    module.small.foil = replace(module.small.foil, measure=lambda run: draws(run, 0.2))


def claim_fails(module: types.ModuleType) -> None:
    module.small.measure = lambda run: draws(run, 0.45)


def reference_fails(module: types.ModuleType) -> None:
    module.small.ideal = replace(module.small.ideal, measure=lambda run: draws(run, 2.0))


def incompetent_control(module: types.ModuleType) -> None:
    def worse(run: Run) -> Samples:
        found = draws(run, 1.0)
        return Samples(values=found.values, errors=found.values, zero_errors=found.values)

    module.small.foil = replace(module.small.foil, measure=worse)


@pytest.mark.parametrize(
    "spoil",
    [
        control_is_the_claim,
        seeds_are_ignored,
        global_generator,
        fewer_seeds,
        control_holds,
        claim_fails,
        reference_fails,
        incompetent_control,
    ],
)
def test_a_dishonest_claim_is_refused(spoil: Callable[[types.ModuleType], None]) -> None:
    module = honest()
    spoil(module)
    with pytest.raises(LawError, match="law of claims"):
        check_paper(paper_of(module))


@pytest.mark.parametrize(
    "changes",
    [
        {"left_out": {"a result": "needs a model of 175 billion parameters"}},
        {"left_out": {"a result": ""}},
        {"uses": ("a-learner-that-is-not-there",)},
    ],
)
def test_a_careless_paper_is_refused(changes: dict) -> None:
    with pytest.raises(LawError, match="law of papers"):
        check_paper(replace(paper_of(honest()), **changes))


def test_a_trained_claim_at_smoke_goes_by_reference_and_control() -> None:
    module = honest()
    module.small.kind = "trained"
    module.small.measure = lambda run: draws(run, 5.0)
    check_paper(paper_of(module))
    control_holds(module)
    with pytest.raises(LawError, match="claims"):
        check_paper(paper_of(module))


def test_the_judge_under_test_is_the_one_in_use() -> None:
    assert judging.judge is judge
    assert judging.conclude is conclude
