"""Kernels of decoding: equal shares of uneven pasts, and one fused step of every memory of constant size."""

import math

import pytest
import torch
from torch import Tensor

from contexture import ops
from contexture.ops.lean_decode import lean_decode, lean_decode_reference
from contexture.testing.agreement import agree
from contexture.testing.ops import TOLERANCES, registered_ops
from contexture.testing.poison import PoisonedMemory
from kernel_toys import DEVICE, STEPS, linux

pytestmark = linux
OPS = registered_ops()


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "out", "lengths", "past"),
    [(4, 2, 6, 5, [1, 40, 17, 130], 130), (3, 1, 16, 33, [64, 1, 5, 2], 64)],
)
def test_decoding_is_attention_to_the_first_tokens(dtype, heads, kv_heads, dim, out, lengths, past):
    shapes = (4, heads, dim), (4, past, kv_heads, dim), (4, past, kv_heads, out)
    inputs = [draw(*shape).to(dtype) for shape in shapes]
    weights, lengths = draw(4, heads, out).to(dtype), torch.tensor(lengths)
    exact = [x.double().requires_grad_() for x in inputs]
    expected = lean_decode_reference(*exact, lengths)
    wanted = torch.autograd.grad((expected * weights.double()).sum(), exact)
    beyond = (torch.arange(past) >= lengths[:, None])[:, :, None, None]
    spoilt = [inputs[0], *(x.masked_fill(beyond, math.nan) for x in inputs[1:])]
    leaves = [x.to(DEVICE).requires_grad_() for x in spoilt]
    with PoisonedMemory(), ops.use("triton"):
        got = lean_decode(*leaves, lengths.to(DEVICE))
        found = torch.autograd.grad((got * weights.to(DEVICE)).sum(), leaves)
    agree("values", "the output", got.cpu(), expected, tolerance=TOLERANCES[dtype][0])
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        agree("values", f"gradient {number}", one.cpu(), other, tolerance=TOLERANCES[dtype][1])


def test_decoding_reads_keys_where_they_lie():
    # Keys and values side by side in one cache, with heads outermost.
    cache = draw(2, 3, 20, 8).float().to(DEVICE)
    k, v = cache.transpose(1, 2).split(4, -1)
    q, lengths = draw(2, 3, 4).float().to(DEVICE), torch.tensor([20, 7], device=DEVICE)
    with ops.use("triton"):
        got = lean_decode(q, k, v, lengths)
    torch.testing.assert_close(got, lean_decode_reference(q, k, v, lengths))


def test_decoding_counts_its_path():
    before = ops.counts().get(("lean-decode", "triton"), 0)
    one = torch.ones(1, 1, 1, 1, device=DEVICE)
    with ops.use("triton"):
        assert lean_decode(one[0], one, 3 * one, torch.tensor([1], device=DEVICE)).item() == 3.0
    assert ops.counts()["lean-decode", "triton"] == before + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", STEPS)
def test_one_step_is_the_reference(name, dtype):
    op, generator = OPS[name], torch.Generator().manual_seed(0)
    inputs = [x.to(dtype) for x in op.sample(generator, batch=2, time=1, heads=3, dim=70)]
    with ops.use("reference"):
        state = op.call(*(x.double() for x in inputs))[1].float()
        expected, last = op.call(*(x.double() for x in inputs), initial_state=state.double())
    there = [x.to(DEVICE) for x in inputs]
    with PoisonedMemory(), ops.use("triton"), torch.no_grad():
        got, after = op.call(*there, initial_state=state.to(DEVICE))
    agree("values", "the output", got.cpu(), expected, tolerance=TOLERANCES[dtype][0])
    agree("values", "the state", after.cpu(), last, tolerance=1e-5)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_one_kernel_and_training_takes_the_chunks(name, monkeypatch):
    from contexture.ops.triton import steps

    calls = []
    for kernel in ("_memory_kernel", "_scan_kernel"):
        monkeypatch.setattr(steps, kernel, Counter(getattr(steps, kernel), calls))
    generator = torch.Generator().manual_seed(0)
    inputs = [x.float().to(DEVICE) for x in OPS[name].sample(generator, batch=1, time=1, heads=1, dim=4)]
    with ops.use("triton"), torch.no_grad():
        fused = OPS[name].call(*inputs)[0]
    assert len(calls) == 1
    with ops.use("triton"):
        chunked = OPS[name].call(*(x.requires_grad_() for x in inputs))[0]
    assert len(calls) == 1
    torch.testing.assert_close(fused, chunked.detach())


def test_a_step_leaves_the_memory_before_it_alone():
    from contexture.ops.triton.steps import memory_step

    q, k, v = (draw(1, 1, 2, 4).float().to(DEVICE) for _ in range(3))
    state = draw(1, 2, 4, 4).float().to(DEVICE)
    before = state.clone()
    memory_step(q, k, v, state)
    torch.testing.assert_close(state, before, rtol=0, atol=0)


class Counter:
    """A kernel that notes its launches."""

    def __init__(self, kernel, calls):
        self.kernel, self.calls = kernel, calls

    def __getitem__(self, grid):
        self.calls.append(grid)
        return self.kernel[grid]
