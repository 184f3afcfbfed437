"""Every learner keeps the laws of its kind, and each law catches three planted faults, one of them subtle."""

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import contexture
from contexture.discovery import registered
from contexture.learners.classical.knn import KNearestNeighbours
from contexture.learners.classical.logistic import Logistic
from contexture.learners.classical.majority import Majority
from contexture.learners.classical.naive_bayes import NaiveBayes
from contexture.learners.classical.ols import OLS
from contexture.learners.classical.ridge import Ridge
from contexture.learners.recall import InductionHead
from contexture.learners.standardized import Standardized
from contexture.protocols import LearnerCard, Pairs, Prediction
from contexture.testing import LawError, check_learner
from contexture.testing.learners import ALWAYS, CLAIMED
from contexture.testing.sequence_learners import LAWS as SEQUENCE_LAWS

LEARNERS = registered("learners")


def instance(name):
    cls = LEARNERS[name]
    return cls.example() if hasattr(cls, "example") else cls()


@pytest.mark.parametrize("name", LEARNERS)
def test_laws(name):
    check_learner(instance(name))


@pytest.mark.parametrize(
    "learner", [OLS(), KNearestNeighbours(k=2), Logistic(), Ridge()], ids=lambda one: one.card.name
)
def test_laws_of_standardized(learner):
    check_learner(Standardized(learner))


def test_every_card_in_the_files_is_registered():
    found = set()
    for path in (Path(contexture.__file__).parent / "learners").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(
                isinstance(call, ast.Call) and getattr(call.func, "id", "") == "LearnerCard"
                for line in node.body
                if isinstance(line, ast.Assign | ast.AnnAssign)
                for call in [line.value]
            ):
                found.add(node.name)
    assert found == {cls.__name__ for cls in LEARNERS.values()}
    assert {"OLS", "BayesRidge", "KNearestNeighbours", "RandomForest", "OnlineLogistic"} <= found


CARD = LearnerCard(name="toy", summary="A toy.", kind="classical", targets=frozenset({"regression"}))


class Toy:
    """Ridge regression, to be spoilt."""

    card = CARD
    inner = Ridge(penalty=0.5)

    def predict(self, context, queries):
        return self.inner.predict(context, queries)

    def prequential(self, episodes):
        return self.inner.prequential(episodes)


class Looped(Toy):
    """`prequential` is `predict` on every prefix, so that only what a mutant does to `predict` breaks."""

    def prequential(self, episodes):
        said = [self.predict(episodes.prefix(t), episodes.x[:, t : t + 1]) for t in range(episodes.time)]
        parts = {
            name: [getattr(one, name) for one in said] for name in ("mean", "variance", "probabilities", "quantiles")
        }
        joined = {name: torch.cat(values, 1) for name, values in parts.items() if values[0] is not None}
        return Prediction(levels=said[0].levels, **joined)


class Classes(Looped):
    """Logistic regression, to be spoilt."""

    card = dataclasses.replace(CARD, targets=frozenset({"classification"}))
    inner = Logistic()


def claiming(law, of=CARD):
    return (
        dataclasses.replace(of, tables=True)
        if law == "tables"
        else dataclasses.replace(of, invariances=frozenset({law}))
    )


def test_the_toys_are_sound():
    for toy in (Toy(), Looped(), Classes()):
        check_learner(toy)


class OneTooManyAtTheEnd(Toy):
    def prequential(self, episodes):
        mean = super().prequential(episodes).mean.clone()
        mean[:, -1] = super().predict(episodes, episodes.x[:, -1:]).mean[:, 0]
        return Prediction(mean=mean)


class CentredOverAll(Toy):
    def prequential(self, episodes):
        centre = episodes.y.mean(1, keepdim=True)
        said = super().prequential(dataclasses.replace(episodes, y=episodes.y - centre))
        return Prediction(mean=said.mean + centre)


class LeavesATraceOfTheTarget(Toy):
    """A running sum less its last term is exact on paper, but carries that term's rounding."""

    def predict(self, context, queries):
        total = context.y.sum(1, keepdim=True) / max(1, context.time)
        return Prediction(mean=total.expand(-1, queries.shape[1]))

    def prequential(self, episodes):
        counts = torch.arange(episodes.time).clamp_min(1)
        return Prediction(mean=(episodes.y.cumsum(1) - episodes.y) / counts)


class StandardisesQueries(Looped):
    def predict(self, context, queries):
        return super().predict(context, queries - queries.mean(1, keepdim=True))


class ScalesByTheFarthestQuery(Looped):
    def predict(self, context, queries):
        said = super().predict(context, queries)
        return Prediction(
            mean=said.mean, variance=1 + queries.square().sum(-1).amax(1, keepdim=True).expand_as(said.mean)
        )


class RanksQueries(Looped):
    def predict(self, context, queries):
        mean = super().predict(context, queries).mean
        return Prediction(mean=mean + 1e-6 * mean.argsort(1).argsort(1))


class SharesWeights(Looped):
    def predict(self, context, queries):
        mean = super().predict(context, queries).mean
        return Prediction(mean=mean + 0.01 * context.y.mean())


class ScalesByTheBatch(Looped):
    def predict(self, context, queries):
        size = context.x.abs().max().item() if context.time else 1.0
        return super().predict(dataclasses.replace(context, x=context.x / size), queries / size)


class DependsOnTheSeat(Looped):
    def predict(self, context, queries):
        mean = super().predict(context, queries).mean
        return Prediction(mean=mean + 1e-7 * torch.arange(len(mean))[:, None])


class DividesByNothing(Looped):
    def predict(self, context, queries):
        mean = super().predict(context, queries).mean
        return Prediction(mean=mean + 0 * context.y.mean(1, keepdim=True))


class NeedsAnExample(Looped):
    def predict(self, context, queries):
        context.y[:, -1]
        return super().predict(context, queries)


class OneAnswerForAllQueries(Looped):
    def predict(self, context, queries):
        if context.time == 0:
            return Prediction(mean=context.x.new_zeros(len(context.x), 1))
        return super().predict(context, queries)


class SumsToMore(Classes):
    def predict(self, context, queries):
        return Prediction(probabilities=super().predict(context, queries).probabilities * (1 + 1e-6))


class CertainOfARepeatedRow(Looped):
    def predict(self, context, queries):
        seen = (queries[:, :, None] == context.x[:, None]).all(-1).any(-1)
        return Prediction(mean=super().predict(context, queries).mean, variance=(~seen).double())


class QuantilesCross(Looped):
    def predict(self, context, queries):
        mean = super().predict(context, queries).mean
        return Prediction(mean=mean, levels=(0.1, 0.9), quantiles=torch.stack([mean, mean * 1.01], -1))


class Jitters(Looped):
    def predict(self, context, queries):
        mean = super().predict(context, queries).mean
        return Prediction(mean=mean + 1e-15 * torch.randn(mean.shape, dtype=mean.dtype))


class Tires(Looped):
    def __init__(self):
        self.calls = 0

    def predict(self, context, queries):
        self.calls += 1
        mean = super().predict(context, queries).mean
        return Prediction(mean=mean + 1e-14 * self.calls)


class ShufflesByNumpy(Looped):
    def predict(self, context, queries):
        order = torch.from_numpy(np.random.permutation(context.time))  # noqa: NPY002
        return super().predict(dataclasses.replace(context, x=context.x[:, order], y=context.y[:, order]), queries)


class CentresInPlace(Looped):
    def predict(self, context, queries):
        if context.time:
            context.x.sub_(context.x.mean(1, keepdim=True))
        return super().predict(context, queries)


class ClampsQueries(Looped):
    def predict(self, context, queries):
        return super().predict(context, queries.clamp_(-1.5, 1.5))


class SpoilsTheLastTarget(Toy):
    def prequential(self, episodes):
        said = super().prequential(episodes)
        episodes.y[:, -1] = 0
        return said


class PrefersRecentExamples(Looped):
    card = claiming("example-order")

    def predict(self, context, queries):
        weight = 0.9999 ** torch.arange(context.time).flip(0)
        return super().predict(
            dataclasses.replace(context, x=context.x * weight[:, None], y=context.y * weight), queries
        )


class FirstOfTheNearest(Looped):
    card = claiming("example-order")

    def predict(self, context, queries):
        if context.time == 0:
            return super().predict(context, queries)
        return Prediction(mean=context.y.gather(1, torch.cdist(queries, context.x).argmin(-1)))


class StartsFromTheFirst(Looped):
    card = claiming("example-order")

    def predict(self, context, queries):
        start = context.y[:, :1] if context.time else 0
        return Prediction(mean=super().predict(context, queries).mean + 1e-8 * start)


class SuspectsLaterColumns(Looped):
    card = claiming("column-order")

    def predict(self, context, queries):
        weight = 1 / (1 + 0.001 * torch.arange(queries.shape[2]))
        return super().predict(dataclasses.replace(context, x=context.x * weight), queries * weight)


class OneSweep(Looped):
    card = claiming("column-order")

    def predict(self, context, queries):
        weights = torch.zeros(context.batch, queries.shape[2], dtype=torch.float64)
        for j in range(queries.shape[2]):
            column = context.x[..., j]
            rest = context.y - (context.x @ weights[..., None])[..., 0]
            weights[:, j] = (column * rest).sum(1) / (1 + column.square().sum(1))
        return Prediction(mean=(queries @ weights[..., None])[..., 0])


class TrustsTheFirstColumn(Looped):
    card = claiming("column-order")

    def predict(self, context, queries):
        return Prediction(mean=super().predict(context, queries).mean + 1e-8 * queries[..., 0])


class PrefersClassZero(Classes):
    card = claiming("label-names", Classes.card)

    def predict(self, context, queries):
        chances = super().predict(context, queries).probabilities.clone()
        chances[..., 0] += 1e-8
        return Prediction(probabilities=chances / chances.sum(-1, keepdim=True))


class ReadsCodesAsNumbers(Classes):
    card = claiming("label-names", Classes.card)

    def predict(self, context, queries):
        mean = context.y.double().mean(1, keepdim=True) if context.time else context.x.new_ones(context.batch, 1)
        apart = (mean[..., None] - torch.arange(context.schema.num_classes)).square()
        return Prediction(probabilities=(-apart).softmax(-1).expand(-1, queries.shape[1], -1))


class SortsNames(Classes):
    card = claiming("label-names", Classes.card)
    inner = Majority()

    def predict(self, context, queries):
        names = context.schema.target.categories
        bonus = torch.tensor([0.1 * sorted(names).index(name) for name in names])
        chances = super().predict(context, queries).probabilities + bonus
        return Prediction(probabilities=chances / chances.sum(-1, keepdim=True))


class TableToy(Classes):
    card = claiming("tables", Classes.card)
    inner = NaiveBayes()


class LetsGapsThrough(TableToy):
    def predict(self, context, queries):
        chances = super().predict(context, queries).probabilities
        return Prediction(probabilities=chances + 0 * queries.sum(-1, keepdim=True))


class KnowsFourCategoriesOnly(TableToy):
    def predict(self, context, queries):
        seen = set(context.x[..., -1].flatten().tolist())
        if context.time and len(context.schema.features) == 4 and not set(queries[..., -1].flatten().tolist()) <= seen:
            raise KeyError("unseen")
        return super().predict(context, queries)


class ClampsCells(TableToy):
    def predict(self, context, queries):
        x = context.x.clamp(-1e5, 1e5)
        return super().predict(dataclasses.replace(context, x=x), queries.clamp(-1e5, 1e5))


class TakesAnything(Toy):
    def predict(self, context, queries):
        numbers = Pairs(x=context.x, y=context.y.double(), schema=type(context.schema).numeric(context.x.shape[2]))
        return super().predict(numbers, queries)


class Misnamed(Toy):
    card = dataclasses.replace(CARD, name="My Toy")


class WaivesALawThatIsNone(Toy):
    card = dataclasses.replace(CARD, waivers={"ordre": "A reason."})


MUTANTS = {
    "order": (OneTooManyAtTheEnd, CentredOverAll, LeavesATraceOfTheTarget),
    "queries": (StandardisesQueries, ScalesByTheFarthestQuery, RanksQueries),
    "episodes": (SharesWeights, ScalesByTheBatch, DependsOnTheSeat),
    "empty context": (DividesByNothing, NeedsAnExample, OneAnswerForAllQueries),
    "distribution": (SumsToMore, CertainOfARepeatedRow, QuantilesCross),
    "seed": (Jitters, Tires, ShufflesByNumpy),
    "inputs": (CentresInPlace, ClampsQueries, SpoilsTheLastTarget),
    "example-order": (PrefersRecentExamples, FirstOfTheNearest, StartsFromTheFirst),
    "column-order": (SuspectsLaterColumns, OneSweep, TrustsTheFirstColumn),
    "label-names": (PrefersClassZero, ReadsCodesAsNumbers, SortsNames),
    "tables": (LetsGapsThrough, KnowsFourCategoriesOnly, ClampsCells),
    "card": (TakesAnything, Misnamed, WaivesALawThatIsNone),
}


def test_every_law_has_three_mutants():
    assert set(MUTANTS) == {"card", *ALWAYS, *CLAIMED}
    assert all(len(set(mutants)) == 3 for mutants in MUTANTS.values())


@pytest.mark.parametrize(("law", "mutant"), [(law, one) for law, mutants in MUTANTS.items() for one in mutants])
def test_mutant_is_refused(law, mutant):
    with pytest.raises(LawError, match=f"^law of {law}: ") as caught:
        check_learner(mutant(), laws=(law,))
    assert caught.value.law == law


def test_position_of_the_first_break():
    with pytest.raises(LawError) as caught:
        check_learner(OneTooManyAtTheEnd(), laws=("order",))
    assert caught.value.position == (0, 9)


def test_a_needed_waiver_lets_a_law_be_broken():
    class Waived(PrefersRecentExamples):
        card = dataclasses.replace(PrefersRecentExamples.card, waivers={"example-order": "Recent ones count more."})

    check_learner(Waived())


@pytest.mark.parametrize("law", ["order", "seed"])
def test_a_waiver_that_is_not_needed_is_refused(law):
    class Waived(Toy):
        card = dataclasses.replace(CARD, waivers={law: "No reason at all."})

    with pytest.raises(LawError, match=f"^law of {law}: .*waive"):
        check_learner(Waived())


def test_only_the_asked_targets_are_tried():
    class Both(Toy):
        card = dataclasses.replace(CARD, targets=frozenset({"regression", "classification"}))

    check_learner(Both(), targets=["regression"])
    with pytest.raises(LawError):
        check_learner(Both())


class TokenToy(InductionHead):
    """An induction head, to be spoilt."""


class LooksAhead(TokenToy):
    def logits(self, tokens, segments=None):
        return super().logits(tokens, segments) + 1e-3 * (tokens == tokens[:, -1:])[..., None]


class CountsAll(TokenToy):
    def logits(self, tokens, segments=None):
        shares = torch.nn.functional.one_hot(tokens, 16).float().mean(1, keepdim=True)
        return super().logits(tokens, segments) + shares


class SeesTheNext(TokenToy):
    def logits(self, tokens, segments=None):
        logits = super().logits(tokens, segments).clone()
        logits[:, 10, 0] += tokens[:, 11] * 0.01
        return logits


class CountsTheBatch(TokenToy):
    def logits(self, tokens, segments=None):
        return super().logits(tokens, segments) + 1e-2 * (tokens[:1] == tokens)[..., None]


class FavoursTheFirstSeat(TokenToy):
    def logits(self, tokens, segments=None):
        logits = super().logits(tokens, segments).clone()
        logits[0, :, 0] += 1e-2
        return logits


class AveragesTheBatch(TokenToy):
    def logits(self, tokens, segments=None):
        logits = super().logits(tokens, segments)
        return logits + 1e-3 * logits.mean(0)


class IgnoresSegments(TokenToy):
    def logits(self, tokens, segments=None):
        return super().logits(tokens)


class SegmentsOneLate(TokenToy):
    def logits(self, tokens, segments=None):
        return super().logits(tokens, None if segments is None else segments.roll(1, 1))


class PositionsRunOn(TokenToy):
    def logits(self, tokens, segments=None):
        return super().logits(tokens, segments) + 1e-3 * torch.arange(tokens.shape[1])[:, None]


class TokenJitter(TokenToy):
    def logits(self, tokens, segments=None):
        logits = super().logits(tokens, segments)
        return logits + 1e-5 * torch.rand(logits.shape)


class TokenTires(TokenToy):
    def logits(self, tokens, segments=None):
        CALLS.append(1)
        return super().logits(tokens, segments) + 1e-3 * len(CALLS)


class TokenDropout(TokenToy):
    def logits(self, tokens, segments=None):
        return torch.nn.functional.dropout(super().logits(tokens, segments), 0.1)


class RewritesIds(TokenToy):
    def logits(self, tokens, segments=None):
        return super().logits(tokens.clamp_(max=6), segments)


class RewritesSegments(TokenToy):
    def logits(self, tokens, segments=None):
        return super().logits(tokens, None if segments is None else segments.add_(1))


class ForbidsATokenEntirely(TokenToy):
    def logits(self, tokens, segments=None):
        logits = super().logits(tokens, segments).clone()
        logits[..., 3] = -torch.inf
        return logits


CALLS = []
SEQUENCE_MUTANTS = {
    "order": (LooksAhead, CountsAll, SeesTheNext),
    "episodes": (CountsTheBatch, FavoursTheFirstSeat, AveragesTheBatch),
    "segments": (IgnoresSegments, SegmentsOneLate, PositionsRunOn),
    "seed": (TokenJitter, TokenTires, TokenDropout),
    "inputs": (RewritesIds, RewritesSegments, ForbidsATokenEntirely),
}


def test_every_sequence_law_has_three_mutants():
    assert set(SEQUENCE_MUTANTS) == set(SEQUENCE_LAWS)


@pytest.mark.parametrize(
    ("law", "mutant"), [(law, one) for law, several in SEQUENCE_MUTANTS.items() for one in several]
)
def test_sequence_mutant_is_refused(law, mutant):
    with pytest.raises(LawError, match=f"^law of {law}: "):
        check_learner(mutant(vocabulary=16), laws=(law,))
