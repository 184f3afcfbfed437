"""Parts that papers about one attention layer share: what heads amount to, layers set by hand, flows on moments."""

import pytest
import torch
from torch import Tensor

from contexture.errors import InputError
from contexture.models.constructed import debiased_step, descent
from contexture.models.self_attention import SelfAttention, SelfAttentionConfig, SelfAttentionModel
from contexture.probes.effective_weights import (
    heads_of,
    imbalance,
    key_query,
    off_identity,
    off_target,
    share_outside,
    target_value,
)
from contexture.randomness import generator
from contexture.tasks.gaussian_linear_regression import GaussianLinearRegression
from contexture.training.flow import bilinear_flow


def numbers(*shape: int, name: str = "numbers") -> Tensor:
    return torch.randn(shape, generator=generator(0, name), dtype=torch.float64)


def layer_of(model: SelfAttentionModel) -> SelfAttention:
    layer = model.layers[0]
    assert isinstance(layer, SelfAttention)
    return layer


def test_a_gradient_step_scores_by_x_and_reads_y() -> None:
    layer = layer_of(descent(2, num_steps=1, rate=0.5))
    assert key_query(layer).tolist() == [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]
    assert target_value(layer).tolist() == [[0.0, 0.0, 0.5]]


def test_effective_weights_do_not_depend_on_a_heads_basis() -> None:
    config = SelfAttentionConfig(num_features=2, num_heads=2, std=0.5)
    model = SelfAttentionModel(config, generator=generator(0, "model")).double()
    layer = layer_of(model)
    before = key_query(layer), target_value(layer)
    turn = torch.block_diag(torch.linalg.qr(numbers(3, 3)).Q, torch.linalg.qr(numbers(3, 3, name="other")).Q)
    with torch.no_grad():
        for leaf in (layer.query, layer.key, layer.value):
            leaf.weight.copy_(turn @ leaf.weight)
        layer.output.weight.copy_(layer.output.weight @ turn.mT)
    torch.testing.assert_close(key_query(layer), before[0])
    torch.testing.assert_close(target_value(layer), before[1])
    assert not torch.equal(key_query(layer)[0], key_query(layer)[1])


def test_effective_weights_give_the_predictions_of_linear_attention() -> None:
    config = SelfAttentionConfig(num_features=2, num_heads=3, std=0.5)
    model = SelfAttentionModel(config, generator=generator(0, "model")).double()
    x, y, queries = numbers(4, 5, 2), numbers(4, 5, name="y"), numbers(4, 1, 2, name="queries")
    tokens = torch.cat((x, y.unsqueeze(2)), 2)
    scores, values = key_query(layer_of(model))[:, :, :-1], target_value(layer_of(model))
    said = torch.einsum("nja,hab,nqb,hc,njc->nq", tokens, scores, queries, values, tokens) / 5
    torch.testing.assert_close(model.answer(x, y, queries), said)


def test_the_share_outside_a_pattern() -> None:
    found = torch.stack(
        (2 * torch.eye(2), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    )
    assert share_outside(found, torch.eye(2)).tolist() == pytest.approx([0.0, 1.0, 0.2])


def test_two_heads_set_by_hand_are_the_pattern() -> None:
    layer = debiased_step(2, rate=1.0).layers[0]
    assert isinstance(layer, SelfAttention)
    heads = heads_of(layer)
    assert heads.scores.shape == (2, 3, 2)
    assert heads.weights.tolist() == [0.5, 0.5]
    assert [float(measure(heads)) for measure in (off_identity, off_target, imbalance)] == [0.0, 0.0, 0.0]
    bent = heads._replace(
        scores=torch.tensor([[[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]]).double(),
        values=torch.tensor([[0.0, 3.0, 4.0], [0.0, 0.0, -2.0]]).double(),
        weights=torch.tensor([0.25, 0.75]).double(),
    )
    # The first head scores at right angles to the identity and has 9/25 of its square on x; 4 - 2 of 4 + 2 are left.
    assert float(off_identity(bent)) == 0.25
    assert float(off_target(bent)) == pytest.approx(0.25 * 9 / 25)
    assert float(imbalance(bent)) == pytest.approx(1 / 3)


def test_two_heads_are_a_step_on_centred_examples() -> None:
    x = torch.tensor([[[1.0], [3.0]]], dtype=torch.float64)
    y = torch.tensor([[2.0, 4.0]], dtype=torch.float64)
    query = torch.tensor([[[0.5]]], dtype=torch.float64)
    # The mean of y (x - 2) is (-2 + 4) / 2 = 1; at a rate of one half the step says 1/2 * 1 * 0.5.
    said = debiased_step(1, rate=0.5, sharpness=1e-3).answer(x, y, query).item()
    assert said == pytest.approx(0.25, abs=1e-6)


def test_attention_that_sums_is_linear_attention_times_the_length() -> None:
    x, y, queries = numbers(2, 5, 2), numbers(2, 5, name="y"), numbers(2, 3, 2, name="queries")
    mean, total = (descent(2, num_steps=1, rate=0.5, weights=weights) for weights in ("linear", "sum"))
    torch.testing.assert_close(total.answer(x, y, queries), 5 * mean.answer(x, y, queries))


def test_only_queries_read_in_the_last_layer_and_say_the_same() -> None:
    config = SelfAttentionConfig(num_features=2, num_layers=2, std=0.5)
    model = SelfAttentionModel(config, generator=generator(0, "model")).double()
    tokens = numbers(3, 7, 3)
    whole, queries = model.layers[0](tokens, 5), model.layers[0](tokens, 5, start=5)
    torch.testing.assert_close(queries, whole[:, 5:])
    x, y, asked = tokens[:, :5, :2], tokens[:, :5, 2], tokens[:, 5:, :2]
    tokens = torch.cat((tokens[:, :5], torch.cat((asked, asked.new_zeros(3, 2, 1)), 2)), 1)
    for layer in model.layers:
        tokens = layer(tokens, 5)
    torch.testing.assert_close(model.answer(x, y, asked), -tokens[:, 5:, 2])


def test_a_step_of_the_flow_by_hand() -> None:
    """P = 2, K = (1, 0): prediction 2 f_1, loss E(y - 2 f_1)^2 / 2 with E f f' = I and E y f' = (3, 1)."""
    second, first = torch.eye(2), torch.tensor([[3.0, 1.0]])
    start = {"left": torch.tensor([[2.0]]), "right": torch.tensor([[1.0, 0.0]])}
    left, right = bilinear_flow(second, first, **start, rate=0.1, steps=1)
    # The slope by the product (2, 0) is (2, 0) - (3, 1) = (-1, -1): by P it is -1, by K it is (-2, -2).
    assert left.item() == pytest.approx(2.1)
    assert right.tolist() == [pytest.approx([1.2, 0.2])]
    left, right = bilinear_flow(second, first, **start, rate=0.1, steps=1, keep_zeros=True)
    assert right.tolist() == [pytest.approx([1.2, 0.0])]


def test_the_flow_descends_as_automatic_differentiation_does() -> None:
    features, targets = numbers(50, 2 * 3 * 2), numbers(50, 2, name="targets")
    left, right = numbers(2, 2, name="left"), numbers(3, 2, name="right")
    ours = bilinear_flow(
        features.mT @ features / 50, targets.mT @ features / 50, left=left, right=right, rate=0.01, steps=3
    )
    for _ in range(3):
        left, right = left.detach().requires_grad_(), right.detach().requires_grad_()
        said = features @ torch.einsum("oa,bc->oabc", left, right).flatten(1).mT
        slopes = torch.autograd.grad((said - targets).square().sum(1).mean() / 2, (left, right))
        left, right = left - 0.01 * slopes[0], right - 0.01 * slopes[1]
    torch.testing.assert_close(ours, (left.detach(), right.detach()))


def test_gaussian_linear_regression_draws_what_it_says() -> None:
    task = GaussianLinearRegression(variances=(4.0, 0.25), mean=2.0, num_points=5, noise=0.5)
    pairs = task.sample(20_000, generator=generator(0, "draw"))
    assert pairs.x.var((0, 1)).tolist() == pytest.approx([4.0, 0.25], rel=0.05)
    assert pairs.latents["weights"].mean(0).tolist() == pytest.approx([2.0, 2.0], abs=0.05)
    assert pairs.y.square().mean().item() == pytest.approx(task.chance, rel=0.05)


def test_inputs_need_positive_variances() -> None:
    with pytest.raises(InputError, match="positive variances"):
        GaussianLinearRegression(variances=(1.0, 0.0))
