"""Families that are not linear in x, classes, mixtures and the shuffled control."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.oracles.features import FourierFeatures, Squares
from contexture.learners.oracles.version_space import Parities, VersionSpace
from contexture.protocols import Pairs, Schema
from contexture.randomness import generator
from contexture.tasks.boolean import share_of_forced_label, share_of_majorities
from contexture.tasks.conjunction import Conjunction
from contexture.tasks.decision_tree import DecisionTree, descend
from contexture.tasks.disjunction import Disjunction
from contexture.tasks.fourier_series import FourierSeries
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.logistic_regression import LogisticRegression
from contexture.tasks.majority_of_subset import MajorityOfSubset
from contexture.tasks.mixture import Mixture
from contexture.tasks.mqar import MQAR
from contexture.tasks.parity import Parity
from contexture.tasks.quadratic_regression import QuadraticRegression
from contexture.tasks.relu_network import ReluNetwork
from contexture.tasks.shuffled_labels import ShuffledClasses, ShuffledLabels
from contexture.tasks.sine import Sine
from contexture.tasks.skewed_linear_regression import SkewedLinearRegression
from contexture.tasks.sparse_linear_regression import SparseLinearRegression
from contexture.tasks.sparse_parity import SparseParity

FP64 = torch.float64


def test_a_relu_network_is_its_formula() -> None:
    drawn = ReluNetwork(num_features=3, num_points=4, num_hidden=5).sample(2, generator=generator("relu"))
    inner, outer = drawn.latents["inner"], drawn.latents["outer"]
    for b in range(2):
        for t in range(4):
            hidden = [max(0.0, float(inner[b, :, j] @ drawn.x[b, t])) for j in range(5)]
            expected = math.sqrt(2 / 5) * sum(v * h for v, h in zip(outer[b].tolist(), hidden, strict=True))
            assert float(drawn.y[b, t]) == pytest.approx(expected)


def test_a_tree_of_depth_two_is_followed_by_hand() -> None:
    x = torch.tensor([[[-1.0, -1, 9], [-1, 1, 9], [1, 9, -1], [1, 9, 1]]])
    values = descend(x, torch.tensor([[0, 1, 2]]), torch.tensor([[10.0, 20.0, 30.0, 40.0]]))
    assert values.tolist() == [[10.0, 20.0, 30.0, 40.0]]


def test_a_drawn_tree_takes_at_most_sixteen_values_of_unit_variance() -> None:
    drawn = DecisionTree(num_points=400).sample(200, generator=generator("tree"))
    assert max(len(row.unique()) for row in drawn.y) == 16
    assert float(drawn.y.square().mean()) == pytest.approx(1, abs=0.1)
    signs = drawn.x.sign() * torch.tensor(7.0)
    again = descend(signs, drawn.latents["coordinates"], drawn.latents["leaves"])
    assert torch.equal(again, drawn.y)


def test_quadratic_targets_are_linear_in_squares() -> None:
    drawn = QuadraticRegression(num_features=2, num_points=3, noise=0.0).sample(1, generator=generator("quadratic"))
    a, b = drawn.latents["weights"][0].tolist()
    expected = [(a * u * u + b * v * v) / math.sqrt(3) for u, v in drawn.x[0].tolist()]
    assert drawn.y[0].tolist() == pytest.approx(expected)
    assert Squares()(torch.tensor([[3.0]])).item() == pytest.approx(9 / math.sqrt(3))


def test_a_fourier_series_is_its_formula_and_periodic() -> None:
    task = FourierSeries(num_frequencies=3, half_period=2.0, noise=0.0)
    drawn = task.sample(1, generator=generator("fourier"))
    c = drawn.latents["weights"][0].tolist()
    for x, y in zip(drawn.x[0, :, 0].tolist(), drawn.y[0].tolist(), strict=True):
        terms = [c[n] * math.cos(n * math.pi * x / 2) + c[3 + n] * math.sin(n * math.pi * x / 2) for n in range(1, 4)]
        assert y == pytest.approx(c[0] + sum(terms))
    features = FourierFeatures(num_frequencies=3, half_period=2.0)
    torch.testing.assert_close(features(drawn.x + 4), features(drawn.x))


def test_least_squares_on_features_is_exact_without_noise_from_as_many_examples() -> None:
    task = FourierSeries(num_frequencies=2, num_points=12, noise=0.0)
    drawn = task.sample(40, generator=generator("exact"))
    said = task.oracle().prequential(drawn).mean
    assert said is not None
    error = (said - drawn.y).abs().amax(0)
    assert float(error[8:].max()) < 1e-4
    assert float(error[:4].max()) > 0.5


def test_a_sine_has_the_drawn_amplitude_and_phase() -> None:
    drawn = Sine().sample(500, generator=generator("sine"))
    amplitude, phase = drawn.latents["amplitude"], drawn.latents["phase"]
    assert float(amplitude.min()) >= 0.1
    assert float(amplitude.max()) <= 5.0
    assert float(phase.min()) < -3
    assert float(phase.max()) > 3
    assert float(drawn.y[7, 3]) == pytest.approx(float(amplitude[7]) * math.sin(float(drawn.x[7, 3, 0] + phase[7])))


def test_logistic_classes_are_drawn_with_the_stated_probability() -> None:
    drawn = LogisticRegression().sample(2000, generator=generator("logistic"))
    probability = drawn.latents["probability"]
    expected = torch.einsum("btd,bd->bt", drawn.x, drawn.latents["weights"]).sigmoid()
    torch.testing.assert_close(probability, expected)
    for low in (0.0, 0.2, 0.5, 0.8):
        chosen = (probability >= low) & (probability < low + 0.2)
        assert float(drawn.y[chosen].double().mean()) == pytest.approx(float(probability[chosen].mean()), abs=0.02)


def test_each_episode_of_a_mixture_is_of_its_component() -> None:
    task = Mixture(tasks=(LinearRegression(noise=0.0), QuadraticRegression(noise=0.0)), shares=(0.25, 0.75))
    drawn = task.sample(600, generator=generator("mixture"))
    quadratic = drawn.latents["component"] == 1
    assert float(quadratic.double().mean()) == pytest.approx(0.75, abs=0.08)
    for chosen, features in ((~quadratic, drawn.x), (quadratic, drawn.x.square())):
        solved = torch.linalg.lstsq(features[chosen], drawn.y[chosen].unsqueeze(-1)).solution
        torch.testing.assert_close((features[chosen] @ solved).squeeze(-1), drawn.y[chosen])


def test_a_mixtures_oracle_chooses_between_its_specialists() -> None:
    task = Mixture(tasks=(LinearRegression(), QuadraticRegression()))
    drawn = task.sample(400, generator=generator("choose"))
    oracle = task.oracle()
    assert oracle is not None

    def cost(learner: Any) -> Tensor:
        return (learner.prequential(drawn).mean - drawn.y).square()[:, 20:].mean(1)

    names = ("specialist-linear-regression", "specialist-quadratic-regression")
    specialists = torch.stack([cost(task.baselines()[name]) for name in names])
    own = specialists.gather(0, drawn.latents["component"].unsqueeze(0))
    assert float(cost(oracle).mean() / own.mean()) < 1.02
    assert float(specialists.mean(1).min() / own.mean()) > 3


def test_a_mixture_has_no_oracle_where_a_family_has_none_or_draws_x_differently() -> None:
    scaled = Mixture(tasks=(LinearRegression(), SkewedLinearRegression()))
    network = Mixture(tasks=(LinearRegression(), ReluNetwork(num_features=8, num_points=25)))
    assert scaled.oracle() is None
    assert network.oracle() is None
    assert network.sample(6, generator=generator("network")).x.shape == (6, 25, 8)


def test_mixtures_that_make_no_sense_are_refused() -> None:
    for tasks, shares, message in (
        ((LinearRegression(),), (1.0,), "a mixture of 1 tasks"),
        ((LinearRegression(), Sine()), (0.9, 0.2), "must be positive and sum to one"),
        ((LinearRegression(), MQAR()), (0.5, 0.5), "regression families, not mqar"),
    ):
        with pytest.raises(InputError, match=message):
            Mixture(tasks=tasks, shares=shares)
    with pytest.raises(InputError, match="need one shape of episodes"):
        Mixture(tasks=(LinearRegression(), SparseLinearRegression())).sample(4, generator=generator("shapes"))


@pytest.mark.parametrize(
    ("control", "inner"),
    [(ShuffledLabels(), LinearRegression()), (ShuffledClasses(), LogisticRegression())],
    ids=["labels", "classes"],
)
def test_the_control_permutes_within_each_episode(control: Any, inner: Any) -> None:
    shuffled, plain = (task.sample(20, generator=generator("shuffled")) for task in (control, inner))
    assert torch.equal(shuffled.x, plain.x)
    assert torch.equal(shuffled.y.sort(1).values, plain.y.sort(1).values)
    assert not torch.equal(shuffled.y, plain.y)
    assert torch.equal(shuffled.y, plain.y.gather(1, shuffled.latents["permutation"]))
    assert control.chance == inner.chance


def test_nothing_is_learnt_from_shuffled_labels() -> None:
    for task, falls in ((LinearRegression(), True), (ShuffledLabels(), False)):
        drawn = task.sample(2000, generator=generator("nothing"))
        said = LinearRegression().oracle().prequential(drawn).mean
        assert said is not None
        late = float((said - drawn.y).square()[:, 20:].mean())
        assert (late < 0.1 * task.chance) if falls else (late > task.chance)


def test_controls_take_the_tasks_that_they_score_alike() -> None:
    with pytest.raises(InputError, match="shuffled-labels takes tasks of pairs scored by squared-error"):
        ShuffledLabels(task=LogisticRegression())
    with pytest.raises(InputError, match="shuffled-classes takes tasks of pairs scored by log-loss, not mqar"):
        ShuffledClasses(task=MQAR())


def test_boolean_labels_are_their_formulas() -> None:
    source = generator("boolean")
    for task, rule in (
        (Conjunction(num_features=9), lambda x, c: all(x[i] == c[i] for i in range(9) if c[i])),
        (Disjunction(num_features=9), lambda x, c: any(x[i] == c[i] for i in range(9) if c[i])),
    ):
        drawn = task.sample(40, generator=source)
        for b in range(40):
            concept = drawn.latents["literals"][b].tolist()
            expected = [int(rule(row, concept)) for row in drawn.x[b].tolist()]
            assert drawn.y[b].tolist() == expected
    drawn = MajorityOfSubset(num_features=9).sample(40, generator=source)
    votes = (drawn.x * drawn.latents["subset"].unsqueeze(1)).sum(-1)
    assert torch.equal(drawn.y, (votes > 0).long())
    drawn = Parity(num_features=5).sample(40, generator=source)
    product = torch.where(drawn.latents["subset"].bool().unsqueeze(1), drawn.x, 1.0).prod(-1)
    assert torch.equal(drawn.y, (product < 0).long())
    assert drawn.latents["subset"].sum(1).min() >= 1
    drawn = SparseParity(num_features=6).sample(40, generator=source)
    pair = drawn.x.gather(2, drawn.latents["relevant"].unsqueeze(1).expand(-1, 70, -1))
    assert torch.equal(drawn.y, (pair[..., 0] != pair[..., 1]).long())


def test_inputs_are_signs_and_a_third_of_them_forced() -> None:
    drawn = Conjunction().sample(1000, generator=generator("forced"))
    assert drawn.x.abs().eq(1).all()
    assert float(drawn.y.double().mean()) == pytest.approx(share_of_forced_label(28), abs=0.02)
    literals = drawn.latents["literals"]
    for value, share in ((1, 0.15), (-1, 0.15), (0, 0.7)):
        assert float((literals == value).double().mean()) == pytest.approx(share, abs=0.02)


def test_shares_of_labels_by_hand() -> None:
    assert share_of_forced_label(1) == pytest.approx(0.3 + 0.7 * (0.7 + 0.3 / 2))
    assert share_of_majorities(2, 1.0) == pytest.approx(0.25)
    assert share_of_majorities(2, 0.5) == pytest.approx(0.5 * 0.5 + 0.25 * 0.25)


def test_the_version_space_counts_the_parities_that_are_left() -> None:
    """Over two variables: x1, x2, x1 x2. After (-1, 1) -> odd, x1 and x1 x2 are left; after (-1, -1) -> even, x1 x2."""
    x = torch.tensor([[[-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [1.0, 1.0]]], dtype=FP64)
    pairs = Pairs(x=x, y=torch.tensor([[1, 0, 1, 1]]), schema=Schema.classes(2, 2))
    said = VersionSpace().prequential(pairs).probabilities
    assert said is not None
    torch.testing.assert_close(said[0, :, 1], torch.tensor([2 / 3, 1 / 2, 1.0, 0.0], dtype=FP64))
    beyond = VersionSpace().predict(pairs, x[:, :1]).probabilities
    assert beyond is not None
    assert beyond.tolist() == [[[0.5, 0.5]]]


def test_parity_is_solved_once_one_concept_is_left_and_not_before() -> None:
    task = SparseParity(num_features=8, num_points=40)
    drawn = task.sample(300, generator=generator("solved"))
    said = task.oracle().prequential(drawn).probabilities
    assert said is not None
    error = (said.argmax(-1) != drawn.y).double().mean(0)
    assert float(error[0]) == pytest.approx(0.5, abs=0.1)
    assert float(error[20:].max()) == 0.0
    assert Parities(num_relevant=2).count(8) == 28
    with pytest.raises(InputError, match="enumerates at most 8192 concepts, but 20 features have 1048575"):
        VersionSpace().prequential(SparseParity().sample(1, generator=generator("many")))
