"""The attention family: small examples with the answer written out, and what the variants have in common."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from contexture.errors import InputError
from contexture.mixers.aaren import Aaren
from contexture.mixers.alibi import ALiBi
from contexture.mixers.attention_sinks import AttentionSinks
from contexture.mixers.galerkin import FourierAttention, Galerkin
from contexture.mixers.grouped_query import GroupedQuery
from contexture.mixers.landmark import Landmark
from contexture.mixers.momentum_attention import MomentumAttention
from contexture.mixers.set_transformer import InducedSetAttention, PooledAttention
from contexture.mixers.sliding_window import SlidingWindow
from contexture.mixers.softmax import SoftmaxAttention
from contexture.models.state import state_bytes
from contexture.ops import dispatch
from contexture.ops import landmark_attention as landmark_module
from contexture.ops import softmax_attention as softmax_module
from contexture.ops.alibi import slopes
from contexture.ops.flops import count_flops
from contexture.ops.landmark_attention import landmark_attention
from contexture.ops.moving_average import moving_average
from contexture.ops.prefix_softmax import prefix_softmax
from contexture.ops.softmax_attention import softmax_attention
from contexture.ops.window_attention import window_attention
from contexture.testing.agreement import rms

FP64 = torch.float64
TIME = 23


def heads(*rows: float) -> Tensor:
    """One number per token: [1, time, 1, 1]."""
    return torch.tensor(rows, dtype=FP64).view(1, -1, 1, 1)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FP64)


def build(mixer, width=16, num_heads=4, **settings):
    return mixer(width, num_heads=num_heads, generator=torch.Generator().manual_seed(0), **settings).to(FP64)


def twin(mixer, **settings):
    """Softmax attention with the weights of `mixer`."""
    other = build(SoftmaxAttention, **settings)
    other.projection.load_state_dict(mixer.heads.projection.state_dict())
    other.output.load_state_dict(mixer.heads.output.state_dict())
    return other


# Examples small enough to do by hand.


def test_alibi_by_hand():
    # Scores of the last query: -2m, -m and 0 with m = log 2, so the weights are 1/4, 1/2 and 1 over 7/4.
    zero, v, slope = heads(0, 0, 0), heads(28.0, 7.0, 14.0), torch.tensor([math.log(2)], dtype=FP64)
    for path in ("reference", "products", "sdpa"):
        with dispatch.use(path):
            out = softmax_attention(zero, zero, v, slopes=slope)[0]
        assert out.flatten().tolist() == pytest.approx([28.0, (28 / 2 + 7) / 1.5, (28 / 4 + 7 / 2 + 14) / 1.75])


def test_the_slopes_of_the_paper():
    assert slopes(8).tolist() == [2.0**-power for power in range(1, 9)]
    assert slopes(12).tolist()[8:] == pytest.approx([2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5])


def test_the_mixer_of_alibi_uses_them():
    mixer = build(ALiBi)
    # With keys that do not matter, a head averages values by distance alone.
    mixer.heads.projection.weight.data[16:32] = 0
    mixer.heads.output.weight.data = torch.eye(16, dtype=FP64)
    x = draw(1, 3, 16)
    v = mixer.heads.project(x)[2]
    weights = torch.exp(-slopes(4).to(FP64)[:, None] * torch.tensor([2.0, 1.0, 0.0], dtype=FP64))
    expected = torch.einsum("hs,shd->hd", weights / weights.sum(1, keepdim=True), v[0])
    torch.testing.assert_close(mixer(x)[0, 2], expected.flatten())


def test_a_window_forgets_by_hand():
    zero, v = heads(0, 0, 0, 0, 0), heads(10.0, 20.0, 30.0, 40.0, 50.0)
    assert window_attention(zero, zero, v, window=2)[0].flatten().tolist() == [10.0, 15.0, 25.0, 35.0, 45.0]
    out = window_attention(zero, zero, v, window=2, num_sinks=1)[0]
    assert out.flatten().tolist() == pytest.approx([10.0, 15.0, 20.0, (10 + 30 + 40) / 3, (10 + 40 + 50) / 3])


def test_sinks_answer_queries_of_their_own():
    # The sink's score is log 3 times as large as that of the two tokens in the window, so it takes 3/5 of the weight.
    one, v = heads(0, 1, 1, 1), heads(10.0, 0.0, 5.0, 20.0)
    k = heads(math.log(3), 0.0, 0.0, 0.0)
    out = window_attention(one, k, v, one, window=2, num_sinks=1, scale=1.0)[0]
    assert out.flatten()[-1].item() == pytest.approx((3 * 10 + 5 + 20) / 5)
    assert window_attention(one, k, v, 0 * one, window=2, num_sinks=1, scale=1.0)[0].flatten()[-1].item() == (
        pytest.approx(35 / 3)
    )


def test_momentum_sums_earlier_values_by_hand():
    assert moving_average(heads(8.0, 4.0, 2.0), decay=0.5)[0].flatten().tolist() == [8.0, 8.0, 6.0]
    mixer = build(MomentumAttention, momentum=0.5)
    x = draw(2, TIME, 16)
    v = mixer.heads.project(x)[2]
    ages = torch.arange(TIME)[:, None] - torch.arange(TIME)
    added = torch.einsum("ts,bshd->bthd", (0.5 ** ages.to(FP64)).tril(-1), v)
    torch.testing.assert_close(mixer(x), twin(mixer)(x) + mixer.heads.join(added))


def test_a_landmark_shares_out_its_block_by_hand():
    # Block 0 holds 4 and 8, its tokens' keys log 1 and log 3; its landmark is the mean of marks log 2 and log 8.
    one, marks = heads(1, 1, 1), heads(math.log(2), math.log(8), 0.0)
    k, v = heads(0.0, math.log(3), 0.0), heads(4.0, 8.0, 22.0)
    inside, entry = (4 + 3 * 8) / 4, 4.0
    for path in ("reference", "chunked"):
        with dispatch.use(path):
            out = landmark_attention(one, k, v, marks, block=2, scale=1.0)[0]
        assert out.flatten().tolist() == pytest.approx([4.0, 7.0, (entry * inside + 22) / (entry + 1)])


def test_retrieval_enters_the_best_block_alone():
    one, zero = heads(1, 1, 1, 1, 1), heads(0, 0, 0, 0, 0)
    marks, v = heads(2.0, 2.0, 1.0, 1.0, 0.0), heads(4.0, 8.0, 100.0, 100.0, 9.0)
    entry = math.exp(2.0)
    expected = (entry * 6 + 9) / (entry + 1)
    first, state = landmark_attention(*(x[:, :4] for x in (one, zero, v, marks)), block=2, num_retrieved=1, scale=1.0)
    for start, past in ((0, None), (4, state)):
        parts = (x[:, start:] for x in (one, zero, v, marks))
        out = landmark_attention(*parts, block=2, num_retrieved=1, scale=1.0, initial_state=past)[0]
        assert out.flatten()[-1].item() == pytest.approx(expected)
    assert first.flatten()[:3].tolist() == pytest.approx([4.0, 6.0, (entry * 6 + 100) / (entry + 1)])


def test_galerkin_and_fourier_by_hand():
    x = draw(1, 5, 4)
    for mixer, sharp in ((build(Galerkin, 4, 1), "kv"), (build(FourierAttention, 4, 1), "qk")):
        q, k, v = (part[0, :, 0] for part in mixer.integral.split(x, None))
        norm = {
            name: (part - part.mean(1, keepdim=True)) / (part.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            for name, part in zip("qkv", (q, k, v), strict=True)
        }
        q, k, v = (norm[name] if name in sharp else part for name, part in zip("qkv", (q, k, v), strict=True))
        torch.testing.assert_close(mixer(x)[0], mixer.integral.output((q @ k.T / 5) @ v))


def test_a_summary_does_not_depend_on_order():
    mixer, x = build(PooledAttention, num_seeds=3), draw(2, 6, 16)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert mixer.pool(x).shape == (2, 3, 16)
    torch.testing.assert_close(mixer.pool(x[:, order]), mixer.pool(x))
    assert rms(mixer.pool(x)[0] - mixer.pool(x)[1]) > 0.1


@pytest.mark.parametrize("mixer", [InducedSetAttention, PooledAttention, Galerkin, FourierAttention])
def test_sets_take_no_segments(mixer):
    with pytest.raises(InputError, match="no segments"):
        build(mixer)(draw(1, 3, 16), segments=torch.zeros(1, 3, dtype=torch.int64))


# What the variants have in common.


@pytest.mark.parametrize("positions", ["rotary", "none"])
def test_a_window_as_long_as_the_sequence_is_softmax_attention(positions):
    x = draw(2, TIME, 16)
    mixer = build(SlidingWindow, window=TIME, positions=positions)
    torch.testing.assert_close(mixer(x), twin(mixer, positions=positions)(x))
    narrow = build(SlidingWindow, window=TIME - 1, positions=positions)
    assert rms(narrow(x)[:, -1] - mixer(x)[:, -1]) > 1e-6
    torch.testing.assert_close(narrow(x)[:, :-1], mixer(x)[:, :-1])


def test_a_window_with_biases_is_alibi():
    x = draw(2, TIME, 16)
    torch.testing.assert_close(build(SlidingWindow, window=TIME, positions="alibi")(x), build(ALiBi)(x))


@pytest.mark.parametrize("positions", ["rotary", "alibi", "none"])
def test_no_sinks_are_a_sliding_window(positions):
    x = draw(2, TIME, 16)
    mixer = build(AttentionSinks, window=5, num_sinks=0, positions=positions)
    window = build(SlidingWindow, window=5, positions=positions)
    torch.testing.assert_close(mixer(x), window(x), rtol=0, atol=0)
    assert rms(build(AttentionSinks, window=5, num_sinks=1, positions=positions)(x) - window(x)) > 1e-3


def test_sinks_move_along_as_in_the_paper():
    # Tokens 0..3, 6, 7, 8 are kept and the ninth asks: the positions assigned are 0 to 7, as if 4 and 5 had never been.
    x = draw(1, 10, 16)
    mixer = build(AttentionSinks, window=4, num_sinks=4)
    kept = torch.cat((x[:, :4], x[:, 6:]), 1)
    torch.testing.assert_close(mixer(x)[:, -1], twin(mixer)(kept)[:, -1])


def test_as_many_key_heads_as_heads_are_softmax_attention():
    x = draw(2, TIME, 16)
    mixer = build(GroupedQuery, num_kv_heads=4)
    torch.testing.assert_close(mixer(x), twin(mixer)(x))


@pytest.mark.parametrize("path", ["reference", "products", "sdpa"])
def test_grouped_heads_are_repeated_heads(path):
    q, (k, v) = draw(2, TIME, 6, 4), draw(2, 2, TIME, 3, 4, seed=1)
    repeated = [x.repeat_interleave(2, 2) for x in (k, v)]
    with dispatch.use(path):
        torch.testing.assert_close(softmax_attention(q, k, v)[0], softmax_attention(q, *repeated)[0])


def test_grouped_heads_keep_a_smaller_state():
    def kept(**settings):
        mixer = build(GroupedQuery, **settings)
        return state_bytes(mixer.stream(draw(1, TIME, 16), mixer.init_state(1, device="cpu", dtype=FP64))[1])

    assert kept(num_kv_heads=4) - 8 == 4 * (kept(num_kv_heads=1) - 8)
    assert kept() == kept(num_kv_heads=2)


@pytest.mark.parametrize("path", ["products", "sdpa"])
@pytest.mark.parametrize(
    ("dtype", "value", "gradient"), [(FP64, 1e-10, 1e-10), (torch.float32, 1e-5, 1e-4), (torch.bfloat16, 1e-2, 2e-2)]
)
def test_biases_and_groups_on_every_path(path, dtype, value, gradient, monkeypatch):
    monkeypatch.setattr(softmax_module, "QUERIES", 9)
    segments = torch.tensor([[0] * 10 + [1] * 13, [2] * 20 + [-1] * 3])
    inputs = [draw(2, TIME, 4, 8), draw(2, TIME, 2, 8, seed=1), draw(2, TIME, 2, 8, seed=2)]
    weights = draw(2, TIME, 4, 8, seed=3)
    for packed in (None, segments):
        found = []
        for name, precision in (("reference", FP64), (path, dtype)):
            leaves = [x.to(dtype).to(precision).requires_grad_() for x in inputs]
            with dispatch.use(name):
                out = softmax_attention(*leaves, slopes=slopes(4), segments=packed)[0]
            found.append((out, *torch.autograd.grad((out * weights.to(dtype).to(precision)).sum(), leaves)))
        for number, (expected, got) in enumerate(zip(*found, strict=True)):
            assert rms(got - expected) <= (gradient if number else value) * rms(expected)


def test_no_momentum_is_softmax_attention():
    mixer, x = build(MomentumAttention, momentum=0.0), draw(2, TIME, 16)
    torch.testing.assert_close(mixer(x), twin(mixer)(x))


def test_a_fixed_query_as_a_recurrent_network_is_softmax_attention():
    mixer, x = build(Aaren), draw(2, 150, 16)
    mixer.query.weight.data = draw(16, seed=4)
    k, v = (torch.unflatten(part, -1, (4, 4)) for part in mixer.projection(x).chunk(2, -1))
    q = mixer.query.weight.view(1, 1, 4, 4).expand(2, 150, -1, -1)
    torch.testing.assert_close(mixer(x), mixer.output(softmax_attention(q, k, v)[0].flatten(2)))


def test_scores_of_any_size_stay_finite():
    scores = torch.tensor([-900.0, 900.0, 0.0, -900.0], dtype=torch.float32).repeat(40).view(1, 160, 1)
    v = torch.arange(160.0).view(1, 160, 1, 1)
    for path in ("reference", "chunked"):
        with dispatch.use(path):
            out, state = prefix_softmax(scores, v)
        assert out.flatten()[:4].tolist() == [0.0, 1.0, 1.0, 1.0]
        assert out.flatten()[-1].item() == pytest.approx(sum(range(1, 160, 4)) / 40)
        assert all(part.isfinite().all() for part in state)


def test_one_block_is_softmax_attention_and_blocks_of_one_are_entered_by_marks():
    q, k, v, marks = (draw(2, TIME, 2, 4, seed=seed) for seed in range(4))
    torch.testing.assert_close(landmark_attention(q, k, v, marks, block=TIME)[0], softmax_attention(q, k, v)[0])
    # A block of one token is entered by its mark, and the present token scores by its key.
    table = 0.5 * torch.einsum("bthd,bshd->bhts", q, marks).tril(-1) + 0.5 * torch.diag_embed(
        torch.einsum("bthd,bthd->bht", q, k)
    )
    weights = table.masked_fill(torch.ones(TIME, TIME, dtype=torch.bool).triu(1), -math.inf).softmax(-1)
    expected = torch.einsum("bhts,bshd->bthd", weights, v)
    torch.testing.assert_close(landmark_attention(q, k, v, marks, block=1)[0], expected)


@pytest.mark.parametrize("path", ["reference", "chunked"])
def test_retrieving_all_blocks_is_entering_all(path):
    inputs = [draw(2, TIME, 2, 4, seed=seed) for seed in range(4)]
    segments = torch.tensor([[0] * 10 + [1] * 13, [2] * 20 + [-1] * 3])
    for packed in (None, segments):
        with dispatch.use(path):
            every = landmark_attention(*inputs, block=4, segments=packed)[0]
            best = landmark_attention(*inputs, block=4, num_retrieved=TIME, segments=packed)[0]
            fewer = landmark_attention(*inputs, block=4, num_retrieved=2, segments=packed)[0]
        torch.testing.assert_close(best, every)
        assert rms(fewer[:, :12] - every[:, :12]) < 1e-12 < rms(fewer[0, -1] - every[0, -1])
    with dispatch.use("reference"):
        torch.testing.assert_close(landmark_attention(*inputs, block=4, num_retrieved=2, segments=packed)[0], fewer)


def test_a_retrieving_token_reads_few_blocks():
    mixer = build(Landmark, block=16, num_retrieved=2)
    one, costs = draw(1, 1, 16), []
    for past in (128, 256):
        state = mixer.stream(draw(1, past, 16), mixer.init_state(1, device="cpu", dtype=FP64))[1]
        costs.append(count_flops(lambda state=state: mixer.stream(one, state)))
    # Twice the past adds 8 products with landmarks (4 heads of size 4, two operations each) and none with a token.
    assert costs[1] - costs[0] == 8 * 4 * 4 * 2


def test_a_window_reads_the_window_alone():
    mixer, one = build(SlidingWindow, window=8), draw(1, 1, 16)
    state = mixer.stream(draw(1, 300, 16), mixer.init_state(1, device="cpu", dtype=FP64))[1]
    assert state.keys.shape == (1, 7, 4, 4)
    assert count_flops(lambda: mixer.stream(one, state)) == 2 * 16 * 64 + 2 * 2 * 8 * 16


@given(
    time=st.integers(1, 150),
    window=st.integers(1, 100),
    num_sinks=st.integers(0, 5),
    cut=st.integers(0, 149),
    biased=st.booleans(),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_windows_of_any_size_cut_anywhere(time, window, num_sinks, cut, biased):
    q, k, v, r = (draw(2, time, 2, 3, seed=seed) for seed in range(4))
    options = {"window": window, "num_sinks": num_sinks, "slopes": slopes(2) if biased else None}
    mask = torch.ones(time, time, dtype=torch.bool).tril()
    near = mask.triu(1 - window)
    far = mask & ~near & (torch.arange(time) < num_sinks)
    scores, sink_scores = (torch.einsum("bthd,bshd->bhts", x, k) / 3**0.5 for x in (q, r))
    if biased:
        steps = torch.arange(time)[:, None]
        scores = scores - slopes(2)[:, None, None] * (steps - torch.arange(time))
        reach = steps.clamp(max=num_sinks + window - 1) - torch.arange(time)
        sink_scores = sink_scores - slopes(2)[:, None, None] * reach
    table = torch.where(near, scores, sink_scores).masked_fill(~(near | far), -math.inf)
    expected = torch.einsum("bhts,bshd->bthd", table.softmax(-1), v)
    torch.testing.assert_close(window_attention(q, k, v, r, **options)[0], expected)
    parts, state = [], None
    for part in (slice(0, cut % time), slice(cut % time, time)):
        if part.start < part.stop:
            pieces = (x[:, part] for x in (q, k, v, r))
            out, state = window_attention(*pieces, **options, initial_state=state)
            parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), expected)


@pytest.mark.parametrize("retrieved", [None, 2])
def test_landmarks_a_few_queries_at_a_time(monkeypatch, retrieved):
    monkeypatch.setattr(landmark_module, "QUERIES", 16)
    weights, found = draw(2, 70, 2, 4, seed=9), []
    past = [draw(2, 13, 2, 4, seed=seed) for seed in range(4, 8)]
    for path in ("reference", "chunked"):
        leaves = [draw(2, 70, 2, 4, seed=seed).requires_grad_() for seed in range(4)]
        options = {"block": 5, "num_retrieved": retrieved}
        with dispatch.use(path):
            state = landmark_attention(*past, **options)[1]
            out = landmark_attention(*leaves, **options, initial_state=state)[0]
        found.append((out, *torch.autograd.grad((out * weights).sum(), leaves)))
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected)


# Bad settings.


@pytest.mark.parametrize(
    ("mixer", "settings", "message"),
    [
        (GroupedQuery, {"num_kv_heads": 3}, "4 heads cannot share 3"),
        (SlidingWindow, {"window": 0}, "a window of 0"),
        (SlidingWindow, {"positions": "learned"}, "no positions 'learned'"),
        (AttentionSinks, {"num_sinks": -1}, "-1 sinks"),
        (MomentumAttention, {"momentum": 1.0}, "a momentum of 1.0"),
        (Landmark, {"block": 0}, "blocks of 0 tokens"),
        (InducedSetAttention, {"num_points": 0}, "0 points"),
        (SlidingWindow, {"width": 12}, "even size"),
        (Aaren, {"width": 18}, "cannot be split"),
    ],
)
def test_settings_that_make_no_sense_are_refused(mixer, settings, message):
    with pytest.raises(InputError, match=message):
        build(mixer, **settings)


def test_packed_sequences_do_not_go_on_from_landmarks():
    inputs = [draw(1, 3, 1, 2, seed=seed) for seed in range(4)]
    state = landmark_attention(*inputs)[1]
    with pytest.raises(InputError, match="give segments or a state"):
        landmark_attention(*inputs, initial_state=state, segments=torch.zeros(1, 3, dtype=torch.int64))
