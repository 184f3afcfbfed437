"""Hybrids: what patterns mean, and that whole models of every kind stream, pack, stack and are saved as one."""

import json
from dataclasses import asdict

import pytest
import torch

from contexture.blocks.parallel import Parallel
from contexture.errors import InputError
from contexture.mixers.linear_attention import LinearAttention
from contexture.models.backbone import Backbone, BackboneConfig
from contexture.models.hybrids import mamba_empirical, mambaformer, parallel_hybrid, zamba
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.models.pattern import layers, read
from contexture.models.state import state_bytes, tensors
from contexture.store.checkpoint import read_checkpoint, write_checkpoint
from contexture.training.cohort import stack, unstack

FP64 = torch.float64
SHAPE = {"width": 8, "num_heads": 2, "expansion": 2.0}
HYBRIDS = {
    "mambaformer": mambaformer(2, recurrent="delta-rule", **SHAPE),
    "parallel": parallel_hybrid(2, recurrent="gated-delta-rule", **SHAPE),
    "zamba": zamba(2, every=2, recurrent="delta-rule", **SHAPE),
    "mamba-empirical": mamba_empirical(8, recurrent="linear-attention", **SHAPE),
    "two shared blocks": BackboneConfig(pattern="@softmax mlp @linear-attention+softmax @softmax", **SHAPE),
    "one shared block last": BackboneConfig(pattern="linear-attention+none @softmax|delta-rule", **SHAPE),
}


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def backbone(config, seed=0):
    return Backbone(config, generator=fresh(seed)).to(FP64)


def vectors(batch=2, time=10):
    return torch.randn(batch, time, 8, generator=fresh(1), dtype=FP64)


@pytest.fixture(params=HYBRIDS)
def config(request):
    return HYBRIDS[request.param]


@pytest.mark.parametrize(
    ("layer", "steps", "shared"),
    [
        ("softmax", (("softmax",), ("mlp",)), False),
        ("softmax+mlp", (("softmax",), ("mlp",)), False),
        ("mamba-2+none", (("mamba-2",),), False),
        ("mlp", (("mlp",),), False),
        ("softmax+mamba", (("softmax",), ("mamba",)), False),
        ("softmax|mamba", (("softmax", "mamba"), ("mlp",)), False),
        ("@softmax|mamba+none", (("softmax", "mamba"),), True),
        ("mine.py:Mine+mlp+softmax", (("mine.py:Mine",), ("mlp",), ("softmax",)), False),
    ],
)
def test_layers_say_what_they_hold(layer, steps, shared):
    assert (read(layer).steps, read(layer).shared) == (steps, shared)


@pytest.mark.parametrize(
    "layer", ["", "@", "none", "softmax+", "+softmax", "softmax||mamba", "softmax|mlp", "a+none+b"]
)
def test_layers_that_mean_nothing_are_refused(layer):
    with pytest.raises(InputError, match="cannot be read"):
        read(layer)
    with pytest.raises(InputError, match="cannot be read"):
        BackboneConfig(pattern=(layer,))


def test_the_shares_of_the_empirical_hybrid():
    names = layers(mamba_empirical(recurrent="delta-rule").pattern)
    counts = {name: names.count(name) for name in set(names)}
    assert counts == {"delta-rule+none": 24, "softmax+none": 4, "mlp": 28}  # 43, 7 and 50 per cent of 56
    assert names[0] == "delta-rule+none"


def test_hybrids_that_cannot_be():
    with pytest.raises(InputError, match="even 8 or more"):
        mamba_empirical(9)
    with pytest.raises(InputError, match="at least 1"):
        zamba(0)
    with pytest.raises(InputError, match="settings for"):
        BackboneConfig(pattern="softmax|delta-rule", settings={"linear-attention": {}})


def test_streaming_gives_what_forward_gives(config):
    model, x = backbone(config), vectors()
    whole = model(x)
    for cuts in ((4, 6), (1,) * 10):
        state, outputs = model.init_state(2, device="cpu", dtype=FP64), []
        for part in x.split(cuts, 1):
            out, state = model.stream(part, state)
            outputs.append(out)
        torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-10, atol=1e-10)
    assert all(tensor.shape[0] == 2 for tensor in tensors(state))


def test_packed_sequences_do_not_see_each_other(config):
    model, x = backbone(config), vectors()
    segments = torch.tensor([[0] * 3 + [1] * 7, [2] * 8 + [-1] * 2])
    packed = model(x, segments=segments)
    torch.testing.assert_close(packed[0, :3], model(x[:1, :3])[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(packed[0, 3:], model(x[:1, 3:])[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(packed[1, :8], model(x[1:, :8])[0], rtol=1e-10, atol=1e-10)


def test_positions_can_be_skipped(config):
    model, x = backbone(config), vectors()
    torch.testing.assert_close(model(x, every=3), model(x)[:, ::3], rtol=1e-10, atol=1e-10)


def test_every_parameter_gets_a_gradient(config):
    model = backbone(config)
    (model(vectors()) * vectors().flip(1)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_cohort_gives_what_its_members_give(config):
    members, x = [backbone(config, seed) for seed in range(3)], vectors(batch=6)
    cohort = stack(members)
    expected = torch.cat([model(part) for model, part in zip(members, x.split(2), strict=True)])
    torch.testing.assert_close(cohort(x), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(unstack(cohort, 1)(x), members[1](x))


def test_a_model_is_saved_and_read_back(config, tmp_path):
    model, other = backbone(config), backbone(config, seed=1)
    write_checkpoint(tmp_path / "saved", step=0, tensors={"model": model.state_dict()}, state={})
    other.load_state_dict(read_checkpoint(tmp_path / "saved").expect("model", other.state_dict()))
    assert torch.equal(other(vectors()), model(vectors()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_is_one_graph():
    model, x = backbone(HYBRIDS["one shared block last"]), vectors(time=4)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x))


def test_configurations_survive_json(config):
    assert BackboneConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_a_shared_block_is_counted_once_and_has_a_state_for_every_call():
    once, twice = (BackboneConfig(pattern=pattern, **SHAPE) for pattern in ("@softmax", "@softmax*2"))
    sizes = [sum(p.numel() for p in backbone(one).parameters()) for one in (once, twice)]
    assert sizes[1] - sizes[0] == 16 * 8  # the second call's own map from twice the width
    states = [
        backbone(one).stream(vectors(), backbone(one).init_state(2, device="cpu", dtype=FP64))[1]
        for one in (once, twice)
    ]
    assert state_bytes(states[1].layers) == 2 * state_bytes(states[0].layers)


def test_every_call_of_a_shared_block_sees_the_first_input():
    model, x = backbone(BackboneConfig(pattern="@softmax mlp @softmax", **SHAPE)), vectors()
    seen = []
    model.shared[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(x)
    assert [z.shape[-1] for z in seen] == [16, 16]
    assert torch.equal(seen[0], torch.cat((x, x), -1))
    assert torch.equal(seen[1][..., 8:], x)
    assert not torch.equal(seen[1][..., :8], x)


def test_mixers_side_by_side_are_averaged_after_their_norms():
    one, other = (LinearAttention(8, num_heads=2, generator=fresh(seed)).to(FP64) for seed in (0, 1))
    x = vectors()
    both = Parallel([one, other], width=8, gain=0.5).to(FP64)
    expected = sum(0.5 * y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() for y in (one(x), other(x))) / 2
    torch.testing.assert_close(both(x), expected)


def test_attention_without_positions_knows_the_order_from_the_recurrent_layer():
    x = vectors()
    swapped = x[:, [1, 0, *range(2, 10)]]
    settings = {"softmax": {"positions": "none"}}
    blind = backbone(BackboneConfig(pattern="softmax", settings=settings, **SHAPE))
    torch.testing.assert_close(blind(swapped)[:, -1], blind(x)[:, -1])
    aware = backbone(mambaformer(1, recurrent="delta-rule", **SHAPE))
    assert (aware(swapped)[:, -1] - aware(x)[:, -1]).abs().max() > 1e-3


def test_hybrids_predict_from_pairs(config):
    model = PairsModel(PairsModelConfig(num_features=3, backbone=config), generator=fresh()).to(FP64)
    x, y = torch.randn(2, 5, 3, generator=fresh(2), dtype=FP64), torch.randn(2, 5, generator=fresh(3), dtype=FP64)
    whole, state = model(x, y).mean, model.init_state(2, device="cpu", dtype=FP64)
    for t in range(5):
        torch.testing.assert_close(model.read(x[:, t : t + 1], state).mean[:, 0], whole[:, t])
        state = model.stream(x[:, t : t + 1], y[:, t : t + 1], state)[1]
