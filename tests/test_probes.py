"""Probes: what they read, where they find it, and what they cannot read."""

import torch
from torch import Tensor

from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.probes.hidden import hidden_states
from contexture.probes.pooled import PooledProbe
from contexture.tasks.linear_regression import LinearRegression


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def share_left(probe: PooledProbe, h: Tensor, targets: Tensor) -> float:
    half = len(h) // 2
    fitted = probe.fit(h[:half], targets[:half], generator=torch.Generator().manual_seed(0))
    left = (fitted(h[half:]) - targets[half:]).square().mean()
    return float(left / targets[half:].var(0).mean())


def test_a_probe_finds_the_token_that_holds_the_target() -> None:
    h = normal(1024, 5, 4, seed=0)
    assert share_left(PooledProbe(hidden=0), h, 3 * h[:, 2, :2] + 1) < 0.05


def test_a_linear_probe_does_not_read_a_square() -> None:
    h = normal(2048, 1, 2, seed=1)
    assert share_left(PooledProbe(hidden=0), h, h[:, 0].square()) > 0.9
    assert share_left(PooledProbe(hidden=32), h, h[:, 0].square()) < 0.1


def test_a_probe_does_not_read_what_is_not_there() -> None:
    assert share_left(PooledProbe(hidden=0, steps=100), normal(2048, 3, 4, seed=2), normal(2048, 2, seed=3)) > 0.9


def test_hidden_states_are_what_the_blocks_pass_on() -> None:
    config = PairsModelConfig(num_features=2, backbone=BackboneConfig(pattern="softmax*2", width=8, num_heads=2))
    model = PairsModel(config, generator=torch.Generator().manual_seed(0))
    episodes = LinearRegression(num_features=2, num_points=4).sample(3, generator=torch.Generator().manual_seed(1))
    states = hidden_states(model, episodes)
    block = model.backbone.blocks[0]
    torch.testing.assert_close(states[1], block(states[0]).detach())
    said = model.head(model.backbone.norm(states[2])).squeeze(-1)
    torch.testing.assert_close(said, model(episodes.x.float(), episodes.y.float()).mean)
    assert not model.backbone.blocks[0]._forward_hooks
