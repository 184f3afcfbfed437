"""The laws of tasks over every registered one, and planted mutants of each law, which must be refused by its name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from contexture.discovery import registered
from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.learners.classical.evidence_ridge import EvidenceRidge
from contexture.learners.classical.ols import OLS
from contexture.learners.recall import InductionHead, Lookup
from contexture.protocols import Learner, Pairs, Prediction, SequenceLearner, TaskCard, Tokens
from contexture.randomness import generator as derived
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.logistic_regression import LogisticRegression
from contexture.tasks.mqar import MQAR
from contexture.testing.errors import LawError
from contexture.testing.tasks import LAWS, check_task, registered_rivals

SMALLER: dict[str, dict[str, Any]] = {
    "sparse-linear-regression": {"num_features": 8, "num_points": 16},
    "linear-regression-mixture": {"num_features": 8, "num_points": 25},
    "fourier-series": {"num_points": 25},
    "mqar": {"vocabulary": 512},
    "relu-network": {"num_points": 31},
    "parity": {"num_features": 6, "num_points": 20},
    "sparse-parity": {"num_features": 8, "num_points": 20},
    "conjunction": {"num_features": 5, "num_points": 16},
    "disjunction": {"num_features": 5, "num_points": 16},
    "zero-one-threshold": {"num_features": 4, "num_points": 16},
    "neighbour-labels": {"num_features": 4, "num_points": 16, "num_seeds": 8},
}
"""Settings for tasks whose oracle's or baselines' cost at the default size is out of a test's reach."""


@pytest.mark.parametrize("name", registered("tasks"))
def test_every_task_keeps_the_laws(name: str) -> None:
    check_task(registered("tasks")[name](**SMALLER.get(name, {})), num_episodes=128)


def test_the_rivals_include_the_closed_forms() -> None:
    assert {"ols", "ridge", "bayes-ridge", "knn", "mean", "averaging", "gd", "newton"} <= registered_rivals().keys()


def card(name: str = "mutant", **changes: Any) -> TaskCard:
    return replace(LinearRegression.card, name=name, **changes)


@dataclass(frozen=True, kw_only=True)
class Mutant(LinearRegression):
    """A small linear regression that keeps every law; mutants change one thing."""

    card: ClassVar[TaskCard] = card()
    num_features: int = 4
    num_points: int = 8

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        return LinearRegression.sample(self, batch, generator=generator)


@dataclass(frozen=True, kw_only=True)
class RecallMutant(MQAR):
    card: ClassVar[TaskCard] = replace(MQAR.card, name="mutant")
    vocabulary: int = 16
    length: int = 24

    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        return MQAR.sample(self, batch, generator=generator)


@pytest.mark.parametrize("task", [Mutant(), RecallMutant()])
def test_what_mutants_are_made_from_keeps_the_laws(task: Any) -> None:
    check_task(task, num_episodes=128)


class ExtraEpisode(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        return Mutant.sample(self, batch + 1, generator=generator)


class CodeOutOfRange(LogisticRegression):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = LogisticRegression.sample(self, batch, generator=generator)
        return replace(pairs, y=pairs.y + 1)


class LatentWithoutBatch(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        return replace(pairs, latents={"weights": pairs.latents["weights"].squeeze(0)})


class TargetOutsideVocabulary(RecallMutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Tokens:
        tokens = RecallMutant.sample(self, batch, generator=generator)
        return replace(tokens, targets=torch.where(tokens.mask, tokens.targets, -100))


class Entropy(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        return Mutant.sample(self, batch, generator=derived(int.from_bytes(os.urandom(4), "little")))


CALLS = count()


class CountsCalls(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        return replace(pairs, y=pairs.y + 1e-9 * next(CALLS))


class CountsCallsInLatents(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        return replace(pairs, latents={"weights": pairs.latents["weights"].roll(next(CALLS) % 2, 1)})


class GlobalNoise(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        assert pairs.clean is not None
        return replace(pairs, y=pairs.clean + self.noise * torch.randn(pairs.y.shape, dtype=torch.float64))


class NumpyNoise(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        assert pairs.clean is not None
        return replace(pairs, y=pairs.clean + self.noise * torch.from_numpy(np.random.randn(*pairs.y.shape)))  # noqa: NPY002


class SeedsGlobal(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        torch.manual_seed(0)
        return Mutant.sample(self, batch, generator=generator)


class IgnoresGenerator(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        return Mutant.sample(self, batch, generator=derived("always the same"))


class LeavesGeneratorBehind(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        return Mutant.sample(self, batch, generator=torch.Generator().set_state(generator.get_state()))


class RepeatsAnEpisode(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        return pairs.select(torch.arange(batch) % max(1, batch - 1))


class SharedWeights(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        shared = pairs.latents["weights"][:1]
        return replace(pairs, y=(pairs.x @ shared.mT.expand(batch, -1, 1)).squeeze(-1), clean=None, latents={})


class SharedScale(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        scale = 1 + torch.rand((), generator=generator, dtype=torch.float64)
        return replace(pairs, x=pairs.x * scale, y=pairs.y * scale, clean=None)


class OneSharedWeight(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        weights = pairs.latents["weights"].clone()
        weights[:, 0] = 2 * weights[0, 0]
        return replace(pairs, y=(pairs.x @ weights.unsqueeze(-1)).squeeze(-1), clean=None, latents={})


class ScaledByBatch(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        return replace(pairs, y=pairs.y * (batch / 256) ** 0.5)


class NoisyWhenLarge(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        return LinearRegression.sample(replace(self, noise=2.0) if batch > 300 else self, batch, generator=generator)


class LastColumnLostWhenLarge(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        return replace(pairs, x=pairs.x * torch.tensor([1, 1, 1, batch <= 300]))


class VarianceForDeviation(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        assert pairs.clean is not None
        return replace(pairs, y=pairs.clean + (pairs.y - pairs.clean) * self.noise)


class NoiseOneTooLarge(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        return LinearRegression.sample(replace(self, noise=self.noise + 1), batch, generator=generator)


class CleanTwoPercentSmall(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        assert pairs.clean is not None
        return replace(pairs, clean=0.98 * pairs.clean)


class OneNoiseForTwoPoints(Mutant):
    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        pairs = Mutant.sample(self, batch, generator=generator)
        assert pairs.clean is not None
        return replace(pairs, y=pairs.clean + (pairs.y - pairs.clean)[:, torch.arange(8) // 2])


class ChanceTooHigh(Mutant):
    @property
    def chance(self) -> float:
        return 1.05 * (4 + self.noise**2)


class ChanceTooLow(Mutant):
    @property
    def chance(self) -> float:
        return 0.95 * (4 + self.noise**2)


class ChanceWithoutNoise(Mutant):
    @property
    def chance(self) -> float:
        return 4.0


class ChanceInBits(LogisticRegression):
    @property
    def chance(self) -> float:
        return 1.0


class ChanceOverTheVocabulary(RecallMutant):
    @property
    def chance(self) -> float:
        return 1 - 1 / self.vocabulary


class OracleTooSure(Mutant):
    def oracle(self) -> Learner:
        return BayesRidge(noise_variance=self.noise**2 / 2)


class OracleTakesDeviationForVariance(Mutant):
    def oracle(self) -> Learner:
        return BayesRidge(noise_variance=self.noise)


@dataclass(frozen=True)
class FunctionAlone:
    """Bayesian ridge regression that states the function's variance, without the noise of an observation."""

    card = BayesRidge.card
    inner: BayesRidge

    def predict(self, context: Pairs, queries: torch.Tensor) -> Prediction:
        return self.inner.predict(context, queries)

    def prequential(self, episodes: Pairs) -> Prediction:
        said = self.inner.prequential(episodes)
        assert said.variance is not None
        return Prediction(mean=said.mean, variance=said.variance - self.inner.noise_variance)


class OracleForgetsTheNoise(Mutant):
    def oracle(self) -> Learner:
        return FunctionAlone(BayesRidge(noise_variance=self.noise**2))


class OracleTrustsTheNoise(Mutant):
    def oracle(self) -> Learner:
        return OLS()


class OracleWithTheWrongNoise(Mutant):
    def oracle(self) -> Learner:
        return BayesRidge(noise_variance=4 * self.noise**2)


class OracleWithTheWrongPrior(Mutant):
    def oracle(self) -> Learner:
        return BayesRidge(noise_variance=self.noise**2, prior_variance=0.75)


class OracleMisledByFiller(RecallMutant):
    def oracle(self) -> SequenceLearner:
        return InductionHead(vocabulary=self.vocabulary)

    def baselines(self) -> Mapping[str, SequenceLearner]:
        return {"lookup": Lookup(vocabulary=self.vocabulary)}


MUTANTS: dict[str, tuple[type[Any], ...]] = {
    "episodes": (ExtraEpisode, CodeOutOfRange, LatentWithoutBatch, TargetOutsideVocabulary),
    "same state": (Entropy, CountsCalls, CountsCallsInLatents),
    "own generator": (GlobalNoise, NumpyNoise, SeedsGlobal),
    "fresh draws": (IgnoresGenerator, LeavesGeneratorBehind, RepeatsAnEpisode),
    "independence": (SharedWeights, SharedScale, OneSharedWeight),
    "batch size": (ScaledByBatch, NoisyWhenLarge, LastColumnLostWhenLarge),
    "noise": (VarianceForDeviation, NoiseOneTooLarge, CleanTwoPercentSmall, OneNoiseForTwoPoints),
    "chance": (ChanceTooHigh, ChanceTooLow, ChanceWithoutNoise, ChanceInBits, ChanceOverTheVocabulary),
    "calibration": (OracleTooSure, OracleTakesDeviationForVariance, OracleForgetsTheNoise),
    "oracle": (OracleTrustsTheNoise, OracleWithTheWrongNoise, OracleWithTheWrongPrior, OracleMisledByFiller),
}


@pytest.mark.parametrize(("law", "mutant"), [(law, mutant) for law, found in MUTANTS.items() for mutant in found])
def test_a_mutant_is_refused_by_the_laws_name(law: str, mutant: type[Any]) -> None:
    with pytest.raises(LawError, match=f"law of {law}: ") as caught:
        check_task(
            mutant, rivals={"bayes-ridge": BayesRidge(), "ridge": EvidenceRidge()}, num_episodes=4096, laws=(law,)
        )
    assert caught.value.law == law


def test_every_law_has_three_mutants() -> None:
    assert MUTANTS.keys() == LAWS.keys()
    assert min(len(set(found)) for found in MUTANTS.values()) >= 3


class WaivedInVain(Mutant):
    card: ClassVar[TaskCard] = card(waivers={"chance": "nobody knows it"})


class WaivedRightly(ChanceTooHigh):
    card: ClassVar[TaskCard] = card(waivers={"chance": "stated 5 % too high on purpose"})


def test_a_waiver_has_to_be_needed() -> None:
    check_task(WaivedRightly, laws=("chance",))
    with pytest.raises(LawError, match="waived but holds"):
        check_task(WaivedInVain, laws=("chance",))


def test_the_first_difference_is_named() -> None:
    class Late(Mutant):
        def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
            pairs = Mutant.sample(self, batch, generator=generator)
            y = pairs.y.clone()
            y[2, 5] += next(CALLS)
            return replace(pairs, y=y)

    with pytest.raises(LawError) as caught:
        check_task(Late, laws=("same state",))
    assert caught.value.position == (2, 5)
