"""What claims share of estimates: kernels from random directions, averages, entropies, and what probes read."""

import math

import pytest
import torch
from torch import Tensor

from contexture.claims.by_layer import holding, probed
from contexture.claims.least_entropy import KEYS, NORMS, attaining_rows, over_norms, random_rows
from contexture.claims.pretraining import pretraining_error
from contexture.claims.random_features import (
    DIM,
    arc_cosine,
    of_one_length,
    orthogonal,
    pairs,
    positive,
    positive_variance,
    trigonometric,
    trigonometric_variance,
)
from contexture.claims.regret import log_likelihoods, regret
from contexture.claims.run import Run
from contexture.models.concept_attention import over_concepts, over_examples
from contexture.models.constructed import descent
from contexture.probes.attention import least_entropy
from contexture.tasks.finite_linear_regression import FiniteLinearRegression
from contexture.tasks.linear_regression import LinearRegression


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.float64)


def test_a_direction_of_zero_estimates_the_kernel_as_one() -> None:
    q = torch.eye(2, DIM).double()
    k, w = torch.stack((q[0], -q[1])), torch.zeros(1, 3, DIM).double()
    # Unit vectors: exp(-1) for either sign over exp(1) and exp(-1); the second estimate is exp(1) in place of exp(-1).
    assert positive(w, q, k)[0].tolist() == pytest.approx([math.exp(-2), 1.0])
    assert trigonometric(w, q, k)[0].tolist() == pytest.approx([1.0, math.exp(2)])
    assert positive_variance(q, k).tolist() == pytest.approx([math.exp(4) - 1, 0.0])
    assert trigonometric_variance(q, k).tolist() == pytest.approx([0.0, (1 - math.exp(-4)) ** 2 * math.exp(4) / 2])


def test_the_rectified_kernel_is_half_for_equal_directions() -> None:
    q = torch.eye(2).double()
    k = torch.stack((2 * q[0], q[0]))
    assert arc_cosine(q, k).tolist() == pytest.approx([1.0, 1 / (2 * math.pi)])


def test_directions_are_orthogonal_or_of_one_length() -> None:
    drawn = orthogonal(Run(), 0, 2, 20)
    assert drawn.shape == (2, 20, DIM)
    products = drawn[0, :DIM] @ drawn[0, :DIM].mT
    assert float((products - products.diagonal().diag()).abs().max()) < 1e-5
    torch.testing.assert_close(of_one_length(Run(), 0, 2, 5).norm(dim=-1), 4 * ones(2, 5))
    q, k = pairs(Run(), 0, size=0.5)
    torch.testing.assert_close(torch.cat((q, k)).norm(dim=1), 0.5 * ones(128))


def test_attention_to_two_concepts_is_their_average() -> None:
    concepts = torch.tensor([[1.0], [-2.0]]).double()
    said = over_concepts(ones(1, 1, 1), ones(1, 1), 3 * ones(1, 1, 1), concepts=concepts, noise=1.0)
    # Squared misfits of 0 and 9: the second concept weighs exp(-4.5) as much.
    share = 1 / (1 + math.exp(-4.5))
    assert said.item() == pytest.approx(3 * (share - 2 * (1 - share)))
    without = over_concepts(ones(1, 1, 1), ones(1, 1), ones(1, 1, 1), concepts=concepts, noise=1.0, lengths=False)
    share = 1 / (1 + math.exp(-3))
    assert without.item() == pytest.approx(share - 2 * (1 - share))


def test_kernel_attention_to_one_example_shrinks_it() -> None:
    x, y, queries = ones(1, 1, 1), 5 * ones(1, 1), torch.zeros(1, 1, 1).double()
    # A kernel of 1 to the query, and of (1 + 1)^2 to itself with noise of variance 1.
    assert over_examples(x, y, queries, noise=1.0).item() == pytest.approx(1.0)
    assert over_examples(x, y, queries, noise=1.0, normalised=True).item() == 5.0


def test_layers_may_have_rates_of_their_own() -> None:
    model = descent(1, num_steps=2, rate=(0.5, 1.0))
    said = model.read_outs(ones(1, 2, 1), torch.tensor([[2.0, 4.0]]).double(), 2 * ones(1, 1, 1))
    # Half of the way to a weight of 3, then all of it.
    assert [one.item() for one in said] == pytest.approx([3.0, 6.0])


def test_densities_are_normal_and_the_bound_is_log_m() -> None:
    concepts = torch.tensor([[1.0], [3.0]]).double()
    found = log_likelihoods(ones(1, 1, 1), ones(1, 1), concepts, noise=2.0)
    normal = torch.distributions.Normal(concepts.squeeze(1), 2.0).log_prob(torch.tensor(1.0).double())
    torch.testing.assert_close(found[0, 0], normal)
    task = FiniteLinearRegression(num_features=2, num_points=32, noise=0.5, num_tasks=8)
    bound = regret(Run(), task, bound=True, name="bound")
    assert bound.per is not None
    torch.testing.assert_close(bound.values, torch.full_like(bound.values, math.log(8) / 32))
    torch.testing.assert_close(bound.per, torch.full_like(bound.per, math.log(8) / 16))
    assert bound.curves["bound"].x == (4.0, 8.0, 16.0, 32.0)
    assert float((regret(Run(), task, name="average").values * 32).max()) <= math.log(8) + 1e-9


def test_an_error_that_falls_with_the_root_is_a_quarter_after_sixteen_times_as_many() -> None:
    samples = pretraining_error(Run(), num_features=4, noise=0.5, exact=True, name="law")
    assert samples.per is not None
    assert float(samples.values.mean() / samples.per.mean()) == pytest.approx(0.25, abs=0.03)
    assert samples.curves["law"].x == (256.0, 1024.0, 4096.0)


def test_the_rows_of_the_proof_lie_on_the_bound_and_random_ones_above() -> None:
    def over(entropies: Tensor, norms: Tensor) -> Tensor:
        return (entropies / least_entropy(norms, KEYS) - 1).amin(0)

    at, above = (over_norms(Run(), rows, over, "rows") for rows in (attaining_rows, random_rows))
    assert float(at.values.abs().max()) < 1e-9
    assert float(above.values.min()) > 0
    assert at.curves["rows"].x == at.curves["bound"].x == NORMS


def test_a_probe_reads_a_target_where_it_stands() -> None:
    task = LinearRegression(num_features=2, num_points=5, noise=0.25)
    samples = probed(Run(), task, holding(lambda drawn: drawn.y[:, :2]), lambda drawn: drawn.y[:, :2], "itself")
    assert samples.per is not None
    assert float(samples.values.mean() / samples.per.mean()) < 0.1
    assert samples.curves["itself"].x == (0.0, 1.0)
