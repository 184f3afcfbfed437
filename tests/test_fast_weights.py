"""What the memories that learn as they read have to do with each other, with gradient descent and with regression."""

import math

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.classical.ridge import Ridge
from contexture.mixers.delta_rule import DeltaRule
from contexture.mixers.gated_delta_rule import GatedDeltaRule
from contexture.mixers.mesa import Mesa
from contexture.ops import dispatch
from contexture.ops.delta_rule import delta_rule
from contexture.ops.gated_delta_rule import gated_delta_rule
from contexture.ops.linear_attention import linear_attention
from contexture.ops.mesa import Moments, mesa
from contexture.protocols import Pairs, Schema

FP64 = torch.float64
DIM = 8


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=fresh(seed), dtype=FP64)


def rows(*values):
    """One batch row and one head."""
    return torch.tensor(values, dtype=FP64).view(1, len(values), 1, -1)


def orthonormal(time=DIM):
    """As many orthonormal keys as there are steps, [1, time, 1, DIM]."""
    return torch.linalg.qr(normal(DIM, DIM, seed=5))[0][:time].view(1, time, 1, DIM)


def unit_keys(time, seed=1):
    k = normal(2, time, 3, DIM, seed=seed)
    return k / k.norm(dim=-1, keepdim=True)


def test_the_gated_delta_rule_by_hand():
    key, half = rows([0.6, 0.8], [0.6, 0.8]), torch.full((1, 2, 1), math.log(0.5), dtype=FP64)
    beta = torch.tensor([1.0, 0.5], dtype=FP64).view(1, 2, 1)
    out, state = gated_delta_rule(key, key, rows([4.0], [8.0]), beta, half)
    # The memory holds 4, fades to 2, and moves half of the way from there to 8.
    torch.testing.assert_close(out.flatten(), torch.tensor([4.0, 5.0], dtype=FP64))
    torch.testing.assert_close(state.flatten(), torch.tensor([3.0, 4.0], dtype=FP64))


def test_without_decay_the_gated_delta_rule_is_the_delta_rule():
    q, k, v, beta = (
        normal(2, 70, 3, DIM),
        unit_keys(70),
        normal(2, 70, 3, 5, seed=2),
        torch.rand(2, 70, 3, generator=fresh()),
    )
    beta = beta.to(FP64)
    got = gated_delta_rule(q, k, v, beta, torch.zeros_like(beta))
    for one, other in zip(got, delta_rule(q, k, v, beta), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_decay_of_zero_forgets_everything():
    q, k, v, beta = (
        normal(2, 70, 3, DIM),
        unit_keys(70),
        normal(2, 70, 3, 5, seed=2),
        torch.full((2, 70, 3), 0.7, dtype=FP64),
    )
    decay = -torch.rand(2, 70, 3, generator=fresh(), dtype=FP64)
    cut = decay.clone()
    cut[:, 40] = -math.inf
    got = gated_delta_rule(q, k, v, beta, cut)[0]
    rest = gated_delta_rule(*(x[:, 40:] for x in (q, k, v, beta, decay)))[0]
    torch.testing.assert_close(got[:, 40:], rest, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got[:, :40], gated_delta_rule(q, k, v, beta, decay)[0][:, :40])


def test_strong_decays_cost_no_digits_in_single_precision():
    q, k, v, beta = normal(2, 70, 3, DIM), unit_keys(70), normal(2, 70, 3, 5, seed=2), torch.ones(2, 70, 3, dtype=FP64)
    decay = torch.full((2, 70, 3), -1e-3, dtype=FP64)
    decay[:, ::7] = -60.0
    single = [x.float() for x in (q, k, v, beta, decay)]
    with dispatch.use("reference"):
        expected = gated_delta_rule(*(x.double() for x in single))[0]
    assert ((gated_delta_rule(*single)[0] - expected).norm() / expected.norm()).item() < 1e-6


def test_the_gradient_of_the_delta_rules_cannot_be_differentiated_by_accident():
    k = orthonormal().requires_grad_()
    out, _ = delta_rule(k, k, k, torch.ones(1, DIM, 1, dtype=FP64))
    (gradient,) = torch.autograd.grad(out.square().sum(), k, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_whole_correction_of_orthonormal_keys_recalls_every_value():
    k, v = orthonormal(), normal(1, DIM, 1, 3, seed=2)
    memory = delta_rule(k, k, v, torch.ones(1, DIM, 1, dtype=FP64))[1]
    torch.testing.assert_close(torch.einsum("bthd,bhde->bthe", k, memory), v)


def test_a_second_value_replaces_the_first_where_linear_attention_adds_them():
    key, values = rows([0.6, 0.8], [0.6, 0.8]), rows([5.0], [7.0])
    assert delta_rule(key, key, values, torch.ones(1, 2, 1, dtype=FP64))[0][0, 1].item() == pytest.approx(7)
    assert linear_attention(key, key, values)[0][0, 1].item() == pytest.approx(12)


def test_with_orthonormal_keys_the_delta_rule_is_linear_attention():
    q, k, v = normal(1, DIM, 1, DIM), orthonormal(), normal(1, DIM, 1, 3, seed=2)
    beta = torch.rand(1, DIM, 1, generator=fresh(), dtype=FP64)
    expected = linear_attention(q, k, v * beta.unsqueeze(-1))
    for one, other in zip(delta_rule(q, k, v, beta), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_linear_attention_is_a_step_of_gradient_descent_on_the_regression_of_values_on_keys():
    q, k, v = normal(2, 9, 3, DIM), normal(2, 9, 3, DIM, seed=1), normal(2, 9, 3, 4, seed=2)
    out = linear_attention(q, k, v)[0]
    for t in range(9):
        weights = torch.zeros(2, 3, DIM, 4, dtype=FP64, requires_grad=True)
        missed = torch.einsum("bshd,bhde->bshe", k[:, : t + 1], weights) - v[:, : t + 1]
        (gradient,) = torch.autograd.grad(missed.square().sum() / 2, weights)
        torch.testing.assert_close(out[:, t], torch.einsum("bhd,bhde->bhe", q[:, t], -gradient))


def test_a_step_of_the_delta_rule_is_a_step_of_gradient_descent_on_the_last_pair():
    memory = normal(2, 3, DIM, 4).requires_grad_()
    q, k, v = normal(2, 1, 3, DIM, seed=1), normal(2, 1, 3, DIM, seed=2), normal(2, 1, 3, 4, seed=3)
    beta = torch.rand(2, 1, 3, generator=fresh(), dtype=FP64)
    missed = torch.einsum("bhd,bhde->bhe", k[:, 0], memory) - v[:, 0]
    (gradient,) = torch.autograd.grad(missed.square().sum() / 2, memory)
    after = delta_rule(q, k, v, beta, initial_state=memory)[1]
    torch.testing.assert_close(after, memory - beta[:, 0, :, None, None] * gradient)


def test_the_mesa_layer_by_hand():
    # One key of 2 with value 3 and penalty 2: the weight is 2 * 3 / (4 + 2) = 1. Another with value 0: 6 / 10.
    out, state = mesa(
        rows([1.0], [1.0]), rows([2.0], [2.0]), rows([3.0], [0.0]), torch.full((1, 1, 1), 2.0, dtype=FP64)
    )
    torch.testing.assert_close(out.flatten(), torch.tensor([1.0, 0.6], dtype=FP64))
    assert (state.keys.item(), state.products.item()) == (8, 6)


@pytest.mark.parametrize("penalty", [0.3, 4.0])
def test_the_mesa_layer_predicts_what_ridge_regression_predicts(penalty):
    time = 70
    x, y, queries = normal(2, time, DIM), normal(2, time, seed=1), normal(2, time, DIM, seed=2)
    episodes = Pairs(x=x, y=y, schema=Schema.numeric(DIM))
    ridge = torch.full((1, 1, DIM), penalty, dtype=FP64)
    out = mesa(queries.unsqueeze(2), x.unsqueeze(2), y.view(2, time, 1, 1), ridge)[0].flatten(1)
    for t in (0, 3, 63, 64, 69):
        expected = Ridge(penalty=penalty).predict(episodes.prefix(t + 1), queries[:, t : t + 1]).mean
        torch.testing.assert_close(out[:, t : t + 1], expected, rtol=1e-9, atol=1e-9)


def test_the_mesa_layer_is_the_recursion_of_sherman_and_morrison():
    q, k, v = normal(1, 40, 1, DIM), normal(1, 40, 1, DIM, seed=1), normal(1, 40, 1, 3, seed=2)
    ridge = 0.5 + torch.rand(1, 1, DIM, generator=fresh(), dtype=FP64)
    inverse, products = torch.diag(1 / ridge.flatten()), torch.zeros(DIM, 3, dtype=FP64)
    out = mesa(q, k, v, ridge)[0]
    for t in range(40):
        found = inverse @ k[0, t, 0]
        inverse = inverse - torch.outer(found, found) / (1 + k[0, t, 0] @ found)
        products = products + torch.outer(k[0, t, 0], v[0, t, 0])
        torch.testing.assert_close(out[0, t, 0], q[0, t, 0] @ inverse @ products)


def test_a_large_penalty_makes_the_mesa_layer_linear_attention():
    q, k, v = normal(1, 40, 1, DIM), normal(1, 40, 1, DIM, seed=1), normal(1, 40, 1, 3, seed=2)
    out = 1e9 * mesa(q, k, v, torch.full((1, 1, DIM), 1e9, dtype=FP64))[0]
    torch.testing.assert_close(out, linear_attention(q, k, v)[0], rtol=1e-6, atol=1e-6)


def test_the_mesa_layer_keeps_its_digits_over_a_long_context():
    q, k, v = normal(1, 2000, 1, DIM), unit_keys(2000)[:1, :, :1], normal(1, 2000, 1, 3, seed=2)
    ridge = torch.ones(1, 1, DIM, dtype=FP64)
    expected = mesa(q, k, v, ridge)[0][:, -100:]
    got = mesa(*(x.float() for x in (q, k, v, ridge)))[0][:, -100:]
    assert ((got - expected).norm() / expected.norm()).item() < 1e-5


def test_every_member_of_a_cohort_has_penalties_of_its_own():
    q, k, v = normal(4, 9, 1, DIM), normal(4, 9, 1, DIM, seed=1), normal(4, 9, 1, 3, seed=2)
    ridge = 0.5 + torch.rand(2, 1, DIM, generator=fresh(), dtype=FP64)
    for path in ("reference", "chunked"):
        with dispatch.use(path):
            out = mesa(q, k, v, ridge)[0]
            apart = [mesa(q[n : n + 2], k[n : n + 2], v[n : n + 2], ridge[n // 2 : n // 2 + 1])[0] for n in (0, 2)]
        torch.testing.assert_close(out, torch.cat(apart))


def test_a_state_of_the_mesa_layer_holds_sums():
    k, v = normal(2, 40, 3, DIM), normal(2, 40, 3, 5, seed=1)
    state = mesa(k, k, v, torch.ones(1, 3, DIM, dtype=FP64))[1]
    assert isinstance(state, Moments)
    torch.testing.assert_close(state.keys, torch.einsum("bthd,bthe->bhde", k, k))
    torch.testing.assert_close(state.products, torch.einsum("bthd,bthe->bhde", k, v))


def test_penalties_start_at_one():
    layer, x = Mesa(16, num_heads=2, generator=fresh()), torch.ones(2, 1, 16)
    raw = layer.ridge(x)
    torch.testing.assert_close(0.25 + torch.nn.functional.softplus(raw), torch.ones(2, 1, 16))


@pytest.mark.parametrize("mixer", [DeltaRule, GatedDeltaRule, Mesa])
def test_a_width_that_heads_do_not_divide_is_refused(mixer):
    with pytest.raises(InputError, match="width of 16 cannot be split into 3 heads"):
        mixer(16, num_heads=3, generator=fresh())


@pytest.mark.parametrize("size", [1, 7, 33])
def test_chunks_of_any_size_give_the_same(size, monkeypatch):
    q, k, v = normal(2, 130, 3, DIM), unit_keys(130), normal(2, 130, 3, 5, seed=2)
    beta, decay = (
        torch.rand(2, 130, 3, generator=fresh(), dtype=FP64),
        -torch.rand(2, 130, 3, generator=fresh(1), dtype=FP64),
    )
    expected = gated_delta_rule(q, k, v, beta, decay)
    monkeypatch.setattr("contexture.ops.delta_chunks.CHUNK", size)
    for one, other in zip(gated_delta_rule(q, k, v, beta, decay), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
