"""Every op keeps the laws of ops, and each law catches three planted faults, one of them subtle."""

import pytest
import torch
from torch import Tensor

from contexture.ops import (
    chunk_blocks,
    decayed_linear_attention,
    delta_chunks,
    dispatch,
    kernel_delta_rule,
    linear_attention,
    quadratic_attention,
)
from contexture.ops.linear_attention import CHUNK, linear_attention_chunked, linear_attention_reference
from contexture.testing import LawError, check_op
from contexture.testing.ops import LAWS, registered_ops

OPS = registered_ops()


def test_every_op_is_found():
    assert sorted(OPS) == [
        "atlas",
        "biased-average",
        "cached-memories",
        "decayed-linear-attention",
        "deep-memory",
        "delta-rule",
        "diagonal-recurrence",
        "exponential-average",
        "flow-attention",
        "gated-delta-rule",
        "gated-linear-attention",
        "kernel-delta-rule",
        "landmark-attention",
        "linear-attention",
        "linear-system",
        "long-convolution",
        "masked-mixing",
        "mesa",
        "moving-average",
        "native-hybrid-attention",
        "omega",
        "prefix-softmax",
        "quadratic-attention",
        "routed-linear-attention",
        "selective-scan",
        "short-convolution",
        "softmax-attention",
        "titans",
        "window-attention",
        "windowed-average",
    ]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", OPS)
def test_laws(name, law):
    check_op(OPS[name], laws=(law,))


IN_BLOCKS = [
    "decayed-linear-attention",
    "delta-rule",
    "gated-delta-rule",
    "gated-linear-attention",
    "linear-attention",
    "quadratic-attention",
]


@pytest.mark.parametrize("name", [*IN_BLOCKS, "kernel-delta-rule"])
def test_laws_hold_block_by_block(name, monkeypatch):
    """Sequences of the laws are short: here every chunk is a block of its own, and every few tokens a part."""
    monkeypatch.setattr(chunk_blocks, "ROWS", 1)
    monkeypatch.setattr(kernel_delta_rule, "PART", 5)
    for module in (decayed_linear_attention, delta_chunks, linear_attention, quadratic_attention):
        monkeypatch.setattr(module, "CHUNK", 8)
    check_op(OPS[name])


def test_blocks_are_few_chunks_on_a_cpu(monkeypatch):
    seen = []

    def mix(rows, factors, state):
        seen.append((len(rows[0]), factors is None))
        return rows[0], state

    x, segments = torch.zeros(2, 21, 3, 1), torch.zeros(2, 21, dtype=torch.int64)
    monkeypatch.setattr(chunk_blocks, "ROWS", 2 * 3 * 8)
    for packed in (None, segments):
        out, _ = chunk_blocks.in_blocks(mix, [x], x.sum(), size=4, segments=packed, dtype=x.dtype)
        assert out.shape == x.shape
    assert seen == [(2, True)] * 3 + [(2, False)] * 3


class Scaled(torch.autograd.Function):
    """The identity, with a gradient one per cent too large."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 1.01 * gradient


def toy(path) -> dispatch.Op:
    """Linear attention with `path` as its fast form."""

    def call(q: Tensor, k: Tensor, v: Tensor, *, initial_state: Tensor | None = None, segments: Tensor | None = None):
        if initial_state is None:
            wide = torch.promote_types(v.dtype, torch.float32)
            initial_state = torch.zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3], dtype=wide)
        return dispatch.run(op, q, k, v, keys=q.shape[1], initial_state=initial_state, segments=segments)

    op = dispatch.Op(
        name="toy",
        paths={"reference": linear_attention_reference, "chunked": path},
        call=call,
        sample=OPS["linear-attention"].sample,
    )
    return op


def mends(path):
    """The path as it should be, so that a mutant differs in its fault alone."""
    return lambda q, k, v, **rest: path(linear_attention_chunked, q, k, v, **rest)


def previous_position(right, q, k, v, **rest):
    out, state = right(q, k, v, **rest)
    return out.roll(1, 1), state


def half_precision(right, q, k, v, **rest):
    out, state = right(q, k, v, **rest)
    return out.to(torch.float16).to(v.dtype), state


def off_by_one_at_the_edge(right, q, k, v, **rest):
    out, state = right(q, k, v, **rest)
    edge = torch.arange(q.shape[1]) % CHUNK == CHUNK - 1
    missed = (q * k).sum(-1, keepdim=True) * v
    return out - missed * edge.view(1, -1, 1, 1).to(out.dtype), state


def forgets_the_state(right, q, k, v, *, initial_state, segments=None):
    return right(q, k, v, initial_state=torch.zeros_like(initial_state), segments=segments)


def returns_the_initial_state(right, q, k, v, *, initial_state, segments=None):
    return right(q, k, v, initial_state=initial_state, segments=segments)[0], initial_state


def drops_the_last_token_of_a_full_chunk(right, q, k, v, *, initial_state, segments=None):
    out, state = right(q, k, v, initial_state=initial_state, segments=segments)
    if q.shape[1] % CHUNK == 0:
        state = state - k[:, -1, :, :, None] * v[:, -1, :, None, :]
    return out, state


def ignores_segments(right, q, k, v, *, initial_state, segments=None):
    return right(q, k, v, initial_state=initial_state)


def reads_padding(right, q, k, v, *, initial_state, segments=None):
    whole = None if segments is None else segments.where(segments >= 0, 99)
    return right(q, k, v, initial_state=initial_state, segments=whole)


def keeps_the_state_where_a_change_meets_an_edge(right, q, k, v, *, initial_state, segments=None):
    if segments is not None:
        edge = torch.arange(segments.shape[1]) % CHUNK == 0
        merged = segments.clone()
        for t in edge.nonzero().flatten().tolist()[1:]:
            merged[:, t] = torch.where(merged[:, t] >= 0, merged[:, t - 1], merged[:, t])
        segments = merged
    return right(q, k, v, initial_state=initial_state, segments=segments)


def gradient_of_values_missing(right, q, k, v, **rest):
    return right(q, k, v.detach(), **rest)


def gradient_of_the_state_missing(right, q, k, v, **rest):
    out, state = right(q, k, v, **rest)
    return out, state.detach() + 0 * state


def gradient_of_keys_scaled(right, q, k, v, **rest):
    return right(q, Scaled.apply(k), v, **rest)


def last_row_never_written(right, q, k, v, **rest):
    out, state = right(q, k, v, **rest)
    fresh = torch.empty_like(out)
    fresh[:, :-1] = out[:, :-1]
    return fresh, state


def sums_into_fresh_memory(right, q, k, v, **rest):
    out, state = right(q, k, v, **rest)
    return torch.empty_like(out).add_(out), state


def one_entry_never_written(right, q, k, v, **rest):
    out, state = right(q, k, v, **rest)
    fresh = torch.empty(state.shape, dtype=state.dtype)
    fresh[..., :-1], fresh[:-1], fresh[:, :-1] = state[..., :-1], state[:-1], state[:, :-1]
    return out, fresh


MUTANTS = {
    "values": (previous_position, half_precision, off_by_one_at_the_edge),
    "carried state": (forgets_the_state, returns_the_initial_state, drops_the_last_token_of_a_full_chunk),
    "segments": (ignores_segments, reads_padding, keeps_the_state_where_a_change_meets_an_edge),
    "gradcheck": (gradient_of_values_missing, gradient_of_the_state_missing, gradient_of_keys_scaled),
    "poisoned memory": (last_row_never_written, sums_into_fresh_memory, one_entry_never_written),
}


def test_every_law_has_three_mutants():
    assert list(MUTANTS) == list(LAWS)
    assert all(len(mutants) == 3 for mutants in MUTANTS.values())


def test_the_toy_keeps_every_law():
    check_op(toy(linear_attention_chunked))


@pytest.mark.parametrize(("law", "mutant"), [(law, mutant) for law, three in MUTANTS.items() for mutant in three])
def test_mutants_are_caught(law, mutant):
    with pytest.raises(LawError) as caught:
        check_op(toy(mends(mutant)), laws=(law,))
    assert caught.value.law == law


def test_a_law_names_the_first_position():
    with pytest.raises(LawError, match="law of values: the output of chunked") as caught:
        check_op(toy(mends(off_by_one_at_the_edge)), laws=("values",))
    assert caught.value.position is not None
    assert caught.value.position[:2] == (0, CHUNK - 1)
