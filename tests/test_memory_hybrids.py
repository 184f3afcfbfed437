"""Hybrids of memory and attention: routed memories, and slots beside a window."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from contexture import ops
from contexture.errors import InputError
from contexture.mixers.native_hybrid import NativeHybridAttention
from contexture.mixers.sse import SparseStateExpansion
from contexture.models.state import state_bytes
from contexture.ops.flops import count_flops
from contexture.ops.linear_attention import linear_attention
from contexture.ops.native_hybrid_attention import native_hybrid_attention
from contexture.ops.rotary import rotate, turns
from contexture.ops.routed_linear_attention import routed_linear_attention
from contexture.ops.routing import places, routes
from contexture.ops.softmax_attention import softmax_attention
from contexture.testing.agreement import rms


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def close(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return rms(got - expected) < 1e-10 * rms(expected)


def sse(num_partitions: int, num_routes: int = 1) -> SparseStateExpansion:
    built = SparseStateExpansion(
        16, num_heads=2, generator=seeded(), num_partitions=num_partitions, num_routes=num_routes
    )
    return built.double()


def test_routed_attention_by_hand():
    q = torch.tensor([1.0, 1.0, 2.0]).view(1, 3, 1, 1)
    k = torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1)
    shares = torch.tensor([[[0.75, 0.25], [0.4, 0.6], [0.5, 0.5]]])
    out, state = routed_linear_attention(q, k, torch.ones(1, 3, 1, 1), shares)
    # The first and the last token use the first partition (of equal shares the first), the second token the second.
    expected = [0.75 * 0.75 * 1, 0.6 * 0.6 * 10, 0.5 * 2 * (0.75 * 1 + 0.5 * 100)]
    assert out.flatten().tolist() == pytest.approx(expected)
    assert state.flatten().tolist() == pytest.approx([0.75 * 1 + 0.5 * 100, 6.0])


@given(
    time=st.integers(1, 40),
    partitions=st.integers(1, 9),
    taken=st.integers(1, 3),
    size=st.integers(1, 8),
    seed=st.integers(0, 50),
)
@settings(max_examples=60, deadline=None)
def test_every_token_has_a_place_of_its_own_in_a_chunk_of_its_partition(time, partitions, taken, size, seed):
    num_routes = min(taken, partitions)
    weights, choices = routes(torch.rand(2, time, partitions, generator=seeded(seed)), num_routes)
    put = places(weights, choices, partitions, size)
    for row in range(2):
        slots = put.slots[row]
        assert slots.unique().numel() == slots.numel()
        assert put.filled[row].sum() == time * num_routes
        assert torch.equal(put.tokens[row, slots], torch.arange(time).repeat_interleave(num_routes))
        assert torch.equal(put.weights[row, slots], weights[row].flatten())
        assert torch.equal(put.partitions[row, slots // size], choices[row].flatten())
        for partition in range(partitions):
            inside = slots[choices[row].flatten() == partition]
            assert (inside[1:] > inside[:-1]).all()
            assert put.ends[row, partition] == (inside.max() // size if len(inside) else -1)


@pytest.mark.parametrize(("partitions", "num_routes"), [(1, 1), (7, 1), (7, 3), (40, 2)])
def test_bringing_tokens_together_is_linear_attention_over_all_partitions(partitions, num_routes):
    q, k, v = (draw(2, 90, 2, 4, seed=seed) for seed in range(3))
    shares = torch.softmax(draw(2, 90, partitions, seed=3), -1)
    start = draw(2, partitions, 2, 4, 4, seed=4)
    segments = torch.tensor([[0] * 50 + [1] * 40, [0] * 89 + [-1]])
    for packed in (None, segments):
        got, expected = [], []
        for path, found in (("chunked", got), ("dense", expected)):
            with ops.use(path):
                found.extend(
                    routed_linear_attention(
                        q, k, v, shares, num_routes=num_routes, initial_state=start, segments=packed
                    )
                )
        assert close(got[0], expected[0])
        assert close(got[1], expected[1])


def test_one_partition_is_the_sum_of_two_linear_attentions():
    mixer, x = sse(1), draw(2, 70, 16)
    q, k, v = mixer.heads.split(x)
    narrow = mixer.narrow(x)
    other_q = q + mixer.query_change(narrow[..., :8]).view_as(q)
    other_k = k + mixer.key_change(narrow[..., 8:]).view_as(k)
    both = [linear_attention(F.silu(a), torch.softmax(b, -1), F.silu(v))[0] for a, b in ((q, k), (other_q, other_k))]
    expected = mixer.norm(both[0] + both[1]) * F.silu(mixer.gate(x)).view_as(q)
    assert close(mixer(x), mixer.heads.join(expected))


def test_the_state_grows_with_the_partitions_and_the_work_does_not():
    sizes, work = [], []
    for partitions in (1, 2, 4, 8, 16):
        mixer = sse(partitions)
        _, state = mixer.stream(draw(1, 5, 16), mixer.init_state(1, device="cpu", dtype=torch.float64))
        sizes.append(state_bytes(state))
        # The router's own product aside, and up to the counting of tokens per partition.
        step = count_flops(lambda mixer=mixer, state=state: mixer.stream(draw(1, 1, 16), state))
        work.append(step - count_flops(lambda mixer=mixer: mixer.router(draw(1, 1, 16))))
    memory = 2 * 8 * 8 * 8
    assert sizes == [memory * (1 + partitions) for partitions in (1, 2, 4, 8, 16)]
    assert max(work) < 1.01 * min(work)


def test_balance_is_one_where_partitions_are_used_evenly_and_their_number_where_one_is():
    mixer = sse(4)
    with torch.no_grad():
        mixer.router.weight.zero_()
        mixer.router.weight[:, :4] = 50 * torch.eye(4)
    x = torch.zeros(2, 8, 16, dtype=torch.float64)
    x[0, torch.arange(8), torch.arange(8) % 4] = 1.0
    x[1, :, 2] = 1.0
    assert mixer.balance(x).tolist() == pytest.approx([1.0, 4.0])
    state = [parameter.clone() for parameter in mixer.parameters()]
    mixer.balance(x).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(state, mixer.parameters(), strict=True))
    assert mixer.router.weight.grad is not None


def test_more_routes_than_partitions_are_refused():
    with pytest.raises(InputError, match="cannot use 3 of 2 partitions"):
        SparseStateExpansion(16, num_heads=2, generator=seeded(), num_partitions=2, num_routes=3)


@pytest.mark.parametrize("window", [90, 200])
def test_without_slots_and_with_a_window_over_everything_it_is_softmax_attention(window):
    q, k, v = (draw(2, 90, 2, 6, seed=seed) for seed in range(3))
    none = torch.zeros(2, 90, 2, 0, dtype=torch.float64)
    out, _ = native_hybrid_attention(q, k, v, none, q, k, window=window)
    assert close(out, softmax_attention(q, k, v)[0])


def test_the_layer_without_slots_is_attention_with_rotary_positions():
    mixer = NativeHybridAttention(16, num_heads=2, generator=seeded(), num_slots=0, window=70).double()
    x = draw(2, 70, 16)
    q, k, v = mixer.heads.split(x)
    factors = turns(torch.arange(70).unsqueeze(0), 8, heads=2, dtype=torch.float64)
    out, _ = softmax_attention(rotate(q, factors), rotate(k, factors), F.silu(v))
    assert close(mixer(x), mixer.heads.output(mixer.norm(F.silu(out.flatten(2)))))


@pytest.mark.parametrize("window", [1, 2, 17, 63, 64, 65])
def test_a_window_hides_what_lies_before_it(window):
    q, k, v = (draw(1, 150, 1, 4, seed=seed) for seed in range(3))
    none = torch.zeros(1, 150, 1, 0, dtype=torch.float64)
    out, _ = native_hybrid_attention(q, k, v, none, q, k, window=window)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / 2
    steps = torch.arange(150)
    near = (steps[:, None] - steps >= 0) & (steps[:, None] - steps < window)
    weights = scores.masked_fill(~near, -math.inf).softmax(-1)
    assert close(out, torch.einsum("bhts,bshe->bthe", weights, v))


def test_slots_and_window_share_one_softmax_by_hand():
    one, log2 = torch.ones(1, 2, 1, 1, dtype=torch.float64), math.log(2)
    v = torch.tensor([8.0, 2.0], dtype=torch.float64).view(1, 2, 1, 1)
    decay = torch.full_like(one, -log2)
    # The slot's key goes 1/2, 3/4 and its value 4, 3. With a window of one token of logit 0 (its key is zero):
    out, state = native_hybrid_attention(log2 * one, one, v, decay, one, 0 * one, window=1, scale=1.0)
    first, second = 2**0.5, 2**0.75
    expected = [(first * 4 + 8) / (first + 1), (second * 3 + 2) / (second + 1)]
    assert out.flatten().tolist() == pytest.approx(expected)
    assert state.slots.flatten().tolist() == pytest.approx([0.75, 3.0])


def test_decays_of_any_size_leave_everything_finite():
    q, k, v, qw, kw = (draw(1, 100, 2, 8, seed=seed).float().requires_grad_() for seed in range(5))
    decay = (-200 * torch.rand(1, 100, 2, 5, generator=seeded())).requires_grad_()
    out, _ = native_hybrid_attention(q, k, v, decay, qw, kw, window=4)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v, decay, qw, kw))


@pytest.mark.parametrize("mixer", [SparseStateExpansion, NativeHybridAttention])
def test_mixed_precision_costs_a_per_cent_or_so(mixer):
    built, x = mixer(16, num_heads=2, generator=seeded()), draw(2, 70, 16).float()
    with torch.no_grad():
        exact = built(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = built(x)
    assert rms(rough - exact) < 0.05 * rms(exact)


def test_nothing_to_attend_to_is_refused():
    with pytest.raises(InputError, match="without slots and without a window"):
        NativeHybridAttention(16, num_heads=2, generator=seeded(), num_slots=0, window=0)
