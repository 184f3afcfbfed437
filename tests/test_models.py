"""Backbones and models: patterns, forms of pairs, streaming, cohorts, and configurations that JSON can hold."""

import json
from dataclasses import asdict

import pytest
import torch

from contexture import ops
from contexture.errors import InputError
from contexture.leaves.embedding import Embedding
from contexture.leaves.linear import Linear
from contexture.leaves.norm import LayerNorm, RMSNorm
from contexture.models.backbone import Backbone, BackboneConfig, layers
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.models.state import map_state, repeat_state, state_bytes
from contexture.models.tokens import TokenModel, TokenModelConfig
from contexture.training.cohort import stack

FP64 = torch.float64
HYBRID = BackboneConfig(pattern="(delta-rule softmax) linear-attention", width=16, num_heads=2, positions="learned")
FORMS = ("interleaved", "shifted", "joint")


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs_model(seed=0, **changes):
    config = PairsModelConfig(**{"num_features": 3, "backbone": HYBRID, **changes})
    return PairsModel(config, generator=fresh(seed)).to(FP64)


def episodes(num_classes=0, batch=4, time=9):
    x = torch.randn(batch, time, 3, generator=fresh(1), dtype=FP64)
    y = torch.randint(num_classes, (batch, time), generator=fresh(2)) if num_classes else x.sum(-1).sin()
    return x, y


def said(output):
    return output.logits if output.logits is not None else output.mean


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("softmax", ("softmax",)),
        ("softmax*3", ("softmax",) * 3),
        ("(a b)*2 c", ("a", "b", "a", "b", "c")),
        ("((a b*2)*2 c)*2", ("a", "b", "b", "a", "b", "b", "c") * 2),
        ("mine.py:MyMixer*2", ("mine.py:MyMixer",) * 2),
        (("a", "b"), ("a", "b")),
    ],
)
def test_patterns(pattern, expected):
    assert layers(pattern) == expected


@pytest.mark.parametrize("pattern", ["", "(softmax", "softmax)*2", "softmax*0"])
def test_patterns_that_cannot_be_read(pattern):
    with pytest.raises(InputError, match="cannot be read"):
        layers(pattern)


def test_a_backbone_refuses_what_sees_whole_sets():
    with pytest.raises(InputError, match="'row-attention' sees whole sets"):
        Backbone(BackboneConfig(pattern="row-attention"), generator=fresh())


def test_a_backbone_names_settings_that_a_mixer_does_not_have():
    with pytest.raises(InputError, match=r"'softmax' has no setting \['rope'\]: there are positions"):
        Backbone(BackboneConfig(settings={"softmax": {"rope": True}}), generator=fresh())
    with pytest.raises(InputError, match="delta-rule"):
        BackboneConfig(settings={"delta-rule": {}})


def test_a_users_own_mixer_comes_from_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from contexture.mixers.softmax import SoftmaxAttention\n"
        "from contexture.protocols import MixerCard\n"
        "class Mine(SoftmaxAttention):\n"
        "    card = MixerCard(name='mine', summary='Mine.', state='grows', cost='quadratic')\n"
    )
    backbone = Backbone(BackboneConfig(pattern=f"{path}:Mine*2", width=8, num_heads=2), generator=fresh())
    assert [type(block.mixer).__name__ for block in backbone.blocks] == ["Mine", "Mine"]


def test_learned_positions_end_somewhere():
    model = TokenModel(TokenModelConfig(vocabulary=5, backbone=HYBRID), generator=fresh())
    ids = torch.zeros(1, 257, dtype=torch.int64)
    with pytest.raises(InputError, match="257 tokens is longer than the 256 learned positions"):
        model(ids)
    state = model.stream(ids[:, :200], model.init_state(1, device="cpu", dtype=torch.float32))[1]
    with pytest.raises(InputError, match="257 tokens"):
        model.stream(ids[:, 200:], state)


def test_a_mixer_learns_as_many_positions_as_its_model():
    pattern, settings = ("masked-mixer+none", "aft-full+none"), {"width": 8, "num_heads": 2}
    bounded = Backbone(
        BackboneConfig(pattern=pattern, positions="learned", max_length=5, **settings), generator=fresh()
    )
    assert [tuple(p.shape) for name, p in bounded.named_parameters() if "mixing" in name] == [(2, 5, 5)]
    assert {tuple(p.shape) for name, p in bounded.named_parameters() if "left" in name} == {(5, 5)}
    free = Backbone(BackboneConfig(pattern="masked-mixer+none", **settings), generator=fresh())
    assert [tuple(p.shape) for name, p in free.named_parameters() if "mixing" in name] == [(2, 1024, 1024)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_classes", [0, 3])
def test_streaming_and_reading_give_what_forward_gives(form, num_classes):
    model, (x, y) = pairs_model(form=form, num_classes=num_classes), episodes(num_classes)
    whole = said(model(x, y))
    state = model.init_state(len(x), device="cpu", dtype=FP64)
    for t in range(x.shape[1]):
        torch.testing.assert_close(said(model.read(x[:, t : t + 1], state))[:, 0], whole[:, t])
        output, state = model.stream(x[:, t : t + 1], y[:, t : t + 1], state)
        torch.testing.assert_close(said(output)[:, 0], whole[:, t])


@pytest.mark.parametrize("form", FORMS)
def test_queries_do_not_see_each_other_and_write_nothing(form):
    model, (x, y) = pairs_model(form=form), episodes()
    state = model.stream(x, y, model.init_state(len(x), device="cpu", dtype=FP64))[1]
    queries = torch.randn(len(x), 5, 3, generator=fresh(3), dtype=FP64)
    together = model.read(queries, state).mean
    apart = torch.cat([model.read(one, state).mean for one in queries.split(1, 1)], 1)
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("form", FORMS)
def test_a_prediction_depends_on_nothing_later(form):
    model, (x, y) = pairs_model(form=form), episodes()
    expected = model(x, y).mean
    changed_y = y.clone()
    changed_y[:, 4:] += 10
    torch.testing.assert_close(model(x, changed_y).mean[:, :5], expected[:, :5])
    assert not torch.allclose(model(x, changed_y).mean[:, 5:], expected[:, 5:])
    changed_x = x.clone()
    changed_x[:, 5:] += 10
    torch.testing.assert_close(model(changed_x, y).mean[:, :5], expected[:, :5])


def test_heads():
    x, y = episodes()
    gaussian = pairs_model(head="gaussian")(x, y)
    assert gaussian.mean.shape == gaussian.log_variance.shape == y.shape
    assert gaussian.logits is None
    codes = torch.zeros_like(y, dtype=torch.int64)
    assert pairs_model(num_classes=4)(x, codes).logits.shape == (*y.shape, 4)
    with pytest.raises(InputError, match="no 'gaussian' head"):
        PairsModelConfig(num_features=3, num_classes=4, head="gaussian")


@pytest.mark.parametrize("form", FORMS)
def test_a_cohort_of_models_gives_what_its_members_give(form):
    members, (x, y) = [pairs_model(seed, form=form) for seed in range(3)], episodes(batch=6)
    cohort = stack(members)
    expected = torch.cat([model(*part).mean for model, *part in zip(members, x.split(2), y.split(2), strict=True)])
    torch.testing.assert_close(cohort(x, y).mean, expected, rtol=1e-10, atol=1e-10)


def test_a_cohort_of_token_models_gives_what_its_members_give():
    config = TokenModelConfig(vocabulary=7, backbone=HYBRID)
    members = [TokenModel(config, generator=fresh(seed)).to(FP64) for seed in range(3)]
    ids = torch.randint(7, (6, 8), generator=fresh(4))
    expected = torch.cat([model(part) for model, part in zip(members, ids.split(2), strict=True)])
    torch.testing.assert_close(stack(members)(ids), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("feed_forward", ["gelu", "relu", "swiglu"])
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_every_block_stacks(feed_forward, norm):
    config = BackboneConfig(pattern="softmax", width=8, num_heads=2, feed_forward=feed_forward, norm=norm)
    members = [Backbone(config, generator=fresh(seed)).to(FP64) for seed in range(2)]
    x = torch.randn(4, 5, 8, generator=fresh(5), dtype=FP64)
    expected = torch.cat([model(part) for model, part in zip(members, x.split(2), strict=True)])
    torch.testing.assert_close(stack(members)(x), expected, rtol=1e-10, atol=1e-10)


def test_tokens_stream_and_pack():
    model = TokenModel(TokenModelConfig(vocabulary=7, backbone=HYBRID), generator=fresh()).to(FP64)
    ids = torch.randint(7, (2, 12), generator=fresh(6))
    whole = model(ids)
    first, state = model.stream(ids[:, :5], model.init_state(2, device="cpu", dtype=FP64))
    second, _ = model.stream(ids[:, 5:], state)
    torch.testing.assert_close(torch.cat((first, second), 1), whole)
    packed = torch.tensor([[0] * 5 + [1] * 7] * 2)
    torch.testing.assert_close(model(ids, segments=packed)[:, 5:], model(ids[:, 5:]))


@pytest.mark.parametrize(
    "config",
    [
        PairsModelConfig(num_features=3, num_classes=2, form="shifted", backbone=HYBRID),
        TokenModelConfig(vocabulary=7, backbone=BackboneConfig(pattern=("softmax", "delta-rule"))),
    ],
)
def test_configurations_survive_json(config):
    assert type(config)(**json.loads(json.dumps(asdict(config)))) == config


def test_the_same_generator_gives_the_same_weights():
    one, other = pairs_model().state_dict(), pairs_model().state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["embed.x.weight"], pairs_model(seed=1).state_dict()["embed.x.weight"])


def test_initial_weights_keep_the_size_of_what_passes_through():
    x = torch.randn(4096, 64, generator=fresh())
    assert Linear(64, 256, generator=fresh())(x).std().item() == pytest.approx(1, abs=0.05)
    assert Linear(64, 64, generator=fresh(), gain=0.5)(x).std().item() == pytest.approx(0.5, abs=0.05)
    assert Embedding(1000, 64, generator=fresh(), std=0.3).weight.std().item() == pytest.approx(0.3, abs=0.01)


def test_norms_by_hand():
    x = torch.tensor([[1.0, 3.0]])
    assert LayerNorm(2)(x).tolist()[0] == pytest.approx([-1, 1], abs=1e-4)
    assert RMSNorm(2)(x).tolist()[0] == pytest.approx([1 / 5**0.5, 3 / 5**0.5], abs=1e-4)


def test_states_repeat_and_are_measured():
    state = (torch.arange(2), (torch.zeros(2, 3, dtype=FP64), None))
    assert repeat_state(state, 2)[0].tolist() == [0, 0, 1, 1]
    assert state_bytes(state) == 2 * 8 + 6 * 8
    assert map_state(lambda tensor: tensor + 1, state)[0].tolist() == [1, 2]


@pytest.mark.parametrize("form", FORMS)
def test_a_model_is_one_graph(form):
    backbone = BackboneConfig(pattern="softmax", width=8, num_heads=2)
    model, (x, y) = pairs_model(form=form, backbone=backbone), episodes(batch=2, time=2)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y).mean, model(x, y).mean)


def test_autocast_is_for_projections_alone():
    config = PairsModelConfig(num_features=3, backbone=HYBRID)
    model, (x, y) = PairsModel(config, generator=fresh()), episodes()
    x, y = x.float(), y.float()
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x, y).mean
    assert half.dtype == torch.float32
    assert (half - model(x, y).mean).abs().max() < 0.1
    half.square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_reference_and_fast_paths_agree_through_a_model():
    model, (x, y) = pairs_model(), episodes()
    with ops.use("reference"):
        expected = model(x, y).mean
    torch.testing.assert_close(model(x, y).mean, expected)
