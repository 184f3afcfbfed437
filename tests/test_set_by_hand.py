"""Transformer layers with weights set by hand: what each does, and the algorithms that are made of them."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from contexture.agents.lin_ucb import LinUCB
from contexture.agents.linear_thompson import LinearThompson
from contexture.agents.roll_out import roll_out, states_along
from contexture.agents.ucb_vi import UCBVI, planned_values
from contexture.environments.linear_bandit import LinearBandit
from contexture.environments.tabular_mdp import TabularMDP
from contexture.errors import InputError
from contexture.learners.classical.ridge import Ridge
from contexture.models.network_descent import NetworkDescent
from contexture.models.one_layer import CosineMap, fit, interpolate
from contexture.models.primitives import FeedForward, Slots, add, divide, move, multiply, pieces, together
from contexture.models.ridge_bandits import LinUCBLayers, ThompsonLayers, fractions, root_error, root_missed
from contexture.models.updates import online_descent, online_ridge
from contexture.models.value_iteration import ValueIterationLayers

SLOTS = Slots(here=3, one=1, a=2, b=2, c=2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(a: Tensor, b: Tensor) -> Tensor:
    return SLOTS.fill(1, 3, here=torch.eye(3), one=1.0, a=a, b=b)


def test_products_and_quotients_by_hand() -> None:
    h = tokens(torch.tensor([3.0, 5.0]), torch.tensor([-2.0, 4.0]))
    multiplied = multiply(SLOTS.rows("a"), SLOTS.rows("b"), SLOTS.rows("c"))(h)
    divided = divide(SLOTS.rows("a"), SLOTS.rows("b")[1], SLOTS.rows("c"))(h)
    for said, wanted in ((multiplied, [-6.0, 20.0]), (divided, [0.75, 1.25])):
        torch.testing.assert_close(said[0, 0, SLOTS["c"]], torch.tensor(wanted, dtype=torch.float64), rtol=1e-8, atol=0)
        torch.testing.assert_close(said[..., : SLOTS["c"].start], h[..., : SLOTS["c"].start])


def test_networks_side_by_side_do_what_they_do_alone() -> None:
    h = tokens(normal(2), normal(2, seed=1))
    first, second = add(SLOTS.rows("a"), SLOTS.rows("c")), multiply(*(SLOTS.rows(name) for name in "abc"))
    torch.testing.assert_close(together(first, second)(h), first(h) + second(h) - h)
    with pytest.raises(InputError, match="without a norm"):
        together(first, divide(SLOTS.rows("a"), SLOTS.rows("one")[0], SLOTS.rows("c")))


def test_moving_copies_one_token_to_all_and_itself_to_itself() -> None:
    h = SLOTS.fill(1, 3, here=torch.eye(3), one=1.0, a=torch.arange(6.0).view(3, 2))
    moved = move(SLOTS, [(2, SLOTS.rows("a"), SLOTS.rows("b")), (None, SLOTS.rows("a"), -SLOTS.rows("a"))])(h)
    torch.testing.assert_close(moved[0, :, SLOTS["b"]], torch.tensor([[4.0, 5.0]] * 3, dtype=torch.float64))
    assert moved[..., SLOTS["a"]].abs().max() < 1e-12


def test_an_unknown_slot_is_named() -> None:
    with pytest.raises(InputError, match="no slot 'd'"):
        SLOTS["d"]


def test_layers_are_plain_matrices() -> None:
    layer = multiply(SLOTS.rows("a"), SLOTS.rows("b"), SLOTS.rows("c"))
    h = tokens(normal(2), normal(2, seed=1))
    by_hand = h + torch.nn.functional.gelu(h @ layer.into.mT) @ layer.out
    assert isinstance(layer, FeedForward)
    assert torch.equal(layer(h), by_hand)


@pytest.mark.parametrize("num_queries", [1, 3])
def test_layers_that_update_an_inverse_are_ridge_regression(num_queries: int) -> None:
    x, y, queries = normal(4, 7, 3), normal(4, 7, seed=1), normal(4, num_queries, 3, seed=2)
    model = online_ridge(3, num_examples=7, penalty=0.5, num_queries=num_queries)
    assert model.num_layers == 3 * 7 + 2
    said = model.read_outs(x, y, queries)
    for n in (1, 4, 7):
        weights = Ridge(penalty=0.5).weights(x[:, :n], y[:, :n])
        wanted = (queries @ weights.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(said[n - 1], wanted, rtol=1e-5, atol=1e-6)


def test_layers_that_descend_take_one_step_for_each_example() -> None:
    # w = 0, then 0.5 (2 - 0) 1 = 1, then 1 + 0.5 (3 - 2) 2 = 2.
    x, y = torch.tensor([[[1.0], [2.0]]]).double(), torch.tensor([[2.0, 3.0]]).double()
    said = online_descent(1, num_examples=2, rate=0.5).read_outs(x, y, torch.ones(1, 1, 1).double())
    torch.testing.assert_close(torch.cat(said).flatten(), torch.tensor([1.0, 2.0]).double(), rtol=1e-8, atol=0)


@pytest.mark.parametrize(("attention", "layers", "tolerance"), [("relu", 6, 1e-8), ("softmax", 7, 1e-3)])
def test_a_transformer_trains_a_network_as_automatic_differentiation_does(
    attention: str, layers: int, tolerance: float
) -> None:
    widths, rate = (2, 3, 3, 1), 0.1
    x, y, queries = normal(2, 5, 2), normal(2, 5, seed=1), normal(2, 4, 2, seed=2)
    start = [normal(after, before, seed=3 + before) for before, after in pairwise(widths)]
    model = NetworkDescent(widths=widths, num_examples=5, num_queries=4, rate=rate, attention=attention)  # type: ignore[arg-type]
    assert len(model.layers()) == layers
    said = model.read_outs(start, x, y, queries, num_steps=2)[-1]
    for episode in range(2):
        matrices = [matrix.clone().requires_grad_(True) for matrix in start]
        for _ in range(2):
            loss = (network(matrices, x[episode]) - y[episode]).square().mean() / 2
            slopes = torch.autograd.grad(loss, matrices)
            matrices = [(m - rate * s).detach().requires_grad_(True) for m, s in zip(matrices, slopes, strict=True)]
        wanted = network(matrices, queries[episode]).detach()
        torch.testing.assert_close(said[episode], wanted, rtol=tolerance, atol=tolerance)


def network(matrices: list[Tensor], x: Tensor) -> Tensor:
    for matrix in matrices[:-1]:
        x = (x @ matrix.mT).relu()
    return (x @ matrices[-1].mT).squeeze(-1)


def cosine_map() -> CosineMap:
    return CosineMap(directions=normal(3, 4, 6), phases=normal(3, 4, seed=1), amplitudes=normal(3, 4, seed=2))


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_one_layer_interpolates_with_the_square_of_the_interval() -> None:
    target, x = cosine_map(), uniform(64, 3, 2)
    errors = [
        float((interpolate(target, num_features=2, intervals=n)(x) - target(x)).abs().amax()) for n in (16, 32, 64)
    ]
    assert errors[2] < 0.01
    for wide, narrow in pairwise(errors):
        assert 3 < wide / narrow < 5.5
    assert interpolate(target, num_features=2, intervals=16).hidden == 3 * 4 * 16 + 3


def test_the_mean_given_ones_own_input_is_that_of_many_sequences() -> None:
    target = cosine_map()
    x = uniform(200_000, 3, 2)
    x[:, 1] = torch.tensor([0.3, 0.8], dtype=torch.float64)
    told = target.given_own(2)(x[:1])[0, 1]
    assert abs(float(target(x)[:, 1].mean() - told)) < 0.02


def test_a_fitted_layer_needs_attention_to_take_a_maximum() -> None:
    x = uniform(2048, 2, 1)
    wanted = x.squeeze(-1).amax(1, keepdim=True).expand(-1, 2)
    errors = {
        copies: float(
            (fit(x, wanted, units=32, generator=torch.Generator().manual_seed(1), copies=copies)(x) - wanted)
            .square()
            .mean()
        )
        for copies in (True, False)
    }
    assert errors[True] < 0.1 * errors[False]


def test_pieces_are_straight_between_knots_and_level_below() -> None:
    knots, values = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([5.0, 7.0, 3.0])
    layer = pieces(SLOTS.rows("one"), SLOTS.rows("c")[:1], knots=knots, values=values)
    h = SLOTS.fill(1, 3, one=torch.tensor([[0.0], [1.5], [5.0]]))
    assert layer(h)[0, :, SLOTS["c"].start].tolist() == [5.0, 6.0, 1.0]


def test_fractions_miss_the_root_by_what_theory_says() -> None:
    at = torch.linspace(1, 16, 1000, dtype=torch.float64)
    for count in (1, 2, 4):
        said = sum(weight / (at + shift) for shift, weight in fractions(count, least=1.0, largest=16.0))
        assert float((said * at.sqrt() - 1).abs().amax()) == pytest.approx(root_error(count, least=1.0, largest=16.0))
    assert root_error(2, least=1.0, largest=16.0) == pytest.approx(2 / 82)  # q = 1/3
    assert root_missed(2, least=1.0, largest=16.0) == pytest.approx(2 / 82)
    # Made for numbers near 1, one fraction 2 / (a + 1) is off by 2 * 4 / 17 - 1 at 16.
    assert root_missed(1, least=1.0, largest=16.0, scaled_to=1.0) == pytest.approx(9 / 17)


def test_layers_are_lin_ucb_and_thompson_sampling() -> None:
    bandit = LinearBandit(num_arms=3, dim=2)
    arms = bandit.arms.double()
    longest = float(arms.square().sum(1).amax())
    ucb, thompson = LinUCB(bandit, width=0.5, ridge=2.0), LinearThompson(bandit)
    played = roll_out(ucb, bandit, worlds=4, steps=9, seed=0)
    x, r = arms[played.actions[:, :-1]], played.rewards[:, :-1].double()
    shape = {"dim": 2, "num_arms": 3, "largest": 8 * longest}
    every = arms.expand(4, -1, -1)
    layers = LinUCBLayers(**shape, ridge=2.0, width=0.5, longest=longest, num_pieces=1000)  # type: ignore[arg-type]
    early, late = (said[:, 0] for said in layers.read_outs(x, r, every, iterations=(5, 100)))
    wanted = ucb.bounds(list(states_along(ucb, played))[-1])
    torch.testing.assert_close(late, wanted, rtol=0, atol=0.5 * (longest / 2) ** 0.5 / 4000)
    assert float((early - wanted).abs().amax()) > 0.01
    on_matrices = layers.without_tokens(x, r, arms, iterations=(5, 100))
    for said, same in zip(on_matrices, (early, late), strict=True):
        torch.testing.assert_close(said, same, rtol=0, atol=0.5 * (longest / 2) ** 0.5 / 4000)
    draws = normal(4, 5, 2)
    drawing = ThompsonLayers(**shape, ridge=thompson.prior, noise=bandit.noise, num_fractions=12)  # type: ignore[arg-type]
    (said,) = drawing.read_outs(x, r, every, draws, iterations=(200,))
    drawn = thompson.drawn(list(states_along(thompson, played))[-1], draws.transpose(0, 1)).transpose(0, 1)
    torch.testing.assert_close(said, drawn, rtol=0, atol=1e-5)


def test_layers_plan_as_ucb_vi_at_every_step() -> None:
    process = TabularMDP(num_states=3, num_actions=3, horizon=2)
    agent = UCBVI(process, width=0.4)
    played = roll_out(agent, process, worlds=2, steps=13, seed=1)
    layers = ValueIterationLayers(num_states=3, num_actions=3, horizon=2, num_tokens=13, width=0.4)
    assert layers.num_layers == 3 * 2 + 4
    said = layers.values(process.states(played.observations), played.actions, played.rewards, played.starts)
    wanted = torch.stack([state.values for state in states_along(agent, played)], 1)
    torch.testing.assert_close(said, wanted, rtol=0, atol=1e-10)
    torch.testing.assert_close(planned_values(agent, played), wanted, rtol=0, atol=1e-12)
