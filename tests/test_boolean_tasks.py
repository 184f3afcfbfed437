"""Boolean families beyond conjunctions, and the posterior over concepts: worked out by hand."""

import math

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.classical.nearest_neighbour import NearestNeighbour
from contexture.learners.oracles.concept_posterior import ConceptPosterior, Conjunctions, Thresholds
from contexture.learners.oracles.version_space import VersionSpace
from contexture.protocols import Pairs, Schema
from contexture.randomness import generator
from contexture.tasks.cnf import CNF
from contexture.tasks.conjunction import Conjunction
from contexture.tasks.disjunction import Disjunction
from contexture.tasks.dnf import DNF
from contexture.tasks.integer_halfspace import IntegerHalfspace, share_of_positive_sums
from contexture.tasks.neighbour_labels import NeighbourLabels
from contexture.tasks.taught_conjunction import TaughtConjunction, teach
from contexture.tasks.zero_one_threshold import ZeroOneThreshold

FP64 = torch.float64


def test_formulas_in_normal_form_are_their_formulas() -> None:
    drawn = DNF(num_features=7).sample(40, generator=generator("dnf"))
    for x, y, terms in zip(drawn.x.tolist(), drawn.y.tolist(), drawn.latents["terms"].tolist(), strict=True):
        for row, label in zip(x, y, strict=True):
            said = any(all(v == t for v, t in zip(row, term, strict=True) if t) for term in terms)
            assert label == int(said)
    drawn = CNF(num_features=7).sample(40, generator=generator("cnf"))
    for x, y, clauses in zip(drawn.x.tolist(), drawn.y.tolist(), drawn.latents["clauses"].tolist(), strict=True):
        for row, label in zip(x, y, strict=True):
            said = all(any(v == t for v, t in zip(row, clause, strict=True) if t) for clause in clauses)
            assert label == int(said)


def test_a_third_of_the_inputs_is_rewritten_and_duals_mirror_each_other() -> None:
    assert float(DNF().sample(2000, generator=generator("share")).y.double().mean()) == pytest.approx(0.4468, abs=0.02)
    assert float(CNF().sample(2000, generator=generator("share")).y.double().mean()) == pytest.approx(0.5532, abs=0.02)
    assert DNF().chance == CNF().chance == pytest.approx(0.4468, abs=1e-4)


def test_halfspaces_and_thresholds_are_their_sums() -> None:
    drawn = IntegerHalfspace(num_features=5).sample(50, generator=generator("half"))
    weights = drawn.latents["weights"]
    assert weights.unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert torch.equal(drawn.y, ((drawn.x * weights.unsqueeze(1)).sum(-1) > 0).long())
    drawn = ZeroOneThreshold(num_features=5).sample(200, generator=generator("threshold"))
    sums = (drawn.x * drawn.latents["weights"].unsqueeze(1)).sum(-1) + drawn.latents["offset"].unsqueeze(1)
    assert torch.equal(drawn.y, (sums > 0).long())
    assert drawn.latents["offset"].unique().tolist() == [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]


def test_the_share_of_positive_sums_by_hand() -> None:
    """Two weights of seven values: 7 of the 49 pairs sum to zero."""
    assert share_of_positive_sums(2) == pytest.approx((1 - 7 / 49) / 2)


def test_neighbours_hand_their_labels_on() -> None:
    drawn = NeighbourLabels(num_features=2, num_points=12, num_seeds=5).sample(30, generator=generator("neighbours"))
    assert torch.equal(drawn.y[:, :5], drawn.latents["seeds"])
    said = NearestNeighbour().prequential(drawn).probabilities
    assert said is not None
    assert torch.equal(said.argmax(-1)[:, 5:], drawn.y[:, 5:])
    with pytest.raises(InputError, match="9 random labels do not fit into 5"):
        NeighbourLabels(num_points=5, num_seeds=9)


def test_a_teaching_sequence_by_hand() -> None:
    first, concept = torch.tensor([[1.0, -1, 1, -1]]), torch.tensor([[1.0, 0, 1, 0]])
    assert teach(first, concept)[0, :4].tolist() == [[1, -1, 1, -1], [1, 1, 1, 1], [-1, -1, 1, -1], [1, -1, -1, -1]]


def test_a_taught_conjunction_is_the_only_one_left() -> None:
    """However few its examples, every concept but the true one contradicts them."""
    task = TaughtConjunction(num_features=5, num_points=12)
    drawn = task.sample(60, generator=generator("taught"))
    size = drawn.latents["literals"].abs().sum(1).long()
    assert torch.equal(drawn.latents["taught"], size + 2)
    for b in range(60):
        shown = drawn.x[b : b + 1, : 2 + int(size[b])]
        agree = (Conjunctions().values(shown) == (drawn.y[b, : shown.shape[1]] == 1).unsqueeze(-1)).all(1)
        assert int(agree.sum()) == 1
        assert drawn.y[b, : shown.shape[1]].tolist() == [1, 1] + [0] * int(size[b])
    half = TaughtConjunction(num_features=5, num_points=12, taught_share=0.5)
    taught = half.sample(1000, generator=generator("half taught")).latents["taught"] > 0
    assert float(taught.double().mean()) == pytest.approx(0.5, abs=0.06)


def test_the_posterior_weighs_prior_inputs_and_labels_by_hand() -> None:
    """Over one variable: x, not x, true, with .15, .15, .7; x = 1 is 1.3 times as likely under x, .7 under not x."""
    pairs = Pairs(x=torch.tensor([[[1.0], [1.0]]], dtype=FP64), y=torch.tensor([[1, 1]]), schema=Schema.classes(1, 2))
    said = ConceptPosterior().prequential(pairs).probabilities
    assert said is not None
    yes, no, always = 0.15 * 1.3, 0.15 * 0.7, 0.7
    assert float(said[0, 0, 1]) == pytest.approx((yes + always) / (yes + no + always))
    assert float(said[0, 1, 1]) == pytest.approx(1)
    other = ConceptPosterior().predict(pairs, torch.tensor([[[-1.0]]], dtype=FP64)).probabilities
    assert other is not None
    seen = (0.15 * 1.3**2, 0.7)
    assert float(other[0, 0, 1]) == pytest.approx(seen[1] / (seen[0] * 0.7 + seen[1]))


def test_without_hints_and_prior_it_is_the_version_space() -> None:
    drawn = ZeroOneThreshold(num_features=3, num_points=10).sample(20, generator=generator("vote"))
    flat = Thresholds(present=2 / 3)
    assert float(flat.log_prior(3).std()) == pytest.approx(0, abs=1e-12)
    ours, votes = (
        one.prequential(drawn).probabilities for one in (ConceptPosterior(concepts=flat), VersionSpace(concepts=flat))
    )
    assert ours is not None
    assert votes is not None
    torch.testing.assert_close(ours, votes)


def test_the_oracle_of_disjunctions_mirrors_that_of_conjunctions() -> None:
    drawn = Conjunction(num_features=3, num_points=9).sample(20, generator=generator("mirror"))
    mirrored = Pairs(x=-drawn.x, y=1 - drawn.y, schema=drawn.schema)
    ours = Conjunction(num_features=3).oracle().prequential(drawn).probabilities
    theirs = Disjunction(num_features=3).oracle().prequential(mirrored).probabilities
    torch.testing.assert_close(theirs.flip(-1), ours)
    assert Conjunction().oracle() is None
    assert ZeroOneThreshold().oracle() is None
    with pytest.raises(InputError, match=f"28 features have {3**28}"):
        ConceptPosterior().prequential(Conjunction().sample(1, generator=generator("many")))


def test_forced_inputs_are_as_likely_as_the_task_draws_them() -> None:
    """p(x | c) sums to one over all x, for every concept."""
    x = torch.tensor([[[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)]], dtype=FP64)
    total = Conjunctions().log_inputs(x).exp().sum(1) / 4
    assert total[0].tolist() == pytest.approx([1.0] * 9)
    assert math.exp(float(Conjunctions().log_prior(1)[1])) == pytest.approx(0.7)
