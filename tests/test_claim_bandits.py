"""What claims measure of who decides in bandits: what is needed as histories grow, and what is lost of them."""

import math

import pytest
import torch

from contexture.agents.lin_ucb import LinUCB
from contexture.claims.best_arm import lost, share_lost
from contexture.claims.growth import crossing, slope
from contexture.claims.linear_bandits import bandit, bounds, choices, pulled
from contexture.claims.run import Run
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.evaluation.posterior import exactly
from contexture.tasks.decision_pretraining import DecisionPretraining

BANDIT = GaussianBandit(num_arms=3)


def histories(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return DecisionPretraining(settings={"num_arms": 3}, steps=8).sample(20, generator=generator)


def test_the_slope_of_logarithms_is_the_power() -> None:
    found = torch.tensor([[2.0, 5.0], [8.0, 5.0], [32.0, 5.0]]).double()
    assert slope((1, 2, 4), found).tolist() == pytest.approx([2.0, 0.0])


def test_an_error_crosses_the_tolerance_where_it_does_for_good() -> None:
    # Between 2 and 8 the logarithm goes from log 10 above to log 10 below: half of the way.
    assert crossing((1, 2, 8, 9), (0.001, 0.1, 0.001, 0.0), tolerance=0.01) == pytest.approx(5.0)
    assert crossing((1, 2), (0.5, 0.25), tolerance=0.01) == 2.0


def test_zeros_after_some_pulls_are_no_examples() -> None:
    agent = LinUCB(bandit(0))
    known, believed = pulled(agent, worlds=3, pulls=6, seed=0)
    assert known.x.shape == (3, 6, 2)
    for moment in (2, 6):
        told = known.first(moment).believed(agent)
        torch.testing.assert_close(told.inverse, believed[moment].inverse)
        torch.testing.assert_close(told.moment, believed[moment].moment)


def test_who_knows_the_bounds_and_the_draws_is_not_apart() -> None:
    solved = bounds(Run(), lambda agent, told, pulls, counts: [agent.bounds(told.believed(agent))] * len(counts), "")
    assert float(solved.values.max()) < 1e-12
    assert not solved.curves
    drawn = choices(
        Run(),
        lambda agent, known, draws, pulls: agent.drawn(known.believed(agent), draws.transpose(0, 1)).transpose(0, 1),
        "",
    )
    assert float(drawn.values.max()) < 1e-9


def test_a_flat_guess_loses_all_that_a_history_tells() -> None:
    def flat(seed: int, drawn, pulls) -> torch.Tensor:
        return torch.full((drawn.batch, len(pulls), 3), 1 / 3, dtype=torch.float64)

    samples = share_lost(Run(), BANDIT, histories, flat, "flat", pulls=range(2, 8))
    assert samples.per is not None
    torch.testing.assert_close(samples.values, samples.per)
    torch.testing.assert_close(samples.curves["flat"].y, torch.ones(3, 6).double())


def test_the_posterior_loses_nothing() -> None:
    drawn = histories(0)
    nats, gained = lost(BANDIT, lambda seed, drawn, pulls: exactly(drawn, BANDIT, pulls), 0, drawn, [0, 7])
    assert float(nats.abs().max()) == 0
    assert float(gained[:, 0].abs().max()) < 1e-9
    assert 0 < float(gained[:, 1].mean()) < math.log(3)
