"""Looped backbones: turns, windows, trajectories, streaming, cohorts and configurations."""

from dataclasses import asdict, replace

import pytest
import torch

from contexture.errors import InputError
from contexture.models.backbone import BackboneConfig
from contexture.models.elastic import ElasticBackbone, ElasticConfig, drawn_steps, even_steps
from contexture.models.looped import LoopedBackbone, LoopedConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.probes.hidden import hidden_states
from contexture.tasks.linear_regression import LinearRegression
from contexture.training.config import TaskChoice, TrainingConfig
from contexture.training.loop import Trainer

FP64 = torch.float64
INNER = BackboneConfig(pattern="softmax delta-rule", width=8, num_heads=2, expansion=2.0)
CONFIGS = {
    "looped": LoopedConfig(backbone=INNER, loops=3, window=2),
    "without injection": LoopedConfig(backbone=INNER, loops=3, window=2, injection=False),
    "elastic": ElasticConfig(backbone=INNER, loops=4),
}


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def vectors(batch=2, time=9):
    return torch.randn(batch, time, 8, generator=fresh(1), dtype=FP64)


def model(name, seed=0):
    built = PairsModel(PairsModelConfig(num_features=3, backbone=CONFIGS[name]), generator=fresh(seed)).to(FP64)
    if name == "elastic":
        # Gates start at zero, which would make the blocks the identity.
        for modulation in built.backbone.modulations:
            with torch.no_grad():
                modulation.weight.normal_(generator=fresh(seed + 7))
    return built


def episodes(batch=4, time=6):
    x = torch.randn(batch, time, 3, generator=fresh(1), dtype=FP64)
    return x, x.sum(-1).sin()


@pytest.mark.parametrize("name", CONFIGS)
def test_looped_models_stream_and_answer_queries_as_they_run_whole(name):
    built, (x, y) = model(name).eval(), episodes()
    whole, state = built(x, y).mean, built.init_state(4, device="cpu", dtype=FP64)
    first, state = built.stream(x[:, :4], y[:, :4], state)
    query = built.read(x[:, 4:5], state).mean
    second, _ = built.stream(x[:, 4:], y[:, 4:], state)
    torch.testing.assert_close(torch.cat((first.mean, second.mean), 1), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(query, whole[:, 4:5], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_looped_cohort_trains_as_its_members_do(name):
    config = TrainingConfig(
        task=TaskChoice(name="linear-regression", settings={"num_features": 3, "num_points": 4}),
        model=PairsModelConfig(num_features=3, backbone=CONFIGS[name]),
        steps=3,
        batch=4,
        block=4,
        precision="fp64",
    )
    configs = [replace(config, seed=seed) for seed in range(2)]
    both, alone = Trainer(configs), Trainer(configs[1:])
    for step in range(3):
        both.step(step)
        alone.step(step)
    member = dict(both.plain_models()[1].named_parameters())
    for parameter, value in alone.model.named_parameters():
        torch.testing.assert_close(member[parameter], value, rtol=1e-8, atol=1e-10)
    assert TrainingConfig.from_json(config.to_json()) == config


def test_the_input_enters_at_every_turn():
    looped = LoopedBackbone(CONFIGS["looped"], generator=fresh()).to(FP64)
    x, inner = vectors(), looped.inner
    by_hand = inner(inner(inner(x) + x) + x)
    torch.testing.assert_close(looped(x), by_hand)
    bare = LoopedBackbone(CONFIGS["without injection"], generator=fresh()).to(FP64)
    torch.testing.assert_close(bare(x), inner(inner(inner(x))))


def test_more_loops_may_be_read_than_were_trained():
    looped, x = LoopedBackbone(CONFIGS["looped"], generator=fresh()).to(FP64), vectors()
    found = looped.read_outs(x, loops=5, every=2)
    assert len(found) == 5
    torch.testing.assert_close(found[2], looped(x, every=2))
    looped.loops = 5
    torch.testing.assert_close(found[4], looped(x, every=2))


def test_a_lesson_is_the_last_turns_and_no_gradient_goes_further_back():
    looped, x = LoopedBackbone(CONFIGS["looped"], generator=fresh()).to(FP64), vectors().requires_grad_()
    lesson = looped.lesson(x, every=1, generator=fresh())
    assert lesson.weights == (0.5, 0.5)
    read = looped.read_outs(x, loops=3)
    torch.testing.assert_close(lesson.hidden[0], read[1])
    torch.testing.assert_close(lesson.hidden[1], read[2])
    (slope,) = torch.autograd.grad(lesson.hidden[0].square().sum(), x)
    z = read[0].detach()
    (by_hand,) = torch.autograd.grad(looped.inner(z + x).square().sum(), x)
    torch.testing.assert_close(slope, by_hand)


def test_trajectories_sum_to_the_full_one():
    assert even_steps(4, 8) == (2, 2, 2, 2)
    assert even_steps(1, 8) == (8,)
    assert even_steps(5, 8) == (2, 1, 2, 1, 2)
    drawn = [drawn_steps(5, generator=fresh(seed)) for seed in range(200)]
    assert {sum(steps) for steps in drawn} == {5}
    assert {len(steps) for steps in drawn} == {1, 2, 3, 4}
    assert all(step > 0 for steps in drawn for step in steps)
    assert len({steps for steps in drawn if len(steps) == 2}) == 4


def test_an_elastic_backbone_starts_as_its_norm_and_is_told_the_time():
    elastic, x = ElasticBackbone(CONFIGS["elastic"], generator=fresh()).to(FP64), vectors()
    torch.testing.assert_close(elastic(x), elastic.inner.norm(x))
    for modulation in elastic.modulations:
        with torch.no_grad():
            modulation.weight.normal_(generator=fresh(3))
    # Two trajectories of as many steps differ by what the blocks are told alone.
    assert (elastic.along(x, (1, 3)) - elastic.along(x, (3, 1))).abs().max() > 1e-3
    deaf = ElasticBackbone(replace(CONFIGS["elastic"], conditioned=False), generator=fresh()).to(FP64)
    deaf.load_state_dict(elastic.state_dict())
    torch.testing.assert_close(deaf.along(x, (1, 3)), deaf.along(x, (3, 1)))
    elastic.steps = (2, 2)
    torch.testing.assert_close(elastic(x), elastic.along(x, (2, 2)))


def test_consistency_pulls_the_shorter_trajectory_towards_the_full_one():
    elastic = model("elastic").backbone
    lesson = elastic.lesson(vectors(), every=2, generator=fresh())
    assert lesson.weights == (1.0, 0.1)
    full, shorter = lesson.hidden
    torch.testing.assert_close(lesson.penalty, 0.1 * (shorter - full).square().mean(-1))
    fixed = ElasticBackbone(replace(CONFIGS["elastic"], short=0.0, consistency=0.0), generator=fresh()).to(FP64)
    assert fixed.lesson(vectors(), every=1, generator=fresh()).weights == (1.0,)


def test_configurations_survive_plain_values_and_say_what_is_amiss():
    for config in CONFIGS.values():
        held = PairsModelConfig(num_features=3, backbone=config)
        assert PairsModelConfig(**asdict(held)) == held
    with pytest.raises(InputError, match="window of 4"):
        LoopedConfig(loops=3, window=4)
    with pytest.raises(InputError, match="at least two loops"):
        ElasticConfig(loops=1)
    with pytest.raises(InputError, match="pre-norm layers"):
        ElasticBackbone(ElasticConfig(backbone=replace(INNER, residual="post-norm")), generator=fresh())


def test_what_needs_layers_or_interleaved_pairs_says_so():
    shifted = PairsModel(
        PairsModelConfig(num_features=3, form="shifted", backbone=CONFIGS["looped"]), generator=fresh()
    ).to(FP64)
    with pytest.raises(InputError, match="interleaved"):
        shifted.lesson(*episodes(), generator=fresh())
    drawn = LinearRegression(num_features=3, num_points=4).sample(2, generator=fresh())
    with pytest.raises(InputError, match="layer by layer"):
        hidden_states(model("looped"), drawn)
