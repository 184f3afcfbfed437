"""How kernels are launched: grids that a GPU takes, the device of the inputs, and memories handed in as they lie."""

import subprocess
import sys

import pytest
import torch

from contexture import discovery, ops
from contexture.ops import kernels
from contexture.ops.linear_attention import linear_attention
from contexture.testing.agreement import agree
from contexture.testing.kernels import ops_with_kernels
from kernel_toys import DEVICE, STEPS, linux

interpreted = pytest.mark.skipif(not kernels.interpreted(), reason="a GPU does not tell its grids")
OPS = discovery.ops()


def grids(name: str, batch: int, monkeypatch) -> list[tuple[int, ...]]:
    """The grids that one call launches, forward and backward."""
    from triton.runtime.interpreter import GridExecutor

    found, launch = [], GridExecutor.__call__

    def noted(self, *arguments, **keywords):
        found.append(tuple(self.grid))
        return launch(self, *arguments, **keywords)

    generator = torch.Generator().manual_seed(0)
    drawn = OPS[name].sample(generator, batch=batch, time=3, heads=1, dim=2)
    leaves = [x.float().requires_grad_() if x.is_floating_point() else x for x in drawn]
    with monkeypatch.context() as patch, ops.use("triton", op=name):
        patch.setattr(GridExecutor, "__call__", noted)
        OPS[name].call(*leaves)[0].sum().backward()
    return found


@linux
@interpreted
@pytest.mark.parametrize("name", [*ops_with_kernels(), "lean-decode"])
def test_the_batch_lies_along_the_first_axis_of_a_grid(name, monkeypatch):
    # Of the other axes a GPU takes 65,535: 64 members of a cohort, batches of 128 and 8 heads are 65,536.
    few, many = (grids(name, batch, monkeypatch) for batch in (1, 3))
    assert len(few) == len(many) > 1
    assert [grid[1:] for grid in few] == [grid[1:] for grid in many]
    assert sum(grid[0] for grid in many) > sum(grid[0] for grid in few)


@linux
@pytest.mark.parametrize("name", STEPS)
def test_a_memory_may_lie_as_it_likes_and_be_of_half_precision(name):
    generator = torch.Generator().manual_seed(0)
    inputs = [x.float() for x in OPS[name].sample(generator, batch=2, time=20, heads=2, dim=3)]
    with ops.use("reference"):
        shape = OPS[name].call(*inputs)[1].shape
        state = torch.randn(shape, generator=generator).to(torch.bfloat16).mT.contiguous().mT
        expected, last = OPS[name].call(*(x.double() for x in inputs), initial_state=state.double())
    assert not state.is_contiguous()
    for gradient in (True, False):
        there = [x[:, : 20 if gradient else 1].to(DEVICE) if x.shape[:2] == (2, 20) else x.to(DEVICE) for x in inputs]
        before = state.to(DEVICE).requires_grad_(gradient)
        with ops.use("triton"), torch.set_grad_enabled(gradient):
            out, after = OPS[name].call(*there, initial_state=before)
        agree("launches", f"the output of {name}", out.detach().cpu(), expected[:, : out.shape[1]], tolerance=1e-5)
        assert after.dtype == torch.float32
        if gradient:
            agree("launches", f"the state of {name}", after.detach().cpu(), last, tolerance=1e-5)
            (slope,) = torch.autograd.grad(out.sum(), before)
            assert slope.dtype == state.dtype


@linux
def test_a_kernel_runs_on_the_device_of_its_first_input(monkeypatch):
    seen, right = [], torch.cuda.device_of

    def noted(tensor):
        seen.append(tensor)
        return right(tensor)

    monkeypatch.setattr(torch.cuda, "device_of", noted)
    q, k, v = (torch.ones(1, 2, 1, 4, device=DEVICE) for _ in range(3))
    with ops.use("triton", op="linear-attention"):
        linear_attention(q, k, v)
    assert len(seen) == 1
    assert seen[0] is q


def test_ops_are_known_where_there_is_no_triton():
    code = "import sys; sys.modules['triton'] = None; from contexture.discovery import ops; print(*ops())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"lean-decode", "linear-attention", "mesa"} <= set(done.stdout.split())
