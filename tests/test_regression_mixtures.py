"""Mixtures of regressions: the transformer set by hand, the components that prompts tell, prompts that are replayed."""

import math

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.oracles.regression_mixture_em import fit_components, log_likelihoods
from contexture.models.exponential_weights import ExponentialWeights
from contexture.protocols import Pairs, Schema
from contexture.randomness import generator
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.linear_regression_mixture import LinearRegressionMixture
from contexture.tasks.mixture import Mixture
from contexture.tasks.named import as_task
from contexture.tasks.replay import Replay

TASK = LinearRegressionMixture(num_features=3, num_points=8, noise=0.5, num_components=4)


def test_six_layers_weigh_two_components_by_hand() -> None:
    # After y = 1 at x = 1 the components 1 and 0 have squared residuals 0 and 1: weights 1 and e^-1/2.
    model = ExponentialWeights(components=torch.tensor([[1.0], [0.0]]).double(), noise_variance=1.0)
    x = torch.tensor([[[1.0], [2.0]]]).double()
    said = model.prequential(x, torch.tensor([[1.0, 5.0]]).double())
    wanted = [0.5, 2 / (1 + math.exp(-0.5))]
    torch.testing.assert_close(said[0], torch.tensor(wanted).double(), rtol=1e-7, atol=0)


@pytest.mark.parametrize("counted", [True, False])
def test_six_layers_are_the_posterior_mean_only_if_they_count(counted: bool) -> None:
    drawn = TASK.sample(64, generator=generator("by hand"))
    model = ExponentialWeights(components=TASK.weights, noise_variance=0.25, counted=counted)
    said = model.prequential(drawn.x, drawn.y)
    far = float((said - TASK.oracle().prequential(drawn).value).abs().max())
    assert far < 1e-6 if counted else far > 0.1


def test_what_is_said_depends_on_what_came_before_alone() -> None:
    drawn = TASK.sample(4, generator=generator("order"))
    model = ExponentialWeights(components=TASK.weights, noise_variance=0.25)
    changed = drawn.y.clone()
    changed[:, 5:] += 1
    before, after = model.prequential(drawn.x, drawn.y), model.prequential(drawn.x, changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.equal(before[:, 6:], after[:, 6:])


def test_likelihoods_of_prompts_by_hand() -> None:
    prompt = Pairs(x=torch.tensor([[[1.0], [2.0]]]), y=torch.tensor([[1.0, 1.0]]), schema=Schema.numeric(1))
    said = log_likelihoods(prompt, torch.tensor([[1.0], [0.0]]), noise_variance=0.5)
    assert said.tolist() == [[-1.0, -2.0]]


def test_one_component_is_ridge_regression_over_all_prompts() -> None:
    # x'x = 1 + 4 and x'y = 2 + 6 over both prompts, and one of the prior: 8 / 6.
    prompts = Pairs(x=torch.tensor([[[1.0]], [[2.0]]]), y=torch.tensor([[2.0], [3.0]]), schema=Schema.numeric(1))
    found = fit_components(prompts, num_components=1, noise_variance=1.0, generator=generator("one"))
    torch.testing.assert_close(found, torch.tensor([[8 / 6]]).double())


def test_expectation_maximisation_finds_the_components() -> None:
    drawn = TASK.sample(512, generator=generator("prompts"))
    starts = [
        fit_components(drawn, num_components=4, noise_variance=0.25, generator=generator("start", k)) for k in range(4)
    ]
    best = max(starts, key=lambda w: float(log_likelihoods(drawn, w, noise_variance=0.25).logsumexp(1).sum()))
    assert float(torch.cdist(TASK.weights, best).amin(1).max()) < 0.1


def test_a_replay_shows_its_pool_and_nothing_else() -> None:
    task = Replay(task=TASK, num_episodes=3, seed=1)
    drawn = task.sample(64, generator=generator("replay"))
    shown = {tuple(row) for row in drawn.y.tolist()}
    assert shown == {tuple(row) for row in task.pool.y.tolist()}
    assert task.chance == pytest.approx(float(task.pool.y.var(correction=0)))
    assert not torch.equal(task.pool.y, Replay(task=TASK, num_episodes=3, seed=2).pool.y)
    assert {"oracle", "bayes-ridge"} <= set(task.baselines())


def test_tasks_are_built_from_what_files_hold() -> None:
    settings = {"num_features": 2, "num_points": 4}
    mixture = Mixture(
        tasks=[{"name": "linear-regression", "settings": settings | {"noise": noise}} for noise in (0.5, 1.0)],  # type: ignore[arg-type]
        shares=[0.5, 0.5],  # type: ignore[arg-type]
    )
    assert mixture.tasks == (LinearRegression(**settings, noise=0.5), LinearRegression(**settings, noise=1.0))
    assert mixture.chance == 2 + (0.25 + 1) / 2
    with pytest.raises(InputError, match="name and settings, not as kind"):
        as_task({"kind": "linear-regression"})
    with pytest.raises(InputError, match="cannot be built"):
        as_task({"name": "linear-regression", "settings": {"depth": 3}})
    with pytest.raises(InputError, match="a replay takes a regression family"):
        Replay(task={"name": "mqar"})  # type: ignore[arg-type]
