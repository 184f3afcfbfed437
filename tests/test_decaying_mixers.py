"""Memories that decay: exact small numbers, identities between the mechanisms, and extremes."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from contexture import ops
from contexture.errors import InputError
from contexture.mixers.gated_linear_attention import GatedLinearAttention
from contexture.mixers.mamba import Mamba
from contexture.mixers.mamba_2 import Mamba2
from contexture.mixers.retention import Retention
from contexture.mixers.steps import LONGEST, SHORTEST
from contexture.ops.decayed_linear_attention import decayed_linear_attention
from contexture.ops.decays import decayed_products
from contexture.ops.gated_linear_attention import gated_linear_attention
from contexture.ops.linear_attention import linear_attention
from contexture.ops.selective_scan import BLOCK, cut, selective_scan

FP64 = torch.float64
GATED = (decayed_linear_attention, gated_linear_attention)


def draw(*shape, seed=0, dtype=FP64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gates(op, like):
    """Log-decays between -2 and 0 of the shape that `op` takes."""
    shape = like.shape if op is gated_linear_attention else like.shape[:3]
    return -2 * torch.rand(shape, generator=torch.Generator().manual_seed(9), dtype=like.dtype)


def gradients(op, inputs, weight):
    leaves = [x.clone().requires_grad_() for x in inputs]
    out, state = op(*leaves)
    return [out, state, *torch.autograd.grad([out, state], leaves, [weight.to(out.dtype), torch.ones_like(state)])]


def close(got, expected, tolerance=1e-10):
    assert (got.double() - expected).norm() <= tolerance * expected.norm()


def test_one_decay_per_head_by_hand():
    q = k = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=FP64).view(1, 2, 1, 2)
    v = torch.tensor([8.0, 1.0], dtype=FP64).view(1, 2, 1, 1)
    g = torch.tensor([-9.0, math.log(0.25)], dtype=FP64).view(1, 2, 1)
    out, state = decayed_linear_attention(q, k, v, g)
    assert out.flatten().tolist() == pytest.approx([8.0, 0.25 * 8 + 2 * 1])
    assert state.flatten().tolist() == pytest.approx([0.25 * 8 + 1, 1.0])


def test_one_decay_per_channel_by_hand():
    q = k = torch.ones(1, 2, 1, 2, dtype=FP64)
    v = torch.tensor([8.0, 1.0], dtype=FP64).view(1, 2, 1, 1)
    g = torch.tensor([[-9.0, -9.0], [math.log(0.5), -math.inf]], dtype=FP64).view(1, 2, 1, 2)
    out, state = gated_linear_attention(q, k, v, g)
    assert out.flatten().tolist() == pytest.approx([16.0, (0.5 * 8 + 1) + (0 * 8 + 1)])
    assert state.flatten().tolist() == pytest.approx([5.0, 1.0])


def test_products_of_decays_by_hand():
    a = torch.tensor([0.5, 0.25, 0.0, 0.1], dtype=FP64).view(1, 4, 1)
    got = decayed_products(torch.ones_like(a), torch.ones_like(a), a)
    expected = [[1, 0, 0, 0], [0.25, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0.1, 1]]
    torch.testing.assert_close(got.scores[0], torch.tensor(expected, dtype=FP64))
    assert got.reads.flatten().tolist() == pytest.approx([0.5, 0.125, 0.0, 0.0])
    assert got.writes.flatten().tolist() == pytest.approx([0.0, 0.0, 0.1, 1.0])
    assert got.total.item() == 0.0


@pytest.mark.parametrize("op", GATED)
def test_without_decay_it_is_linear_attention(op):
    q, k, v = draw(3, 2, 70, 2, 5)
    weight = draw(2, 70, 2, 5, seed=1)
    expected = gradients(linear_attention, (q, k, v), weight)
    *got, _ = gradients(op, (q, k, v, torch.zeros_like(gates(op, q))), weight)
    for one, other in zip(got, expected, strict=True):
        close(one, other)


def test_equal_channels_are_one_decay_per_head():
    q, k, v = draw(3, 2, 70, 2, 5)
    g, weight = gates(decayed_linear_attention, q), draw(2, 70, 2, 5, seed=1)
    *expected, d_g = gradients(decayed_linear_attention, (q, k, v, g), weight)
    *got, d_channels = gradients(gated_linear_attention, (q, k, v, g.unsqueeze(-1).expand(q.shape)), weight)
    for one, other in zip((*got, d_channels.sum(-1)), (*expected, d_g), strict=True):
        close(one, other)


@pytest.mark.parametrize("op", GATED)
@pytest.mark.parametrize("strength", [-50.0, -1e4, -math.inf])
def test_strong_decays_cost_no_digits(op, strength):
    """Half of the steps forget all but everything; beside them, weak decays keep their digits."""
    q, k, v = draw(3, 2, 130, 2, 5, dtype=torch.float32)
    g = 0.05 * gates(op, q)
    g[:, ::2] = torch.where(draw(*g[:, ::2].shape, seed=3) > 0, strength, g[:, ::2])
    weight = draw(2, 130, 2, 5, seed=1, dtype=torch.float32)
    got = gradients(op, (q, k, v, g), weight)
    with ops.use("reference"):
        expected = gradients(op, [x.double() for x in (q, k, v, g)], weight)
    for one, other in zip(got, expected, strict=True):
        assert one.isfinite().all()
        close(one, other, 1e-5)


@pytest.mark.parametrize("op", GATED)
def test_when_all_is_forgotten_only_the_present_is_read(op):
    q, k, v = draw(3, 1, 70, 2, 5, dtype=torch.float32)
    out, _, d_q, d_k, d_v, d_g = gradients(op, (q, k, v, torch.full_like(gates(op, q), -1e3)), torch.ones_like(q))
    torch.testing.assert_close(out, (q * k).sum(-1, keepdim=True) * v)
    assert all(gradient.isfinite().all() for gradient in (d_q, d_k, d_v, d_g))
    assert d_g.abs().max() < 1e-4


@pytest.mark.parametrize("op", GATED)
@given(time=st.integers(1, 140), cut_at=st.integers(0, 139), out=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_any_length_and_any_cut(op, time, cut_at, out):
    q, k = draw(2, 1, time, 2, 3)
    v, g = draw(1, time, 2, out, seed=1), gates(op, q)
    with ops.use("reference"):
        expected, last = op(q, k, v, g)
    cut_at = max(1, min(cut_at, time - 1))
    first, state = op(*(x[:, :cut_at] for x in (q, k, v, g)))
    if cut_at < time:
        second, state = op(*(x[:, cut_at:] for x in (q, k, v, g)), initial_state=state)
        first = torch.cat((first, second), 1)
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(state, last)


def test_the_selective_scan_by_hand():
    x, dt = torch.tensor([3.0, 5.0], dtype=FP64).view(1, 2, 1), torch.tensor([1.0, 2.0], dtype=FP64).view(1, 2, 1)
    rates = torch.tensor([math.log(0.5), 0.0], dtype=FP64).view(1, 1, 2)
    write = torch.tensor([[1.0, 2.0], [10.0, 0.0]], dtype=FP64).unsqueeze(0)
    read = torch.tensor([[1.0, 1.0], [1.0, 0.5]], dtype=FP64).unsqueeze(0)
    out, state = selective_scan(x, dt, rates, write, read)
    assert state.flatten().tolist() == pytest.approx([0.25 * 3 + 2 * 5 * 10, 6.0])
    assert out.flatten().tolist() == pytest.approx([3 + 6, (0.75 + 100) + 0.5 * 6])


def test_a_scan_with_constant_settings_is_a_convolution():
    """With dt, A, B and C constant, y = K * x with K_s = sum_n C_n exp(s dt A_n) dt B_n."""
    time, x = 300, draw(1, 300, 2)
    rates, write, read = -draw(1, 2, 3, seed=1).exp(), draw(3, seed=2), draw(3, seed=3)
    out, _ = selective_scan(x, torch.full_like(x, 0.3), rates, write.expand(1, time, 3), read.expand(1, time, 3))
    lags = torch.arange(time, dtype=FP64)
    kernel = (torch.exp(0.3 * rates[0].unsqueeze(-1) * lags) * (0.3 * read * write).unsqueeze(-1)).sum(1)
    expected = F.conv1d(F.pad(x.mT, (time - 1, 0)), kernel.flip(-1).unsqueeze(1), groups=2).mT
    torch.testing.assert_close(out, expected)


def test_a_scan_with_a_state_of_one_is_decayed_linear_attention():
    x, dt = draw(2, 100, 3), F.softplus(draw(2, 100, 3, seed=1))
    rates, write, read = -draw(1, 3, 1, seed=2).exp(), draw(2, 100, 1, seed=3), draw(2, 100, 1, seed=4)
    out, state = selective_scan(x, dt, rates, write, read)
    q, k = (part.unsqueeze(2).expand(-1, -1, 3, -1) for part in (read, write))
    expected, memory = decayed_linear_attention(q, k, (dt * x).unsqueeze(-1), dt * rates[0, :, 0])
    torch.testing.assert_close(out, expected.squeeze(-1))
    torch.testing.assert_close(state, memory.squeeze(-1))


@pytest.mark.parametrize("block", [1, 40, 400, 10**6])
def test_blocks_of_any_size_give_the_same_scan(block, monkeypatch):
    """Strong decays included: dt A reaches -50."""
    monkeypatch.setattr("contexture.ops.selective_scan.BLOCK", block)
    x, dt = draw(2, 97, 3), F.softplus(3 * draw(2, 97, 3, seed=1))
    rates = -torch.tensor([0.01, 1.0, 8.0], dtype=FP64).expand(2, 3, 3) * torch.tensor([[[1.0]], [[2.0]]])
    inputs, weight = (x, dt, rates, draw(2, 97, 3, seed=3), draw(2, 97, 3, seed=4)), draw(2, 97, 3, seed=5)
    with ops.use("reference"):
        expected = gradients(selective_scan, inputs, weight)
    assert (dt.unsqueeze(-1) * rates.unsqueeze(1)).min() < -50
    for got, wanted in zip(gradients(selective_scan, inputs, weight), expected, strict=True):
        torch.testing.assert_close(got, wanted)
    for got, wanted in zip(gradients(selective_scan, [x.float() for x in inputs], weight), expected, strict=True):
        close(got, wanted, 1e-5)


@given(time=st.integers(1, 5000), numbers=st.integers(1, 10**6))
def test_a_cut_covers_time_with_little_to_spare(time, numbers):
    plan = cut(time, numbers)
    assert time <= math.prod(plan) < 1.25 * time + plan.blocks
    assert plan.pieces * plan.steps * numbers <= 1.25 * BLOCK + numbers


def captured(monkeypatch, module, name):
    """The arguments with which `module` calls its op."""
    calls, op = [], getattr(module, name)

    def spy(*inputs, **rest):
        calls.append(inputs)
        return op(*inputs, **rest)

    monkeypatch.setattr(module, name, spy)
    return calls


def test_mamba_2_is_linear_attention_with_scalar_gates(monkeypatch):
    """q = C, k = B, v = dt u and g = dt A, read off its parameters, give what it computes."""
    from contexture.mixers import mamba_2

    mixer = Mamba2(8, num_heads=2, state_size=3, generator=torch.Generator().manual_seed(0)).to(FP64)
    calls, x = captured(monkeypatch, mamba_2, "decayed_linear_attention"), draw(1, 20, 8)
    out = mixer(x)
    z, projected = mixer.projection(x).split((16, 22), -1)
    u, write, read = F.silu(mixer.conv(projected)).split((16, 3, 3), -1)
    dt = torch.log1p(torch.exp(x @ mixer.steps.weight.mT + mixer.steps.bias))
    q, k = (part.unsqueeze(2).expand(-1, -1, 2, -1) for part in (read, write))
    heads = u.unflatten(-1, (2, 8))
    v, g = dt.unsqueeze(-1) * heads, -dt * mixer.log_rate.weight.exp()
    for got, expected in zip(calls[0], (q, k, v, g), strict=True):
        torch.testing.assert_close(got, expected)
    mixed, _ = gated_linear_attention(q, k, v, g.unsqueeze(-1).expand(q.shape))
    mixed = mixed + mixer.skip.weight.view(1, 1, 2, 1) * heads
    torch.testing.assert_close(out, mixer.output(mixer.norm(mixed.flatten(2) * F.silu(z))))


def test_heads_of_retention_fade_at_the_papers_paces(monkeypatch):
    from contexture.mixers import retention

    calls = captured(monkeypatch, retention, "decayed_linear_attention")
    Retention(12, num_heads=3, generator=torch.Generator().manual_seed(0))(draw(1, 4, 12, dtype=torch.float32))
    paces = calls[0][3].exp()
    assert paces[0, 2].tolist() == pytest.approx([31 / 32, 63 / 64, 127 / 128])


def test_retention_depends_on_distance_alone():
    """From an empty memory, where counting starts makes no difference."""
    mixer = Retention(12, num_heads=3, generator=torch.Generator().manual_seed(0)).to(FP64)
    state, x = mixer.init_state(1, device="cpu", dtype=FP64), draw(1, 9, 12)
    late = state._replace(positions=state.positions + 1000)
    torch.testing.assert_close(mixer.stream(x, late)[0], mixer.stream(x, state)[0])


def test_a_higher_temperature_forgets_more_slowly(monkeypatch):
    from contexture.mixers import gated_linear_attention as module

    calls = captured(monkeypatch, module, "gated_linear_attention")
    for temperature in (1.0, 16.0):
        generator = torch.Generator().manual_seed(0)
        mixer = GatedLinearAttention(16, num_heads=2, generator=generator, temperature=temperature)
        mixer(draw(1, 5, 16, dtype=torch.float32))
    fast, slow = (inputs[3] for inputs in calls)
    torch.testing.assert_close(fast, 16 * slow)
    assert (fast < 0).all()


def test_state_spaces_start_as_their_papers_say():
    generator = torch.Generator().manual_seed(0)
    mamba, mamba_2 = Mamba(64, num_heads=1, generator=generator), Mamba2(64, num_heads=64, generator=generator)
    for mixer in (mamba, mamba_2):
        steps = F.softplus(mixer.steps.bias)
        assert SHORTEST * 0.999 <= steps.min() < 2 * SHORTEST
        assert LONGEST / 2 < steps.max() <= LONGEST * 1.001
        assert steps.log().mean().item() == pytest.approx(math.log(0.01), abs=0.5)
    assert mamba.rank == 4
    rates = mamba.log_rate.weight.exp().view(128, 16)
    torch.testing.assert_close(rates, torch.arange(1.0, 17.0).expand(128, 16))
    assert 1 <= mamba_2.log_rate.weight.exp().min() < 3
    assert 14 < mamba_2.log_rate.weight.exp().max() <= 16.001


def test_widths_that_cannot_be_cut_are_refused():
    generator = torch.Generator()
    with pytest.raises(InputError, match="odd size"):
        Retention(6, num_heads=2, generator=generator)
    with pytest.raises(InputError, match=r"half a width of 12.* into 4 heads"):
        GatedLinearAttention(12, num_heads=4, generator=generator)
