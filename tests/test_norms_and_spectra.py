"""Where norms stand, normed heads, spectral norms of linear maps, and how spread attention is."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from contexture.blocks.hybrid_norm import HybridNormBlock
from contexture.blocks.post_norm import PostNormBlock
from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.leaves.spectral_linear import SpectralLinear
from contexture.mixers.softmax import SoftmaxAttention
from contexture.models.backbone import Backbone, BackboneConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.probes.attention import attention_scores, entropy, least_entropy, relative_entropy
from contexture.tasks.linear_regression import LinearRegression
from contexture.training.cohort import stack, unstack
from contexture.training.config import TaskChoice, TrainingConfig
from contexture.training.loop import Trainer

FP64 = torch.float64
SHAPE = {"pattern": "softmax*2", "width": 8, "num_heads": 2, "expansion": 2.0}
NORMED = {"softmax": {"qkv_norm": True}}
CONFIGS = {
    "post": BackboneConfig(**SHAPE, residual="post-norm"),
    "hybrid": BackboneConfig(**SHAPE, residual="hybrid-norm", settings=NORMED),
    "spectral": BackboneConfig(**SHAPE, residual="post-norm", maps="spectral"),
}


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def diagonal(first, second):
    """A map that scales two entries."""
    plain = Linear(2, 2, generator=fresh())
    with torch.no_grad():
        plain.weight.copy_(torch.tensor([[first, 0.0], [0.0, second]]))
    return plain


class Doubling(nn.Module):
    """Stands for a mixer or a network: twice what comes in."""

    def forward(self, x, *, segments=None):
        return 2 * x


class Halving(nn.Module):
    """Stands for a norm: half of what comes in."""

    def forward(self, x):
        return x / 2


def test_a_post_norm_block_norms_each_sum():
    block = PostNormBlock(mixer=Doubling(), feed_forward=Doubling(), norms=(Halving(), Halving()))
    # 4 + 8 = 12, halved 6;  6 + 12 = 18, halved 9
    assert block(torch.full((1, 1, 1), 4.0)).item() == 9.0


def test_a_hybrid_norm_block_norms_once_what_the_network_takes_and_what_passes_it_by():
    block = HybridNormBlock(mixer=Doubling(), feed_forward=Doubling(), norm=Halving())
    # 4 + 8 = 12, halved 6;  6 + 12 = 18
    assert block(torch.full((1, 1, 1), 4.0)).item() == 18.0


@pytest.mark.parametrize("name", CONFIGS)
def test_a_backbone_streams_and_skips_as_it_runs_whole(name):
    model = Backbone(CONFIGS[name], generator=fresh()).to(FP64).eval()
    x = torch.randn(2, 9, 8, generator=fresh(1), dtype=FP64)
    whole = model(x)
    state, parts = model.init_state(2, device="cpu", dtype=FP64), []
    for part in torch.split(x, [4, 1, 4], 1):
        out, state = model.stream(part, state)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model(x, every=2), whole[:, ::2], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_cohort_trains_as_its_members_do(name):
    model = PairsModelConfig(num_features=2, backbone=CONFIGS[name])
    config = TrainingConfig(
        task=TaskChoice(name="linear-regression", settings={"num_features": 2, "num_points": 4}),
        model=model,
        steps=3,
        batch=4,
        block=4,
        precision="fp64",
    )
    configs = [replace(config, seed=seed) for seed in range(2)]
    both = Trainer(configs)
    alone = Trainer(configs[1:])
    for step in range(3):
        both.step(step)
        alone.step(step)
    member = both.plain_models()[1]
    for name_, value in alone.model.named_parameters():
        torch.testing.assert_close(dict(member.named_parameters())[name_], value, rtol=1e-8, atol=1e-10)


def test_other_layers_take_their_norms_before():
    with pytest.raises(InputError, match="use 'pre-norm'"):
        Backbone(BackboneConfig(pattern="softmax+none", residual="post-norm"), generator=fresh())
    with pytest.raises(InputError, match="there are pre-norm, post-norm, hybrid-norm"):
        Backbone(BackboneConfig(residual="sandwich"), generator=fresh())


def test_configurations_survive_plain_values():
    config = PairsModelConfig(num_features=2, backbone=CONFIGS["hybrid"])
    assert PairsModelConfig(**asdict(config)) == config


def test_normed_heads_do_not_mind_the_size_of_their_input():
    mixer = SoftmaxAttention(8, num_heads=2, generator=fresh(), qkv_norm=True).to(FP64)
    x = torch.randn(1, 5, 8, generator=fresh(1), dtype=FP64)
    torch.testing.assert_close(mixer(100 * x), mixer(x), rtol=1e-4, atol=1e-4)
    assert mixer.scores(x)[..., -1, :].abs().max() <= mixer.dim**0.5 + 1e-9


def test_scores_are_what_the_mixer_weighs_by():
    mixer = SoftmaxAttention(8, num_heads=2, generator=fresh()).to(FP64)
    x = torch.randn(2, 5, 8, generator=fresh(1), dtype=FP64)
    values = torch.unflatten(mixer.projection(x), -1, (3, 2, 4))[:, :, 2]
    by_hand = torch.einsum("bhqk,bkhd->bqhd", mixer.scores(x).softmax(-1), values)
    torch.testing.assert_close(mixer.output(by_hand.flatten(2)), mixer(x))


def test_a_map_gets_the_spectral_norm_of_its_scalar():
    leaf = SpectralLinear.of(diagonal(4.0, 2.0))
    torch.testing.assert_close(leaf.weight.detach(), torch.tensor([[1.0, 0.0], [0.0, 0.5]]))
    with torch.no_grad():
        leaf.factor.fill_(3.0)
    out = leaf.eval()(torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(out.detach(), torch.tensor([3.0, 1.5]))


def test_a_turn_of_the_kept_vectors_is_one_power_iteration():
    leaf = SpectralLinear.of(diagonal(4.0, 2.0))
    with torch.no_grad():
        leaf.right.copy_(torch.tensor([0.6, 0.8]))
    leaf.train()(torch.zeros(2))
    # W v = (2.4, 1.6), W' u ~ (9.6, 3.2)
    torch.testing.assert_close(leaf.left.detach(), torch.tensor([3.0, 2.0]) / 13**0.5)
    torch.testing.assert_close(leaf.right.detach(), torch.tensor([3.0, 1.0]) / 10**0.5)
    before = leaf.right.detach().clone()
    leaf.eval()(torch.zeros(2))
    assert torch.equal(leaf.right, before)


def test_no_gradient_follows_the_size_of_the_raw_weight():
    leaf = SpectralLinear(5, 3, generator=fresh()).to(FP64)
    leaf(torch.randn(4, 5, generator=fresh(1), dtype=FP64)).square().sum().backward()
    assert leaf.raw.grad is not None
    assert (leaf.raw.grad * leaf.raw).sum().abs() < 1e-9
    assert leaf.left.grad is None
    assert leaf.factor.grad is not None
    assert leaf.factor.grad.abs() > 0


def test_spectral_maps_leave_a_cohort_as_they_came():
    maps = [SpectralLinear(5, 3, generator=fresh(seed)) for seed in range(3)]
    cohort, x = stack(maps), torch.randn(6, 5, generator=fresh(4))
    together = cohort.eval()(x)
    torch.testing.assert_close(together, torch.cat([one.eval()(x[2 * k : 2 * k + 2]) for k, one in enumerate(maps)]))
    assert torch.equal(unstack(cohort, 2).left, maps[2].left)


def test_entropy_by_hand():
    assert entropy(torch.tensor([0.0, -torch.inf])).item() == 0.0
    torch.testing.assert_close(entropy(torch.tensor([0.75, 0.25]).log()), torch.tensor(0.562335, dtype=FP64))
    table = torch.tensor([[0.0, -torch.inf], [3**0.5, -(3**0.5)]])
    assert relative_entropy(table).shape == (1,)


def test_the_least_entropy_is_that_of_one_key_above_the_others():
    row = torch.tensor([3.0, -1.0, -1.0, -1.0], dtype=FP64)
    torch.testing.assert_close(least_entropy(row.norm(), 4), entropy(row))
    others = torch.randn(1000, 4, generator=fresh(), dtype=FP64)
    others = row.norm() * others / others.norm(dim=1, keepdim=True)
    assert (entropy(others) >= least_entropy(row.norm(), 4)).all()


def test_scores_of_every_layer_are_found():
    model = PairsModel(PairsModelConfig(num_features=2, backbone=CONFIGS["post"]), generator=fresh())
    drawn = LinearRegression(num_features=2, num_points=4).sample(3, generator=fresh(1))
    found = attention_scores(model, drawn)
    assert [tuple(scores.shape) for scores in found] == [(3, 2, 8, 8)] * 2
    assert not any(module._forward_pre_hooks for module in model.modules())
