"""Gates around steps, blocks that hold them, and learning from rewards with an actor and a critic."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from contexture.blocks.gated import GatedBlock
from contexture.blocks.gates import GATES
from contexture.blocks.post_norm import PostNormBlock
from contexture.environments.memory_length import MemoryLength
from contexture.environments.t_maze import TMaze
from contexture.errors import InputError
from contexture.models.actor_critic import ActorCritic
from contexture.models.backbone import Backbone, BackboneConfig
from contexture.models.decisions import DecisionModelConfig
from contexture.randomness import generator
from contexture.training.actor_critic import ActorCriticConfig, ActorCriticTrainer, Played
from contexture.training.config import OptimiserConfig

WAYS = ("post-norm", *GATES)


def set_to(gate: torch.nn.Module, value: float) -> None:
    """Every weight of a gate of width 1; biases stay."""
    for name, parameter in gate.named_parameters():
        if name.endswith("weight"):
            parameter.data.fill_(value)


def test_gates_by_hand() -> None:
    x, y = torch.tensor([[[2.0]]], dtype=torch.float64), torch.tensor([[[3.0]]], dtype=torch.float64)

    def s(value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64).sigmoid()

    kept = s(0.5 * 3 + 0.5 * 2) * 2
    new = (0.5 * 3 + 0.5 * kept).tanh()
    opened = s(0.5 * 3 + 0.5 * 2 - 1)
    expected = {
        "sum": 5.0,
        "input": s(0.5 * 2 + 1) * 2 + 3,
        "output": 2 + s(0.5 * 2 - 1) * 3,
        "highway": s(0.5 * 2 + 1) * 2 + (1 - s(0.5 * 2 + 1)) * 3,
        "sigmoid-tanh": 2 + s(0.5 * 3 - 1) * torch.tensor(1.5, dtype=torch.float64).tanh(),
        "gru": (1 - opened) * 2 + opened * new,
    }
    assert set(expected) == set(GATES)
    for name, wanted in expected.items():
        gate = GATES[name](1, bias=1.0, generator=generator(0)).double()
        set_to(gate, 0.5)
        assert gate(x, y).item() == pytest.approx(float(wanted), abs=1e-12), name


@pytest.mark.parametrize("name", ["output", "highway", "sigmoid-tanh", "gru"])
def test_a_gate_of_a_large_bias_passes_its_input_on(name: str) -> None:
    x, y = torch.randn(2, 3, 4, 8, generator=generator(0)).unbind(0)
    gate = GATES[name](8, bias=60.0, generator=generator(1))
    assert torch.allclose(gate(x, y), x, atol=1e-6)
    assert not torch.allclose(GATES[name](8, bias=0.0, generator=generator(1))(x, y), x, atol=1e-2)


@pytest.mark.parametrize("way", WAYS)
def test_a_backbone_of_such_blocks_streams_and_every_parameter_learns(way: str) -> None:
    config = BackboneConfig(pattern="softmax delta-rule", width=8, num_heads=2, residual=way)  # type: ignore[arg-type]
    model = Backbone(config, generator=generator(way)).double()
    x = torch.randn(2, 7, 8, generator=generator(0), dtype=torch.float64)
    whole = model(x)
    assert torch.allclose(model(x, every=3), whole[:, ::3])
    state = model.init_state(2, device="cpu", dtype=torch.float64)
    parts = []
    for part in (x[:, :2], x[:, 2:3], x[:, 3:]):
        out, state = model.stream(part, state)
        parts.append(out)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-10)
    whole.square().mul(torch.randn(whole.shape, generator=generator(1), dtype=torch.float64)).sum().backward()
    assert all(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in model.parameters())


def test_where_norms_and_gates_stand() -> None:
    x = torch.randn(1, 3, 8, generator=generator(0))

    def block(way: str) -> torch.nn.Module:
        config = BackboneConfig(pattern="softmax", width=8, num_heads=2, residual=way)  # type: ignore[arg-type]
        return Backbone(config, generator=generator(1)).blocks[0]

    plain, gated = block("post-norm"), block("sum")
    assert isinstance(plain, PostNormBlock)
    assert isinstance(gated, GatedBlock)
    between = plain.mixer_norm(x + plain.mixer(x))
    assert torch.equal(plain(x), plain.feed_forward_norm(between + plain.feed_forward(between)))
    between = x + gated.mixer(gated.mixer_norm(x)).relu()
    assert torch.equal(gated(x), between + gated.feed_forward(gated.feed_forward_norm(between)).relu())


def test_ways_that_do_not_exist_or_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="there are pre-norm, post-norm, hybrid-norm, sum, input"):
        BackboneConfig(residual="lstm")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one mixer and one feed-forward network"):
        Backbone(BackboneConfig(pattern="softmax+none", residual="gru"), generator=generator(0))


def config(environment: MemoryLength | TMaze, **settings: object) -> ActorCriticConfig:
    backbone = BackboneConfig(pattern="softmax", width=16, num_heads=2, residual="gru")
    shape = DecisionModelConfig(
        num_actions=environment.num_actions, num_features=environment.num_features, backbone=backbone
    )
    return replace(ActorCriticConfig(model=shape, worlds=8), **settings)  # type: ignore[arg-type]


class Said(torch.nn.Module):
    """A model that gives every action the same score, and values that are told."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def judge(self, *steps: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(*self.values.shape, 2), self.values


def test_the_loss_by_hand() -> None:
    trainer = ActorCriticTrainer(MemoryLength(), [config(MemoryLength(), discount=0.5, entropy=0.1, value=0.25)])
    trainer.model = Said(torch.tensor([[0.5, 1.0, 9.0]]))  # type: ignore[assignment]
    shape = torch.zeros(1, 3)
    alive = torch.tensor([[True, True, False]])
    played = Played(shape.unsqueeze(2), shape.long(), torch.tensor([[0.0, 2.0, 0.0]]), shape.bool(), alive)
    # Returns 1 and 2 over values 0.5 and 1: log 2 (0.5 + 1) / 2 + 0.25 (0.25 + 1) / 2 - 0.1 log 2
    half = torch.tensor(2.0).log()
    assert trainer.losses(played).item() == pytest.approx(float(half * 0.75 + 0.15625 - 0.1 * half), abs=1e-6)


def test_steps_after_the_end_are_not_played() -> None:
    maze = TMaze(length=1, horizon=6)
    played = ActorCriticTrainer(maze, [config(maze, worlds=64)]).play(0)
    lasts = played.alive.sum(1)
    assert int(lasts.min()) < 6
    turned = played.actions.gather(1, lasts.unsqueeze(1) - 1).squeeze(1) >= 2
    assert bool(turned[lasts < played.alive.shape[1]].all())
    assert bool((played.rewards[~played.alive] == 0).all())


def test_a_member_of_a_cohort_learns_as_it_does_alone() -> None:
    memory = MemoryLength(length=2)
    first = config(memory)
    second = replace(first, seed=1, optimiser=OptimiserConfig(rate=3e-3))
    both, alone = ActorCriticTrainer(memory, [first, second]), ActorCriticTrainer(memory, [second])
    for update in range(3):
        assert torch.equal(both.step(update)[1], alone.step(update)[0])
    model, own = both.plain_models()[1], alone.plain_models()[0]
    for name, value in model.state_dict().items():
        assert torch.allclose(value, own.state_dict()[name], atol=1e-5), name
    with pytest.raises(InputError, match="more than seed and optimiser"):
        ActorCriticTrainer(memory, [first, replace(first, worlds=9)])


def test_it_learns_to_remember() -> None:
    memory = MemoryLength(length=3)
    trainer = ActorCriticTrainer(memory, [config(memory, worlds=32, optimiser=OptimiserConfig(rate=1e-2))])
    earned = torch.stack([trainer.step(update).mean() for update in range(120)])
    assert float(earned[-20:].mean()) > 0.9  # guessing earns nothing
    assert isinstance(trainer.plain_models()[0], ActorCritic)
