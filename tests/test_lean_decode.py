"""Decoding in equal shares: any split gives plain attention, and parts of a softmax join associatively."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contexture.errors import InputError
from contexture.ops.flops import count_flops
from contexture.ops.lean_decode import lean_decode, lean_decode_reference, schedule
from contexture.ops.softmax_attention import softmax_attention
from contexture.ops.softmax_parts import SoftmaxPart, join_groups, join_parts, no_part
from contexture.testing.agreement import rms
from contexture.testing.poison import PoisonedMemory

FP64 = torch.float64
LENGTHS = torch.tensor([1, 40, 17, 33])


def draw(*shape: int, seed: int = 0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FP64)


def inputs(*, heads: int = 4, kv_heads: int = 2, past: int = 40):
    return draw(4, heads, 6), draw(4, past, kv_heads, 6, seed=1), draw(4, past, kv_heads, 5, seed=2)


def test_two_parts_by_hand():
    # Scores log 2 and log 6: weights 1/4 and 3/4.
    parts = [
        SoftmaxPart(torch.tensor([math.log(c)]), torch.ones(1), torch.tensor([[v]])) for c, v in ((2, 8.0), (6, 4.0))
    ]
    joint = join_parts(*parts)
    assert joint.total.item() == pytest.approx(4 / 3)
    assert (joint.summed[:, 0] / joint.total).item() == pytest.approx(5.0)


def part(seed: int) -> SoftmaxPart:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, generator=generator, dtype=FP64) * 10 ** (4 * torch.rand(1, generator=generator).item() - 1)
    total = torch.rand(2, generator=generator, dtype=FP64) + 0.1
    return SoftmaxPart(scores, total, torch.randn(2, 3, generator=generator, dtype=FP64))


def close(one: SoftmaxPart, other: SoftmaxPart) -> None:
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_joining_is_associative_and_commutative_and_has_a_unit(a, b, c):
    one, two, three = part(a), part(b), part(c)
    close(join_parts(join_parts(one, two), three), join_parts(one, join_parts(two, three)))
    close(join_parts(one, two), join_parts(two, one))
    close(join_parts(one, no_part(2, out=3, device="cpu", dtype=FP64)), one)


@given(st.integers(0, 2**31), st.lists(st.integers(0, 2), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_groups_join_like_pairs(seed, groups):
    parts = [part(seed + number) for number in range(len(groups) + 3)]
    groups = [0, 1, 2, *groups]
    stacked = SoftmaxPart(*(torch.stack(tensors) for tensors in zip(*parts, strict=True)))
    joint = join_groups(stacked, torch.tensor(groups), 3)
    for group in range(3):
        expected = no_part(2, out=3, device="cpu", dtype=FP64)
        for one, its in zip(parts, groups, strict=True):
            expected = join_parts(expected, one) if its == group else expected
        close(SoftmaxPart(*(tensor[group] for tensor in joint)), expected)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=4, max_size=4),
    num_workers=st.integers(1, 30),
    tile=st.integers(1, 50),
    kv_heads=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=60, deadline=None)
def test_any_split_is_plain_attention(lengths, num_workers, tile, kv_heads):
    (q, k, v), lengths = inputs(kv_heads=kv_heads), torch.tensor(lengths)
    out = lean_decode(q, k, v, lengths, num_workers=num_workers, tile=tile)
    torch.testing.assert_close(out, lean_decode_reference(q, k, v, lengths), rtol=1e-10, atol=1e-12)


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    heads=st.integers(1, 4),
    num_workers=st.integers(1, 20),
    tile=st.integers(1, 64),
)
@settings(max_examples=60, deadline=None)
def test_shares_are_equal_and_cover_every_token_once(lengths, heads, num_workers, tile):
    line = schedule(torch.tensor(lengths), heads=heads, num_workers=num_workers, tile=tile)
    shares = torch.bincount(line.worker)
    assert shares.numel() <= num_workers
    assert shares.max() - shares.min() <= 1
    assert (line.worker.diff() >= 0).all()
    seen = torch.zeros(len(lengths), heads, max(lengths), dtype=torch.int64)
    for row, head, start in zip(line.row, line.head, line.start, strict=True):
        seen[row, head, start : min(int(start) + tile, lengths[row])] += 1
    for row, length in enumerate(lengths):
        assert (seen[row, :, :length] == 1).all()
        assert (seen[row, :, length:] == 0).all()


def test_a_share_may_end_amid_a_head():
    line = schedule(torch.tensor([6, 2]), heads=2, num_workers=3, tile=2)
    assert line.head.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]
    assert line.worker.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    line = schedule(torch.tensor([6, 2]), heads=1, num_workers=2, tile=2)
    assert line.worker.tolist() == [0, 0, 1, 1]


def test_the_reference_is_softmax_attention_of_the_last_token():
    q, k, v = inputs(heads=2)
    whole = torch.full((4,), 40)
    last = softmax_attention(q.unsqueeze(1), k, v)[0][:, 0]
    torch.testing.assert_close(lean_decode_reference(q, k, v, whole), last)
    torch.testing.assert_close(lean_decode(q, k, v, whole, tile=7), last)


@pytest.mark.parametrize(
    ("dtype", "value", "gradient"),
    [
        (FP64, 1e-10, 1e-10),
        (torch.float32, 1e-5, 1e-4),
        (torch.bfloat16, 1e-2, 2e-2),
        (torch.float16, 2e-3, 5e-3),
    ],
)
def test_values_and_gradients_in_every_dtype(dtype, value, gradient):
    weights, found = draw(4, 4, 5, seed=3).to(dtype), []
    for function, precision in ((lean_decode_reference, FP64), (lean_decode, dtype)):
        leaves = [x.to(dtype).to(precision).requires_grad_() for x in inputs()]
        rest = {"num_workers": 5, "tile": 8} if function is lean_decode else {}
        out = function(*leaves, LENGTHS, **rest)
        assert out.dtype == precision
        found.append((out, *torch.autograd.grad((out * weights.to(precision)).sum(), leaves)))
    for number, (expected, got) in enumerate(zip(*found, strict=True)):
        assert rms(got - expected) <= (gradient if number else value) * rms(expected)


def test_gradients_by_finite_differences():
    leaves = [x.requires_grad_() for x in inputs(heads=2, kv_heads=1)]
    call = lambda q, k, v: lean_decode(q, k, v, LENGTHS, num_workers=3, tile=8)  # noqa: E731
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)


def test_what_lies_beyond_a_length_is_never_read():
    q, k, v = (x.requires_grad_() for x in inputs())
    expected = lean_decode(q, k, v, LENGTHS, tile=8)
    beyond = (torch.arange(40) >= LENGTHS[:, None])[:, :, None, None]
    spoilt = [x.detach().masked_fill(beyond, math.nan).requires_grad_() for x in (k, v)]
    with PoisonedMemory():
        out = lean_decode(q, *spoilt, LENGTHS, tile=8)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(out.sum(), (q, *spoilt)))


def test_large_scores_stay_finite():
    q, k, v = inputs()
    out = lean_decode(1e4 * q.float(), k.float(), v.float(), LENGTHS, tile=8)
    torch.testing.assert_close(out, lean_decode_reference(1e4 * q.float(), k.float(), v.float(), LENGTHS))


def test_work_follows_the_sum_of_lengths():
    (q, k, v), counts = inputs(), []
    for lengths in ([8, 8, 8, 8], [40, 8, 8, 8]):
        counts.append(count_flops(lambda lengths=lengths: lean_decode(q, k, v, torch.tensor(lengths), tile=8)))
    # Four tiles of 8 tokens more, for 2 heads of keys with 2 queries each, products of 6 and 5 numbers.
    assert counts[1] - counts[0] == 4 * 8 * 2 * 2 * 2 * (6 + 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": torch.tensor([0, 1, 1, 1])}, "between 1 and the 40 tokens"),
        ({"lengths": torch.tensor([41, 1, 1, 1])}, r"not \[41, 1, 1, 1\]"),
        ({"num_workers": 0}, "0 workers"),
        ({"q": draw(4, 3, 6)}, "3 heads cannot share 2"),
    ],
)
def test_bad_calls_are_refused(changes, message):
    q, k, v = inputs()
    with pytest.raises(InputError, match=message):
        lean_decode(**({"q": q, "k": k, "v": v, "lengths": LENGTHS} | changes))
