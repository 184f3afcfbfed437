"""Kernel feature maps and flow: what their weights are, by hand and beside the whole table of queries and keys."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contexture.leaves.frozen import FrozenLinear
from contexture.leaves.spectrum import Spectrum
from contexture.mixers.based import Based
from contexture.mixers.flow_attention import FlowAttention
from contexture.mixers.flowformer import Flowformer
from contexture.mixers.kernelized import Kernelized
from contexture.mixers.performer import Performer
from contexture.mixers.rebased import ReBased
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModelConfig
from contexture.ops.flow_attention import capacities, flow_attention
from contexture.ops.quadratic_attention import num_features, quadratic_attention, quadratic_features
from contexture.ops.random_features import key_features, orthogonal_directions, query_features
from contexture.testing.agreement import rms
from contexture.training.cohort import stack, unstack
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.loop import Trainer

DRAWS = 20_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def heads(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).view(1, len(rows), 1, -1)


def averaged(weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The causal average of v [batch, time, heads, out] under a table of weights [batch, heads, time, time]."""
    weights = weights.tril()
    return torch.einsum("bhts,bshe->bthe", weights / weights.sum(-1, keepdim=True), v)


def products(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bthd,bshd->bhts", q, k)


def estimates(directions: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """What each of the draws [draws, features, dim] says exp(q.k) is."""
    return (torch.exp(directions @ q - q @ q / 2) * torch.exp(directions @ k - k @ k / 2)).mean(1)


def random_features_of(seed: int, *, features: int, dim: int = 8) -> torch.Tensor:
    """Independent draws of orthogonal directions; blocks of `dim` directions are drawn one by one."""
    assert features % dim == 0
    drawn = orthogonal_directions(DRAWS * features, dim, generator=seeded(seed))
    return drawn.double().view(DRAWS, features, dim)


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    q, k = 0.3 * draw(2, 8, seed=1)
    return q, k


def test_random_features_estimate_the_exponential_without_bias(pair):
    for features in (8, 16):
        found = estimates(random_features_of(2, features=features), *pair)
        error = found.mean() - torch.exp(pair[0] @ pair[1])
        assert error.abs() < 4 * found.std() / math.sqrt(DRAWS)


def test_the_variance_falls_as_features_are_added(pair):
    few, many = (estimates(random_features_of(3, features=features), *pair).var() for features in (8, 32))
    assert 0.2 < many / few < 0.32


def test_orthogonal_features_vary_less_than_independent_ones(pair):
    true = torch.exp(pair[0] @ pair[1])
    orthogonal = estimates(random_features_of(4, features=8), *pair) - true
    independent = estimates(draw(DRAWS, 8, 8, seed=5), *pair) - true
    saved = independent.square() - orthogonal.square()
    assert saved.mean() > 3 * saved.std() / math.sqrt(DRAWS)


def test_directions_are_orthogonal_within_blocks_and_have_the_norms_of_a_gaussian():
    w = orthogonal_directions(4_000, 8, generator=seeded()).double().view(500, 8, 8)
    overlaps = w @ w.mT
    norms = torch.diagonal(overlaps, dim1=1, dim2=2)
    assert (overlaps - torch.diag_embed(norms)).abs().max() < 1e-5
    assert abs(float(norms.mean()) - 8) < 4 * 4 / math.sqrt(4_000)


def test_scales_of_features_cancel_in_a_ratio_and_none_of_them_is_zero():
    exponents = torch.tensor([[3.0, 1.0], [200.0, -500.0]])
    assert torch.allclose(query_features(exponents)[0], torch.tensor([1.0, math.exp(-2)]))
    keys = key_features(exponents, bound=torch.tensor(200.0))
    assert torch.allclose(keys[1], torch.tensor([math.exp(60), math.exp(-60)]))
    assert torch.equal(key_features(exponents[:1], bound=torch.tensor(10.0)), exponents[:1].exp())


@pytest.mark.parametrize("mixer", [Performer, Kernelized])
def test_keys_and_queries_of_any_size_leave_everything_finite(mixer):
    built = mixer(16, num_heads=2, generator=seeded())
    x = (300 * draw(1, 40, 16).float()).requires_grad_()
    out = built(x)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    # The average of a single value is that value, whatever its weight.
    _, _, v = built.heads.split(x[:, :1])
    torch.testing.assert_close(out[:, :1], built.heads.join(v))


@pytest.mark.parametrize("mixer", [Performer, Kernelized, Based, ReBased, Flowformer])
def test_mixed_precision_costs_a_per_cent_or_so(mixer):
    built, x = mixer(16, num_heads=2, generator=seeded()), draw(2, 70, 16).float()
    with torch.no_grad():
        exact = built(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = built(x)
    assert rms(rough - exact) < 0.03 * rms(exact)


def test_performer_comes_near_softmax_attention_as_features_are_added():
    x = 0.5 * draw(2, 30, 8)
    errors = []
    for features in (8, 2048):
        mixer = Performer(8, num_heads=1, num_features=features, generator=seeded(1)).double()
        q, k, v = mixer.heads.split(x)
        exact = mixer.heads.join(averaged(torch.exp(products(q, k) / math.sqrt(8)), v))
        errors.append(rms(mixer(x) - exact) / rms(exact))
    assert errors[1] < errors[0] / 4
    assert errors[1] < 0.1


def test_a_spectrum_of_one_standard_gaussian_is_the_gaussian_kernel():
    noise = random_features_of(6, features=8).flatten(0, 1).unsqueeze(0)
    spectrum = Spectrum(1, noise, generator=seeded()).double()
    with torch.no_grad():
        spectrum.mean.zero_()
    q, k = 0.3 * draw(2, 8, seed=1)
    features = [torch.exp(spectrum(x.view(1, 1, 1, -1)) - x @ x).flatten() for x in (q, k)]
    found = (features[0] * features[1]).view(DRAWS, 8).mean(1).detach()
    error = found.mean() - torch.exp(-(q - k).square().sum() / 2)
    assert error.abs() < 4 * found.std() / math.sqrt(DRAWS)


def test_kernelized_attention_is_an_average_with_its_features_weights():
    mixer = Kernelized(8, num_heads=2, generator=seeded()).double()
    with torch.no_grad():
        mixer.spectrum.logits.copy_(draw(2, 2))
        mixer.spectrum.scale.copy_(0.3 * draw(2, 2, 4))
    x = draw(2, 9, 8, seed=1)
    q, k, v = mixer.heads.split(x)
    w = mixer.spectrum.frequencies()
    shares = torch.softmax(mixer.spectrum.logits, -1).repeat_interleave(4, -1).sqrt()
    fq, fk = (
        shares * torch.exp(torch.einsum("bthd,hmd->bthm", y, w) - y.square().sum(-1, keepdim=True))
        for y in (q / 4**0.25, k / 4**0.25)
    )
    torch.testing.assert_close(mixer(x), mixer.heads.join(averaged(products(fq, fk), v)))


@given(
    dim=st.integers(1, 7),
    coefficients=st.tuples(*(st.floats(0.1, 3.0) for _ in range(3))),
    dropped=st.sampled_from([(), (0,), (1,), (0, 1)]),
    seed=st.integers(0, 100),
)
@settings(max_examples=30, deadline=None)
def test_quadratic_features_stand_for_the_polynomial(dim, coefficients, dropped, seed):
    c = tuple(0.0 if order in dropped else value for order, value in enumerate(coefficients))
    x, y = draw(2, dim, seed=seed)
    assert quadratic_features(x, c).shape == (num_features(dim, c),)
    expected = c[0] + c[1] * (x @ y) + c[2] * (x @ y) ** 2
    torch.testing.assert_close(quadratic_features(x, c) @ quadratic_features(y, c), expected)


def test_quadratic_attention_by_hand():
    q, k, v = heads([2.0, 0.0], [1.0, 1.0]), heads([1.0, 5.0], [0.0, -1.0]), heads([10.0], [1.0])
    # Products: 2; then 6 and -1. Weights 1 + z + z^2 / 2: 5; then 25 and 1/2.
    assert quadratic_attention(q, k, v)[0].flatten().tolist() == [50.0, 250.5]
    assert quadratic_attention(q, k, v, coefficients=(0.0, 0.0, 1.0))[0].flatten().tolist() == [40.0, 361.0]


def test_based_averages_with_the_exponentials_first_terms():
    mixer = Based(8, num_heads=2, key_dim=5, generator=seeded()).double()
    x = draw(2, 70, 8)
    q, k, v = mixer.heads.split(x)
    z = products(q, k) / math.sqrt(5)
    torch.testing.assert_close(mixer(x), mixer.heads.join(averaged(1 + z + z**2 / 2, v)))


def test_rebased_averages_with_learned_squares():
    mixer = ReBased(8, num_heads=2, key_dim=5, generator=seeded()).double()
    for seed, norm in enumerate((mixer.query_norm, mixer.key_norm)):
        with torch.no_grad():
            norm.weight.copy_(draw(5, seed=seed))
            norm.bias.copy_(draw(5, seed=seed + 7))
    x = draw(2, 70, 8)
    q, k, v = mixer.heads.split(x)
    normed = [(y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() for y in (q, k)]
    q = mixer.query_norm.weight * normed[0] + mixer.query_norm.bias
    k = mixer.key_norm.weight * normed[1] + mixer.key_norm.bias
    squares = (products(q, k) ** 2 / 5).tril()
    expected = torch.einsum("bhts,bshe->bthe", squares / (1e-5 + squares.sum(-1, keepdim=True)), v)
    torch.testing.assert_close(mixer(x), mixer.heads.join(expected))


def test_flow_of_two_equal_tokens_by_hand():
    # Capacities are 1/2 (and 1e-6), so that I = (1/4, 1/2), O likewise, and conserved flows are 1: sigmoid(1) of the
    # mean.
    zero = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    out, state = flow_attention(zero, zero, heads([2.0], [4.0]))
    sigmoid = 1 / (1 + math.exp(-1))
    assert out.flatten().tolist() == pytest.approx([2 * sigmoid, 3 * sigmoid])
    assert state.flows.flatten().tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


def test_causal_flow_beside_the_whole_table():
    q, k, v = (draw(2, 20, 3, 4, seed=seed) for seed in range(3))
    table = products(capacities(q), capacities(k)).tril()
    count = torch.arange(1, 21, dtype=torch.float64)
    incoming, outgoing = table.sum(-1), products(capacities(k), capacities(q)).tril().sum(-1)
    # Conserved: every sink takes one unit, whatever its query; so do the sources give one.
    received = table / incoming.unsqueeze(-1)
    torch.testing.assert_close(received.sum(-1), torch.ones_like(incoming))
    sinks = (table * (count / outgoing).unsqueeze(-2)).sum(-1) / count
    sources = (products(capacities(k), capacities(q)).tril() * (count / incoming).unsqueeze(-2)).sum(-1) / count
    weights = sources.clamp(max=1.0).exp()
    competing = count * weights / weights.cumsum(-1)
    expected = torch.sigmoid(sinks).unsqueeze(-1) * ((received * competing.unsqueeze(-2)) @ v.transpose(1, 2))
    torch.testing.assert_close(flow_attention(q, k, v)[0], expected.transpose(1, 2))
    torch.testing.assert_close(sources[..., 0], torch.ones_like(sources[..., 0]))


def test_flow_among_a_set_is_conserved_and_is_the_table_that_the_paper_writes():
    mixer = FlowAttention(8, num_heads=2, generator=seeded()).double()
    x = draw(3, 6, 8)
    q, k, v = mixer.heads.split(x)
    table = products(capacities(q), capacities(k))
    incoming, outgoing = table.sum(-1, keepdim=True), table.sum(-2, keepdim=True)
    sinks, sources = (table / outgoing).sum(-1), (table / incoming).sum(-2)
    members = torch.full((3, 2), 6.0, dtype=torch.float64)
    torch.testing.assert_close(sinks.sum(-1), members)
    torch.testing.assert_close(sources.sum(-1), members)
    weights = 6 * torch.softmax(sources, -1)
    mixed = torch.sigmoid(sinks).unsqueeze(-1) * ((table / incoming * weights.unsqueeze(-2)) @ v.transpose(1, 2))
    torch.testing.assert_close(mixer(x), mixer.heads.join(mixed.transpose(1, 2)))


def test_a_set_beside_itself_as_context_is_the_set():
    mixer, x = FlowAttention(8, num_heads=2, generator=seeded()).double(), draw(3, 6, 8)
    torch.testing.assert_close(mixer(x, context=x), mixer(x))


def test_competition_in_a_sequence_looks_at_the_past_alone():
    mixer, x = Flowformer(8, num_heads=2, generator=seeded()).double(), draw(1, 12, 8)
    state = mixer.init_state(1, device="cpu", dtype=torch.float64)
    steps = []
    for t in range(12):
        out, state = mixer.stream(x[:, t : t + 1], state)
        steps.append(out)
    torch.testing.assert_close(torch.cat(steps, 1), mixer(x))


def test_a_frozen_weight_stays_frozen_and_each_members_own():
    members = [FrozenLinear(draw(3, 2, seed=seed)) for seed in range(3)]
    cohort = stack(members)
    x = draw(6, 5, 2, seed=9)
    expected = torch.cat([member(part) for member, part in zip(members, x.split(2), strict=True)])
    torch.testing.assert_close(cohort(x), expected)
    assert not cohort.weight.requires_grad
    plain = unstack(cohort, 1)
    assert torch.equal(plain.weight, members[1].weight)
    assert not plain.weight.requires_grad


@pytest.mark.parametrize("rates", [(1e-2,), (1e-2, 3e-3)])
def test_training_saves_random_directions_and_leaves_them_alone(rates):
    config = TrainingConfig(
        task=TaskChoice(name="linear-regression", settings={"num_features": 2, "num_points": 5}),
        model=PairsModelConfig(num_features=2, backbone=BackboneConfig(pattern="performer", width=8, num_heads=2)),
        optimiser=OptimiserConfig(rate=1e-2, weight_decay=0.1),
        steps=3,
        batch=4,
        block=2,
    )
    optimisers = [replace(config.optimiser, rate=rate) for rate in rates]
    trainer = Trainer([replace(config, seed=seed, optimiser=one) for seed, one in enumerate(optimisers)])
    before = [{name: value.clone() for name, value in group.items()} for group in _weights(trainer)]
    for step in range(3):
        trainer.step(step)
    for old, new in zip(before, _weights(trainer), strict=True):
        moved = {name for name, value in new.items() if not torch.equal(value, old[name])}
        frozen = {name for name in new if "directions" in name}
        assert len(frozen) == 1
        assert moved == new.keys() - frozen


def _weights(trainer: Trainer) -> list[dict[str, torch.Tensor]]:
    return [group for name, group in trainer.tensors().items() if name.startswith("model")]
