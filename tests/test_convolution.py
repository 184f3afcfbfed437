"""Mixers with fixed or position-wise weights and linear systems: hand-made numbers, and what each is a case of."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contexture import discovery, ops
from contexture.errors import InputError
from contexture.leaves.table import Table, drawn
from contexture.mixers.aft import AFTFull, AFTSimple
from contexture.mixers.aft_local import AFTConv, AFTLocal
from contexture.mixers.hyena import Hyena
from contexture.mixers.lmu import LMU
from contexture.mixers.masked_mixer import MaskedMixer
from contexture.mixers.pooling import Pooling
from contexture.mixers.s4d import S4D
from contexture.ops import chunks
from contexture.ops.biased_average import biased_average
from contexture.ops.diagonal_recurrence import diagonal_recurrence
from contexture.ops.exponential_average import exponential_average
from contexture.ops.legendre import legendre_read_out, legendre_system
from contexture.ops.linear_attention import linear_attention
from contexture.ops.linear_system import linear_system, powers
from contexture.ops.long_convolution import fast_length, long_convolution, toeplitz
from contexture.ops.masked_mixing import masked_mixing
from contexture.ops.windowed_average import windowed_average
from contexture.testing.ops import registered_ops
from contexture.training.cohort import stack

FP64 = torch.float64
BY_POSITION = (AFTFull, AFTLocal, MaskedMixer)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FP64)


def build(mixer, *, width=6, num_heads=2, seed=0, **rest):
    return mixer(width, num_heads=num_heads, generator=torch.Generator().manual_seed(seed), **rest).to(FP64)


def with_shared_weights(mixer, other):
    """`mixer` with the projections of `other`."""
    mixer.heads.load_state_dict(other.heads.state_dict())
    return mixer


def test_every_mixer_and_op_of_the_family_is_under_the_laws():
    mixers = {"aft-conv", "aft-full", "aft-local", "aft-simple", "hyena", "lmu", "masked-mixer", "pooling", "s4d"}
    found = {"biased-average", "diagonal-recurrence", "exponential-average", "linear-system", "long-convolution"}
    assert mixers <= set(discovery.registered("mixers"))
    assert found | {"masked-mixing", "windowed-average"} <= set(registered_ops())


# --- averages under exponentials -----------------------------------------------------------------------------------


def test_an_average_by_hand():
    k = torch.tensor([0.0, math.log(3.0), math.log(4.0)], dtype=FP64).view(1, 3, 1, 1)
    v = torch.tensor([8.0, 4.0, 1.0], dtype=FP64).view(1, 3, 1, 1)
    out, state = exponential_average(k, v)
    torch.testing.assert_close(out.flatten(), torch.tensor([8.0, 5.0, 3.0], dtype=FP64))
    assert state.log_sum.item() == pytest.approx(math.log(8.0))


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_keys_of_any_size_are_safe(size):
    k = (size * normal(1, 50, 1, 3)).float().requires_grad_()
    v, bias = normal(1, 50, 1, 3, seed=1).float(), normal(1, 1, 1, 4, seed=2).float()
    left, right = normal(2, 1, 50, 3, seed=3).float()
    largest = v.gather(1, torch.stack([k[:, : t + 1].argmax(1) for t in range(50)], 1))
    for out in (
        exponential_average(k, v)[0],
        windowed_average(k, v, bias)[0],
        biased_average(k, v, left, right)[0],
    ):
        torch.testing.assert_close(out, largest)
        assert torch.autograd.grad(out.sum(), k)[0].isfinite().all()


def test_aft_simple_with_zero_keys_is_a_gated_running_mean():
    mixer, x = build(AFTSimple), normal(2, 9, 6)
    q_weight, _, v_weight = mixer.heads.projection.weight.detach().clone().view(3, 6, 6)
    with torch.no_grad():
        mixer.heads.projection.weight[6:12] = 0.0
    mean = (x @ v_weight.T).cumsum(1) / torch.arange(1, 10).view(1, 9, 1)
    expected = (torch.sigmoid(x @ q_weight.T) * mean) @ mixer.heads.output.weight.T
    torch.testing.assert_close(mixer(x), expected)


def test_aft_simple_is_linear_attention_with_a_head_per_channel():
    k, v = normal(2, 70, 2, 3), normal(2, 70, 2, 3, seed=1)
    feature = k.exp().flatten(2).unsqueeze(-1)
    values = torch.stack((v.flatten(2), torch.ones(2, 70, 6, dtype=FP64)), -1)
    summed, weight = linear_attention(torch.ones_like(feature), feature, values)[0].unbind(-1)
    torch.testing.assert_close(exponential_average(k, v)[0].flatten(2), summed / weight)


def test_aft_full_without_biases_is_aft_simple():
    simple, x = build(AFTSimple), normal(2, 70, 6)
    full = with_shared_weights(build(AFTFull, seed=1), simple)
    assert (full(x) - simple(x)).abs().max() > 1e-4
    with torch.no_grad():
        full.left.weight.zero_()
    torch.testing.assert_close(full(x), simple(x))


def test_aft_local_with_a_window_over_everything_is_aft_full():
    full, x, time = build(AFTFull, max_length=40), normal(2, 40, 6), 40
    local = with_shared_weights(build(AFTLocal, max_length=time, window=time, seed=1), full)
    with torch.no_grad():
        biases = full.left.weight @ full.right.weight.T
        for t in range(time):
            local.biases.weight[t, : t + 1] = biases[t, : t + 1].flip(0)
    torch.testing.assert_close(local(x), full(x))


def test_aft_conv_is_aft_local_with_the_same_biases_everywhere():
    conv, x = build(AFTConv, num_heads=1, window=5), normal(2, 40, 6)
    local = with_shared_weights(build(AFTLocal, num_heads=1, max_length=40, window=5, seed=1), conv)
    with torch.no_grad():
        conv.filters.weight.normal_(generator=torch.Generator().manual_seed(2))
        local.biases.weight.copy_(conv.filters.weight[0].expand(40, -1))
    torch.testing.assert_close(conv(x), local(x))


def test_what_leaves_the_window_still_counts():
    v = torch.tensor([6.0, 0.0, 0.0], dtype=FP64).view(1, 3, 1, 1)
    bias = torch.tensor([1.0, 4.0], dtype=FP64).log().view(1, 1, 1, 2)
    out = windowed_average(torch.zeros_like(v), v, bias)[0].flatten()
    torch.testing.assert_close(out, torch.tensor([6.0, 24 / 5, 1.0], dtype=FP64))


@pytest.mark.parametrize("positions", [None, 1, 11])
def test_averages_taken_in_parts_are_those_of_the_whole(positions, monkeypatch):
    """The plain average, and the windowed one with the same biases everywhere and with biases by position."""
    monkeypatch.setattr(chunks, "PART", 4)
    drawn = [normal(2, 11, 3, 5, seed=seed) for seed in (1, 2)]
    drawn += [] if positions is None else [normal(1, positions, 3, 6, seed=3)]
    call, found = exponential_average if positions is None else windowed_average, []
    for path in ("reference", "chunked"):
        leaves = [x.clone().requires_grad_() for x in drawn]
        with ops.use(path):
            out, state = call(*leaves)
        found.append([out, *state, *torch.autograd.grad(out.square().sum(), leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-10)


# --- weights by position -------------------------------------------------------------------------------------------


def test_masked_mixing_reads_the_lower_triangle_and_starts_again_with_a_segment():
    weight = torch.tensor([[2.0, 9.0, 9.0], [10.0, 1.0, 9.0], [0.0, 5.0, 1.0]]).view(1, 1, 3, 3)
    x = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    assert masked_mixing(x, weight)[0].flatten().tolist() == [2.0, 12.0, 13.0]
    packed = masked_mixing(x, weight, segments=torch.tensor([[0, 1, 1]]))[0]
    assert packed.flatten().tolist() == [2.0, 4.0, 23.0]


@pytest.mark.parametrize("kind", BY_POSITION)
def test_positions_that_were_not_learned_are_refused(kind):
    mixer, x = build(kind, max_length=5), normal(1, 6, 6)
    with pytest.raises(InputError, match=r"6 tokens is longer than the 5 positions .* larger max_length"):
        mixer(x)
    _, state = mixer.stream(x[:, :4], mixer.init_state(1, device="cpu", dtype=FP64))
    _, state = mixer.stream(x[:, 4:5], state)
    with pytest.raises(InputError, match="6 tokens"):
        mixer.stream(x[:, 5:], state)
    mixer(x, segments=torch.tensor([[0, 0, 0, 1, 1, 1]]))
    with pytest.raises(InputError, match="6 tokens"):
        mixer(x, segments=torch.zeros(1, 6, dtype=torch.int64))


@pytest.mark.parametrize("kind", [*BY_POSITION, Hyena, S4D, LMU])
def test_members_of_a_cohort_keep_their_own_packed_sequences(kind):
    mixers, x = [build(kind, seed=seed) for seed in range(2)], normal(4, 9, 6)
    segments = torch.tensor([[0] * 4 + [1] * 5, [0] * 9, [2] * 7 + [-1] * 2, [0, 1, 1, 2, 2, 2, 3, 3, 3]])
    got = stack(mixers)(x, segments=segments)
    expected = torch.cat(
        [mixer(x[2 * k : 2 * k + 2], segments=segments[2 * k : 2 * k + 2]) for k, mixer in enumerate(mixers)]
    )
    real = segments != -1
    torch.testing.assert_close(got[real], expected[real])


@pytest.mark.parametrize("kind", [AFTFull, MaskedMixer, Hyena, S4D])
def test_members_of_a_cohort_stream_as_they_would_alone(kind):
    mixers, x = [build(kind, seed=seed) for seed in range(2)], normal(4, 9, 6)
    cohort = stack(mixers)
    first, state = cohort.stream(x[:, :5], cohort.init_state(4, device="cpu", dtype=FP64))
    second, _ = cohort.stream(x[:, 5:], state)
    expected = torch.cat([mixer(part) for mixer, part in zip(mixers, x.split(2), strict=True)])
    torch.testing.assert_close(torch.cat((first, second), 1), expected)


def test_a_table_is_read_with_its_groups():
    plain = drawn(2, 3, std=1.0, generator=torch.Generator().manual_seed(0))
    assert plain.read().shape == (1, 2, 3)
    assert stack([plain, Table(torch.zeros(2, 3))]).read().shape == (2, 2, 3)


# --- pooling -------------------------------------------------------------------------------------------------------


def test_pooling_by_hand():
    mixer = Pooling(1, num_heads=1, generator=torch.Generator(), window=3)
    x = torch.tensor([3.0, 9.0, 6.0, 0.0]).view(1, 4, 1)
    assert mixer(x).flatten().tolist() == [0.0, -3.0, 0.0, 5.0]
    assert mixer(x, segments=torch.tensor([[0, 1, 1, 1]])).flatten().tolist() == [0.0, 0.0, 1.5, 5.0]
    with pytest.raises(InputError, match="window of 2 or more"):
        Pooling(1, num_heads=1, generator=torch.Generator(), window=1)


# --- long convolutions ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(time=st.integers(1, 200), past=st.integers(0, 40), groups=st.integers(1, 2), seed=st.integers(0, 99))
def test_every_path_is_the_direct_sum(time, past, groups, seed):
    x, h = normal(2, time, 3, seed=seed), normal(groups, 3, time + past, seed=seed + 1)
    before = normal(2, past, 3, seed=seed + 2)
    results = []
    for path in ("reference", "fft", "products"):
        with ops.use(path):
            results.append(long_convolution(x, h, initial_state=before)[0])
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


@settings(deadline=None, max_examples=40)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_packed_sequences_are_convolved_one_by_one(lengths, seed):
    time = sum(lengths)
    x, h = normal(1, time, 2, seed=seed), normal(1, 2, time, seed=seed + 1)
    segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).unsqueeze(0)
    expected = torch.cat([long_convolution(part, h)[0] for part in x.split(lengths, 1)], 1)
    torch.testing.assert_close(long_convolution(x, h, segments=segments)[0], expected)


def test_toeplitz_by_hand():
    h = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3)
    assert toeplitz(h, 3, 3, first=0)[0, 0].tolist() == [[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [3.0, 2.0, 1.0]]
    assert toeplitz(h, 2, 2, first=2)[0, 0].tolist() == [[3.0, 2.0], [0.0, 3.0]]


@given(length=st.integers(1, 10**6))
def test_a_fast_length_is_long_enough_and_not_much_longer(length):
    got = fast_length(length)
    odd = got >> ((got & -got).bit_length() - 1)
    assert length <= got < 1.25 * length + 1
    assert got <= 8 or odd in (1, 3, 5, 7)


def test_a_filter_that_is_too_short_is_refused():
    with pytest.raises(InputError, match="2 lags is too short for 3 tokens"):
        long_convolution(torch.ones(1, 3, 1), torch.ones(1, 1, 2))


def test_few_tokens_are_multiplied_and_many_transformed():
    before, h = ops.counts(), torch.ones(1, 1, 30)
    long_convolution(torch.ones(1, 1, 1), h, initial_state=torch.ones(1, 20, 1))
    long_convolution(torch.ones(1, 20, 1), h)
    ran = {
        path: ops.counts()[key] - before.get(key, 0)
        for key in ops.counts()
        for name, path in [key]
        if name == "long-convolution"
    }
    assert (ran["products"], ran["fft"]) == (1, 1)


def test_hyena_with_a_delta_for_a_filter_is_two_gates(monkeypatch):
    mixer, x = build(Hyena), normal(2, 20, 6)
    delta = torch.zeros(1, 6, 20, dtype=FP64)
    delta[..., 0] = 1.0
    monkeypatch.setattr(mixer.filter, "forward", lambda lags: delta)
    with torch.no_grad():
        mixer.skip.weight.zero_()
    q, k, v = mixer.conv(mixer.projection(x)).chunk(3, -1)
    torch.testing.assert_close(mixer(x), mixer.output(q * k * v))


def test_a_lag_weighs_the_same_in_sequences_of_any_length():
    mixer = build(Hyena, max_length=16)
    torch.testing.assert_close(mixer.filter(40)[..., :7], mixer.filter(7))


def test_hyenas_filters_decay_and_start_with_about_unit_energy():
    filters = build(Hyena, width=64).filter(1024)
    assert 0.5 < filters.square().sum(-1).mean().item() < 2.0
    assert filters[0, -1, 900:].abs().max() < 1e-4 * filters[0, -1].abs().max()


# --- linear systems ------------------------------------------------------------------------------------------------


def test_a_diagonal_recurrence_by_hand():
    x = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=FP64).view(1, 4, 1)
    decay, angle = torch.tensor([[[math.log(0.5)]]], dtype=FP64), torch.tensor([[[math.pi / 2]]], dtype=FP64)
    real = diagonal_recurrence(x, decay, angle, torch.tensor([1.0, 0.0], dtype=FP64).view(1, 1, 1, 2))[0]
    turned = diagonal_recurrence(x, decay, angle, torch.tensor([0.0, 1.0], dtype=FP64).view(1, 1, 1, 2))[0]
    torch.testing.assert_close(real.flatten(), torch.tensor([1.0, 0.0, -0.25, 0.0], dtype=FP64))
    torch.testing.assert_close(turned.flatten(), torch.tensor([0.0, -0.5, 0.0, 0.125], dtype=FP64))


def test_s4d_is_a_convolution_with_its_kernel():
    mixer, x = build(S4D, state=8), normal(2, 90, 6)
    step, a = mixer.log_step.weight.exp(), torch.complex(-mixer.log_decay.weight.exp(), mixer.frequency.weight)
    read = torch.view_as_complex(mixer.read.weight)
    factor = (step * a).exp()
    lags = torch.arange(90).view(90, 1, 1)
    kernel = 2 * (read * (factor - 1) / a * factor**lags).sum(-1).real.T
    y = diagonal_recurrence(x, *mixer.system())[0]
    torch.testing.assert_close(y, long_convolution(x, kernel.unsqueeze(0))[0])


def test_s4d_starts_from_the_linear_frequencies():
    mixer = build(S4D, state=8)
    torch.testing.assert_close(mixer.frequency.weight[0].detach(), math.pi * torch.arange(4.0).to(FP64))
    assert torch.equal(mixer.log_decay.weight.exp().float(), torch.full((6, 4), 0.5))
    assert mixer.log_step.weight.exp().min() >= 0.000999
    assert mixer.log_step.weight.exp().max() <= 0.1001
    with pytest.raises(InputError, match="even number"):
        build(S4D, state=7)


def test_powers_are_products():
    matrix = 0.5 * normal(3, 3)
    torch.testing.assert_close(powers(matrix, 6)[5], torch.linalg.matrix_power(matrix, 5))


def test_a_linear_system_sees_channels_apart():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=FP64).unsqueeze(0)
    matrix, drive = torch.tensor([[0.0, 2.0], [1.0, 0.0]], dtype=FP64), torch.tensor([1.0, 0.0], dtype=FP64)
    out = linear_system(x, matrix, drive)[0]
    assert out[0].tolist() == [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]]


def test_the_legendre_memory_decodes_its_window():
    """A signal of three slow tones comes back at every delay, an empty memory's read-out does not."""
    theta, order, time = 100.0, 24, 400
    t = torch.arange(time, dtype=FP64)

    def signal(at):
        return torch.sin(2 * math.pi * at / 60) + 0.5 * torch.cos(2 * math.pi * at / 35) - 0.3 * torch.sin(at / 25)

    memory = linear_system(signal(t).view(1, -1, 1), *legendre_system(order, theta))[0][0, :, 0]
    delays = torch.tensor([0.1, 0.25, 0.5, 0.8, 1.0], dtype=FP64)
    decoded = memory[200:] @ legendre_read_out(order, delays).T
    # An input that is held until the next token is half a token late.
    expected = signal(t[200:, None] - delays * theta + 0.5)
    error = (decoded - expected).square().mean(0).sqrt() / expected.square().mean(0).sqrt()
    assert error.max() < 0.02


def test_the_legendre_system_has_the_papers_matrix():
    small = 1e-6
    matrix, drive = legendre_system(3, 1 / small)
    expected = torch.tensor([[-1.0, -1.0, -1.0], [3.0, -3.0, -3.0], [-5.0, 5.0, -5.0]], dtype=FP64)
    torch.testing.assert_close((matrix - torch.eye(3, dtype=FP64)) / small, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(drive / small, torch.tensor([1.0, -3.0, 5.0], dtype=FP64), atol=1e-4, rtol=0)


def test_lmu_reads_its_memory_and_the_present():
    mixer, x = build(LMU, width=4, num_heads=1, order=6, window=10.0), normal(2, 30, 4)
    memory = linear_system(mixer.projection(x), mixer.matrix, mixer.drive)[0].flatten(2)
    torch.testing.assert_close(mixer(x), mixer.output(torch.cat((memory, x), 2)))
    with pytest.raises(InputError, match="positive"):
        build(LMU, window=0.0)
