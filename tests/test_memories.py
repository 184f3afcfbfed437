"""Memories that learn while they are read: examples by hand, and what they are when an ingredient is left out."""

import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contexture import discovery
from contexture.errors import InputError
from contexture.mixers.memory_caching import MemoryCachingGated, MemoryCachingResidual, MemoryCachingSoup
from contexture.models.state import tensors
from contexture.ops import cached_memories as cached
from contexture.ops import dispatch
from contexture.ops.anchors import even_windows, windows
from contexture.ops.atlas import OP as ATLAS
from contexture.ops.atlas import atlas
from contexture.ops.decay_products import between, since
from contexture.ops.deep_memory import OP as DEEP
from contexture.ops.deep_memory import deep_memory
from contexture.ops.delta_rule import delta_rule
from contexture.ops.kernel_delta_rule import kernel_delta_rule
from contexture.ops.linear_attention import linear_attention
from contexture.ops.memories import GatedNetwork, Matrix, Network, total_loss
from contexture.ops.newton_schulz import CACHED, orthogonalised, orthogonalised_lean
from contexture.ops.omega import omega
from contexture.ops.polynomial_features import num_features, quadratic_features
from contexture.ops.titans import OP as TITANS
from contexture.ops.titans import titans
from contexture.ops.unit import unit

FP64 = torch.float64


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=FP64)


def inputs(time=70, dim=5, heads=2, batch=2, seed=0):
    q, k, v = draw(3, batch, time, heads, dim, seed=seed)
    rate = torch.sigmoid(draw(batch, time, heads, seed=seed + 1))
    return q, unit(k), v, rate, torch.zeros_like(rate)


def close(one, other, *, tolerance=1e-11):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_momentum_and_forgetting_by_hand():
    one = torch.ones(1, 3, 1, 1, dtype=FP64)
    v = torch.tensor([8.0, 0.0, 0.0], dtype=FP64).view(1, 3, 1, 1)
    half = torch.full((1, 3, 1), 0.5, dtype=FP64)
    out, state = titans(one, one, v, half, half.log(), (half / 2).log(), chunk=1)
    # S: 4, then 4/2 - 4/2 = 0, then 0/2 - 1/2 = -1/2;  M: 4, then 4/4 + 0 = 1, then 1/4 - 1/2 = -1/4.
    assert out.flatten().tolist() == [4.0, 1.0, -0.25]
    assert state.momentum.item() == -0.5


def test_gradients_at_the_start_of_a_chunk_by_hand():
    one, zero = torch.ones(1, 4, 1, 1, dtype=FP64), torch.zeros(1, 4, 1, dtype=FP64)
    out, state = titans(one, one, 8 * one, zero + 0.25, zero - torch.inf, zero, chunk=2)
    assert out.flatten().tolist() == [2.0, 4.0, 5.0, 6.0]
    assert (state.anchor.item(), state.offset.item()) == (4.0, 0)


def test_titans_without_momentum_and_forgetting_is_the_delta_rule():
    q, k, v, rate, zero = inputs()
    out, state = titans(q, k, v, rate, zero - torch.inf, zero, chunk=1)
    expected, memory = delta_rule(q, k, v, rate)
    close(out, expected)
    close(state.memory, memory)


def test_titans_whose_chunk_is_the_sequence_is_linear_attention():
    q, k, v, rate, zero = inputs()
    out, _ = titans(q, k, v, rate, zero - torch.inf, zero, chunk=70)
    close(out, linear_attention(q, k, v * rate.unsqueeze(-1))[0])


def test_omega_with_a_window_of_one_is_the_delta_rule():
    q, k, v, rate, zero = inputs()
    out, state = omega(q, k, v, rate, zero + 1, zero, window=1, chunk=1)
    expected, memory = delta_rule(q, k, v, rate)
    close(out, expected)
    close(state.memory[0], memory)
    assert state.momentum == ()


@pytest.mark.parametrize("chunk", [1, 7, 16])
def test_two_ops_agree_on_a_matrix_with_momentum(chunk):
    q, k, v, rate, zero = inputs()
    log_eta, log_keep = (-rate).exp().log(), zero - 0.05
    rule = {"memory": Matrix(), "step": "descent", "window": 1, "chunk": chunk, "log_eta": log_eta, "segments": None}
    fresh = torch.zeros(1, 2, 5, 5, dtype=FP64)
    out, _ = DEEP.paths["chunked"](q, k, v, 0.2 * rate, zero + 1, log_keep, fresh=(fresh,), initial_state=None, **rule)
    close(out, titans(q, k, v, 0.2 * rate, log_eta, log_keep, chunk=chunk)[0])


def test_a_window_over_everything_and_small_steps_find_least_squares():
    k = unit(draw(1, 8, 1, 4))
    weights = draw(4, 3)
    v = k @ weights
    keys, values = k.repeat(1, 60, 1, 1), v.repeat(1, 60, 1, 1)
    still = torch.zeros(1, 480, 1, dtype=FP64)
    small, large = (
        omega(keys, keys, values, still + 0.05, still + 1, still, window=window, chunk=1)[1].memory[0]
        for window in (1, 8)
    )
    distances = [float((memory[0, 0] - weights).norm() / weights.norm()) for memory in (small, large)]
    assert distances[1] < 1e-3 < distances[0]


def test_a_window_reaches_back_and_no_further():
    q, k, v, rate, zero = inputs(time=12)
    first = v.clone()
    first[:, 0] += 1
    rule = {"window": 4, "chunk": 3, "loss": "product"}
    outs = [omega(q, k, x, rate, zero + 1, zero - torch.inf, **rule)[0] for x in (v, first)]
    moved = (outs[0] - outs[1]).abs().amax((0, 2, 3)) > 1e-12
    assert moved.tolist() == [True] * 4 + [False] * 8


@pytest.mark.parametrize("loss", ["squared", "product"])
@pytest.mark.parametrize("kind", [Matrix, Network, GatedNetwork])
def test_inner_gradients_are_those_of_autograd(kind, loss):
    memory, dim, hidden = kind(loss), 3, 4
    shapes = {Matrix: [(dim, dim)], Network: [(dim, hidden), (hidden, dim)]}
    shapes[GatedNetwork] = [(dim, hidden), (dim, hidden), (hidden, dim)]
    parts = tuple(draw(2, 2, *shape, seed=n).requires_grad_() for n, shape in enumerate(shapes[kind]))
    k, v, weight = draw(2, 2, 6, dim, seed=7), draw(2, 2, 6, dim, seed=8), draw(2, 2, 6, 1, seed=9)
    gradients = torch.autograd.grad(total_loss(memory, parts, k, v, weight), parts)
    for gradient, (went_in, came_back) in zip(gradients, memory.errors(parts, k, v), strict=True):
        close(-gradient, (went_in * weight).mT @ came_back)


def test_one_step_of_a_network_by_hand():
    one, zero = torch.ones(1, 1, 1, 1, dtype=FP64), torch.zeros(1, 1, 1, dtype=FP64)
    out, _ = deep_memory(one, one, 3 * one, zero + 0.5, zero + 1, zero, zero - torch.inf, 2 * one, one, chunk=1)
    share = 1 / (1 + math.exp(-2))
    slope, active = share * (1 + 2 * (1 - share)), 2 * share
    error = 3 - 1 - active
    first, second = 2 + 0.5 * error * slope, 1 + 0.5 * error * active
    assert out.item() == pytest.approx(1 + second * first / (1 + math.exp(-first)))


def test_no_grad_leaves_the_inner_steps_as_they_are():
    q, k, v, rate, zero = inputs(time=12)
    parts = draw(1, 2, 5, 6), draw(1, 2, 6, 5)
    for path in ("reference", "chunked"):
        with dispatch.use(path):
            expected = deep_memory(q, k, v, 0.1 * rate, zero + 1, zero, zero - 1, *parts)[0]
            with torch.no_grad():
                assert torch.equal(deep_memory(q, k, v, 0.1 * rate, zero + 1, zero, zero - 1, *parts)[0], expected)


@pytest.mark.parametrize("shape", [(6, 6), (3, 8), (8, 3)])
def test_newton_schulz_brings_singular_values_near_one(shape):
    values = torch.linalg.svdvals(orthogonalised(draw(4, *shape)))
    assert 0.6 < values.min() < values.max() < 1.3
    assert not orthogonalised(torch.zeros(shape)).any()


def test_newton_schulz_keeps_singular_vectors():
    matrix = draw(5, 4)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.mT @ orthogonalised(matrix) @ right.mT
    close(inner, torch.diag(inner.diagonal()), tolerance=1e-9)


@pytest.mark.parametrize("shape", [(6, 6), (3, 8), (2, 8, 3), (2, 5, 2, 2), (CACHED // 16 + 3, 4, 4)])
def test_newton_schulz_written_gradient_is_that_of_its_definition(shape):
    matrix, weight = draw(*shape).requires_grad_(), draw(*shape, seed=1)
    values = [call(matrix) for call in (orthogonalised, orthogonalised_lean)]
    assert values[0].shape == values[1].shape == shape
    close(values[1], values[0], tolerance=1e-12)
    gradients = [torch.autograd.grad(value, matrix, weight)[0] for value in values]
    close(gradients[1], gradients[0], tolerance=1e-9)


def both_paths(call, drawn):
    """Outputs, last states and gradients by the definition and in chunks."""
    for path in ("reference", "chunked"):
        leaves = [x.clone().requires_grad_() for x in drawn]
        with dispatch.use(path):
            out, state = call(*leaves)
        ends = [out, *(x for x in tensors(state) if x.requires_grad)]
        yield [*ends, *torch.autograd.grad([end.square().sum() for end in ends], leaves)]


def test_atlas_per_token_is_its_definition():
    """In fp64 alone: five iterations magnify an error in a direction that one token has not filled by 485."""
    q, k, v, theta, gamma, log_keep, _ = ATLAS.sample(
        torch.Generator().manual_seed(0), batch=1, time=21, heads=2, dim=4
    )
    drawn = (q, k, v, theta, gamma, log_keep - 0.3, torch.full_like(theta, math.log(0.9)))
    close(*both_paths(functools.partial(atlas, every="token", window=6, chunk=8), drawn), tolerance=1e-8)


@pytest.mark.parametrize("chunk", [1, 5])
def test_titans_is_its_definition_for_any_chunk(chunk):
    drawn = TITANS.sample(torch.Generator().manual_seed(0), batch=2, time=70, heads=2, dim=4)
    close(*both_paths(functools.partial(titans, chunk=chunk), drawn), tolerance=1e-8)


def test_quadratic_features_multiply_to_powers():
    x, y = draw(2, 5)
    powers = [
        float(torch.dot(one, other)) for one, other in zip(quadratic_features(x), quadratic_features(y), strict=True)
    ]
    product = float(torch.dot(x, y))
    assert powers == pytest.approx([1.0, product, product**2])


@pytest.mark.parametrize("size", [2, 4])
def test_capacity_is_the_number_of_features(size):
    features, pairs = num_features(size), 2 * num_features(size)
    assert features == math.comb(size + 2, 2)
    x = draw(pairs, size)
    phi = torch.cat(quadratic_features(x), -1)
    for count in (size, features, pairs):
        assert torch.linalg.matrix_rank(x[:count]) == min(count, size)
        assert torch.linalg.matrix_rank(phi[:count]) == min(count, features)
    values = draw(pairs, 3, seed=1)

    def missed(keys):
        return float((keys @ torch.linalg.lstsq(keys, values[: len(keys)]).solution - values[: len(keys)]).norm())

    assert missed(x[:size]) < 1e-9 < missed(x[: size + 1])
    assert missed(phi[:features]) < 1e-9 < missed(phi[: features + 1])


def build(mixer, seed=0, **rest):
    generator = torch.Generator().manual_seed(seed)
    return mixer(8, num_heads=2, generator=generator, segment_length=4, **rest).double()


def test_residual_caching_of_a_linear_memory_is_linear_attention():
    mixer, x = build(MemoryCachingResidual, memory="linear"), draw(2, 19, 8)
    q, k, v = mixer.heads.split(x)
    theta = torch.sigmoid(mixer.rate(x)).unsqueeze(-1) / 4
    expected, _ = linear_attention(unit(q), unit(k), theta * v)
    close(mixer(x), mixer.heads.join(mixer.norm(expected)))


def test_soup_is_gated_caching_for_a_linear_memory_and_not_for_a_deep_one():
    x = draw(2, 19, 8)
    soup, gated = (build(one, memory="linear")(x) for one in (MemoryCachingSoup, MemoryCachingGated))
    close(soup, gated)
    soup, gated = (build(one)(x) for one in (MemoryCachingSoup, MemoryCachingGated))
    close(soup[:, :4], gated[:, :4])
    assert (soup - gated)[:, 4:].abs().amax((0, 2)).min() > 1e-6


def test_gated_caching_one_token_after_another():
    mixer, x = build(MemoryCachingGated), draw(1, 11, 8)
    q, k, v = (part[0].transpose(0, 1) for part in mixer.heads.split(x))
    q, k, v = unit(q), unit(k), v * (torch.sigmoid(mixer.rate(x))[0].mT.unsqueeze(-1) / 4)
    first, second = (part[0] for part in mixer._fresh(1, device="cpu", dtype=FP64))
    asks, rows = mixer.asks(x)[0] / math.sqrt(8), x[0]

    def memory(start, stop):
        k_part, v_part = k[:, start:stop], v[:, start:stop]
        z = (k_part @ first).requires_grad_()
        hidden = torch.nn.functional.silu(z)
        (slope,) = torch.autograd.grad((hidden * (v_part @ second.mT)).sum(), z)
        w1, w2 = first + k_part.mT @ slope, second + hidden.mT @ v_part
        return lambda one: one + torch.nn.functional.silu(one @ w1) @ w2

    expected = []
    for t in range(11):
        pieces = [(start, min(start + 4, t + 1)) for start in range(t // 4 * 4, -1, -4)]
        scores = torch.stack([asks[t] @ rows[start:stop].mean(0) for start, stop in pieces])
        reads = torch.stack([memory(*piece)(q[:, t : t + 1]).squeeze(1) for piece in pieces])
        expected.append((scores.softmax(0)[:, None, None] * reads).sum(0))
    close(mixer(x)[0], mixer.heads.join(mixer.norm(torch.stack(expected)).unsqueeze(0))[0])


def test_sparse_caching_of_every_segment_is_gated_caching():
    sparse = discovery.registered("mixers")["memory-caching-sparse"]
    x = draw(2, 19, 8)
    close(build(sparse, num_selected=9)(x), build(MemoryCachingGated)(x))
    one, all_of_them = build(sparse, num_selected=1)(x), build(MemoryCachingGated)(x)
    close(one[:, :8], all_of_them[:, :8])
    assert (one - all_of_them)[:, 8:].abs().amax((0, 2)).min() > 1e-9


@settings(deadline=None, max_examples=30)
@given(
    time=st.integers(1, 20),
    chunk=st.integers(1, 6),
    past=st.integers(0, 4),
    offset=st.integers(0, 5),
    seed=st.integers(0, 9),
)
def test_windows_hold_every_token_once_and_what_was_before_it(time, chunk, past, offset, seed):
    ids = torch.randint(0, 3, (2, time), generator=torch.Generator().manual_seed(seed)).sort(1).values
    cut = windows(time, chunk, past, torch.tensor([0, offset % chunk]), ids)
    x = torch.arange(float(2 * time)).view(2, time, 1)
    assert torch.equal(cut.paste(cut.own(x)), x)
    held = cut.cut(torch.cat((torch.full((2, past, 1), -1.0), x), 1)).squeeze(-1)
    own, before = held[..., past:][cut.real[..., past:]], cut.real[..., :past]
    assert sorted(own.tolist()) == x.flatten().tolist()
    first = held[..., past]
    for row, n, lag in before.nonzero().tolist():
        token = held[row, n, lag]
        assert token == (first[row, n] - past + lag if first[row, n] - past + lag >= row * time else -1)
        if token >= 0:
            assert ids[row, int(token) - row * time] == ids[row, int(first[row, n]) - row * time]


def test_even_windows_are_the_windows_of_one_segment():
    x = draw(1, 10, 2)
    even, other = even_windows(10, 4, 0, device="cpu"), windows(10, 4, 0, torch.tensor([0]), None)
    assert torch.equal(even.real, other.real)
    assert torch.equal(even.complete, other.complete)
    assert torch.equal(even.own(x)[even.real], other.own(x)[other.real])


def test_the_kernel_delta_rule_is_the_delta_rule_on_explicit_features():
    q, k, v, rate, _ = inputs(time=12, heads=1, batch=1)
    points = torch.cat((unit(q), k), 1)[0, :, 0]
    features = torch.linalg.cholesky(torch.exp(3.0 * (points @ points.mT - 1)))
    phi_q, phi_k = features.view(2, 1, 12, 1, 24)
    close(
        kernel_delta_rule(unit(q), k, v, rate, sharpness=3.0)[0], delta_rule(phi_q, phi_k, v, rate)[0], tolerance=1e-9
    )


def test_products_of_decays():
    decays = torch.tensor([0.5, 0.0, 0.25], dtype=FP64)
    expected = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0.25, 1]], dtype=FP64)
    close(between(decays.log()), expected)
    close(since(decays.log()), torch.tensor([0.5, 0.0, 0.0], dtype=FP64))


@pytest.mark.parametrize(
    ("name", "wrong"), [("titans", {"chunk": 0}), ("omega", {"window": 0}), ("atlas", {"chunk": 0})]
)
def test_empty_chunks_and_windows_are_refused(name, wrong):
    mixer = discovery.registered("mixers")[name]
    with pytest.raises(InputError, match="give 1 or more"):
        mixer(8, num_heads=2, generator=torch.Generator(), **wrong)


def test_a_compiled_graph_carries_a_state_into_packed_sequences():
    q, k, v, rate, zero = inputs(time=20)
    parts = draw(1, 2, 5, 6), draw(1, 2, 6, 5)
    gates = (0.1 * rate, zero + 1, zero - 0.1, zero - 1)
    ids = torch.tensor([[3] * 5 + [4] * 15, [1] * 18 + [-1] * 2])

    def packed(values):
        _, before = deep_memory(q, k, values, *gates, *parts, window=3, chunk=8)
        out, after = deep_memory(q, k, values, *gates, *parts, window=3, chunk=8, initial_state=before, segments=ids)
        return [out, *tensors(after)]

    results = []
    for function in (packed, torch.compile(packed, fullgraph=True, backend="aot_eager")):
        values = v.clone().requires_grad_()
        found = function(values)
        results.append([*found, *torch.autograd.grad(found[0].square().sum() + found[1].sum(), values)])
    close(*results)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("tile", "most_features"), [(16, 1), (300, 20), (2**20, 2**10)])
def test_tiles_of_cached_memories_are_their_definition(parts, tile, most_features, monkeypatch):
    """Tiles of one token and one memory, of some, and one for all; weights of zero leave tiles out."""
    monkeypatch.setattr(cached, "TILE", tile)
    monkeypatch.setattr(cached, "MOST_FEATURES", most_features)
    q, weights = draw(2, 11, 3, 4), draw(2, 11, 5, seed=1)
    weights = torch.where(weights < 0, 0.0, weights)
    weights[:, 4:8] = 0
    memories = [draw(2, 5, 3, 4, 7, seed=2), draw(2, 5, 3, 7, 4, seed=3)][:parts]
    found = []
    for path in ("reference", "chunked"):
        leaves = [x.clone().requires_grad_() for x in (q, weights, *memories)]
        with dispatch.use(path):
            out = cached.cached_memories(*leaves)
        found.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    assert not found[1][2][weights == 0].any()
    for one, other in zip(*found, strict=True):
        close(other, one)
