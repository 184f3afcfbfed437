"""Layers of self-attention over pairs, weights set by hand, and comparisons of predictors: worked out by hand."""

import pytest
import torch

from contexture.errors import InputError
from contexture.evaluation.predictors import (
    ask,
    best_first_rate,
    best_matching_step,
    induced_weights,
    linear_predictor,
    sensitivity,
)
from contexture.learners.classical.gradient_descent import GradientDescent
from contexture.learners.classical.preconditioned_gradient_descent import PreconditionedGradientDescent
from contexture.learners.classical.ridge import Ridge
from contexture.models.constructed import descent
from contexture.models.self_attention import SelfAttentionConfig, SelfAttentionModel
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.uniform_linear_regression import UniformLinearRegression
from contexture.training.cohort import stack

TASK = LinearRegression(num_features=3, num_points=9)


@pytest.fixture
def prompt() -> tuple[torch.Tensor, ...]:
    return tuple(ask(TASK.sample(16, generator=torch.Generator().manual_seed(0)), num_queries=2))


def test_one_step_by_hand() -> None:
    """x = 1, 2 with y = 3, 5: the mean of y x is 6.5, so a step at rate 0.1 gives w = 0.65 and 2.6 at x = 4."""
    x, y = torch.tensor([[[1.0], [2.0]]]).double(), torch.tensor([[3.0, 5.0]]).double()
    said = descent(1, num_steps=1, rate=0.1).answer(x, y, torch.tensor([[[4.0]]]).double())
    assert said.item() == pytest.approx(2.6)


def test_layers_are_the_learner_of_the_same_steps(prompt: tuple[torch.Tensor, ...]) -> None:
    x, y, queries, _ = prompt
    for k, said in enumerate(descent(3, num_steps=4, rate=0.3).read_outs(x, y, queries), start=1):
        wanted = linear_predictor(GradientDescent(steps=k, rate=0.3))(x, y, queries)
        torch.testing.assert_close(said, wanted)


def test_a_preconditioner_is_the_preconditioned_learners(prompt: tuple[torch.Tensor, ...]) -> None:
    x, y, queries, _ = prompt
    matrix = torch.tensor([[1.0, 0.2, 0.0], [0.2, 0.5, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    learner = PreconditionedGradientDescent(steps=2, rate=0.2, preconditioner=matrix)
    said = descent(3, num_steps=2, rate=0.2, preconditioner=matrix).answer(x, y, queries)
    torch.testing.assert_close(said, linear_predictor(learner)(x, y, queries))


def test_queries_are_read_by_nobody(prompt: tuple[torch.Tensor, ...]) -> None:
    x, y, queries, _ = prompt
    model = SelfAttentionModel(
        SelfAttentionConfig(num_features=3, num_layers=2, num_heads=2, weights="softmax", embed=(5, 4), std=0.5),
        generator=torch.Generator().manual_seed(0),
    ).double()
    both = model.answer(x, y, queries)
    torch.testing.assert_close(model.answer(x, y, queries[:, :1]), both[:, :1])


def test_a_looped_model_is_its_layer_again_and_again(prompt: tuple[torch.Tensor, ...]) -> None:
    x, y, queries, _ = prompt
    looped, plain = (
        SelfAttentionModel(
            SelfAttentionConfig(num_features=3, num_layers=3, looped=looped, std=0.3),
            generator=torch.Generator().manual_seed(0),
        ).double()
        for looped in (True, False)
    )
    for layer in plain.layers:
        layer.load_state_dict(looped.layers[0].state_dict())
    torch.testing.assert_close(looped.answer(x, y, queries), plain.answer(x, y, queries))


def test_a_model_that_writes_targets_leaves_inputs_alone(prompt: tuple[torch.Tensor, ...]) -> None:
    x, y, _, _ = prompt
    config = SelfAttentionConfig(num_features=3, std=0.5, writes="targets")
    model = SelfAttentionModel(config, generator=torch.Generator().manual_seed(0)).double()
    tokens = torch.cat((x, y.unsqueeze(-1)), 2)
    after = model.layers[0](tokens, tokens.shape[1])
    assert torch.equal(after[..., :-1], x)
    assert not torch.equal(after[..., -1], y)


def test_a_cohort_answers_as_its_members(prompt: tuple[torch.Tensor, ...]) -> None:
    x, y, queries, _ = prompt
    config = SelfAttentionConfig(num_features=3, num_layers=2, num_heads=2, embed=(4,), std=0.4)
    models = [SelfAttentionModel(config, generator=torch.Generator().manual_seed(k)).double() for k in range(3)]
    folded = stack(models).answer(
        *(part.repeat(3, 1, 1) if part.dim() == 3 else part.repeat(3, 1) for part in (x, y, queries))
    )
    torch.testing.assert_close(folded, torch.cat([model.answer(x, y, queries) for model in models]))


def test_configurations_say_what_is_amiss() -> None:
    with pytest.raises(InputError, match="at least one"):
        SelfAttentionConfig(num_features=0)
    with pytest.raises(InputError, match="weighs by"):
        SelfAttentionConfig(num_features=1, weights="cosine")
    with pytest.raises(InputError, match="writes"):
        SelfAttentionConfig(num_features=1, writes="inputs")  # type: ignore[arg-type]


def test_the_best_first_rate_is_where_the_error_is_least() -> None:
    p = ask(UniformLinearRegression().sample(512, generator=torch.Generator().manual_seed(1)))
    best = best_first_rate(*p)

    def error(rate: float) -> float:
        said = linear_predictor(GradientDescent(steps=1, rate=rate))(p.x, p.y, p.queries)
        return float((said - p.targets).square().mean())

    assert error(best) < min(error(best * 0.98), error(best * 1.02))
    assert 1.3 < best < 1.7


def test_induced_weights_are_the_learners_own(prompt: tuple[torch.Tensor, ...]) -> None:
    x, y, _, _ = prompt
    probes = torch.randn(16, 12, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = induced_weights(linear_predictor(Ridge(penalty=0.5)), x, y, probes)
    torch.testing.assert_close(found.weights, Ridge(penalty=0.5).weights(x, y))
    assert found.r_squared.min() > 1 - 1e-12
    bent = induced_weights(lambda x, y, q: q[..., 0].square(), x, y, probes)
    assert bent.r_squared.mean() < 0.8


def test_a_linear_predictors_sensitivity_is_its_weights(prompt: tuple[torch.Tensor, ...]) -> None:
    x, y, queries, _ = prompt
    learner = GradientDescent(steps=3, rate=0.2)
    slopes = sensitivity(linear_predictor(learner), x, y, queries)
    torch.testing.assert_close(slopes, learner.weights(x, y).unsqueeze(1).expand_as(slopes))


def test_the_best_matching_step_is_found() -> None:
    steps = [torch.full((4, 1), float(k)) for k in range(6)]
    assert best_matching_step([steps[1] + 0.1, steps[5] - 0.2], steps).tolist() == [1, 5]
