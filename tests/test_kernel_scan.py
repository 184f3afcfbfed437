"""What the laws of kernels are too short for: gates over many chunks, strong decays, sizes of heads, wide values."""

import pytest
import torch
import torch.nn.functional as F

from contexture import discovery, ops
from contexture.testing.agreement import agree
from contexture.testing.ops import TOLERANCES
from kernel_toys import DEVICE, linux

pytestmark = linux


def both(name: str, inputs: list[torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
    """Outputs, state and gradients: of the reference in fp64, and of the kernel in fp32."""
    op, results = discovery.ops()[name], []
    for path, dtype in (("reference", torch.float64), ("triton", torch.float32)):
        leaves = [x.to(DEVICE, dtype).requires_grad_() for x in inputs]
        with ops.use(path):
            out, state = op.call(*leaves)
        weights = [torch.linspace(-1, 1, end.numel(), device=DEVICE).view(end.shape).to(end) for end in (out, state)]
        results.append((out, state, *torch.autograd.grad((out, state), leaves, weights)))
    return results


def compare(name: str, inputs: list[torch.Tensor]) -> None:
    expected, got = both(name, inputs)
    for number, (one, other) in enumerate(zip(got, expected, strict=True)):
        tolerance = TOLERANCES[torch.float32][number > 1]
        agree("kernels", f"result {number} of {name}", one.cpu(), other.cpu(), tolerance=tolerance)


def drawn(name: str, *, time: int, dim: int, batch: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(time)
    return list(discovery.ops()[name].sample(generator, batch=batch, time=time, heads=1, dim=dim))


def test_the_gradient_of_decays_over_two_groups_of_chunks():
    q, k, v, g = drawn("decayed-linear-attention", time=530, dim=3)
    compare("decayed-linear-attention", [q, k, v, g / 50])


@pytest.mark.parametrize("name", ["decayed-linear-attention", "gated-linear-attention", "gated-delta-rule"])
def test_decays_of_zero_and_strong_ones_cost_the_weak_ones_nothing(name):
    inputs = drawn(name, time=40, dim=3)
    inputs[-1][:, 7] = -torch.inf
    inputs[-1][:, 20:24] = -200.0
    inputs[-1][:, 24:] /= 1000
    got = both(name, inputs)
    for one, other in zip(got[1], got[0], strict=True):
        agree("kernels", name, one.cpu(), other.cpu(), tolerance=1e-4)


@pytest.mark.parametrize("name", ["linear-attention", "gated-linear-attention", "gated-delta-rule"])
@pytest.mark.parametrize("dim", [16, 72, 200])
def test_sizes_of_heads(name, dim):
    compare(name, drawn(name, time=20, dim=dim))


def test_values_may_be_wider_than_keys():
    q, k, v = drawn("linear-attention", time=20, dim=5)
    compare("linear-attention", [q, k, F.pad(v.repeat(1, 1, 1, 14), (0, 1))])


@pytest.mark.parametrize("name", ["linear-attention", "delta-rule", "gated-linear-attention"])
def test_a_gradient_cannot_be_differentiated_again(name):
    leaves = [x.to(DEVICE, torch.float32).requires_grad_() for x in drawn(name, time=2, dim=2)]
    with ops.use("triton"):
        out = discovery.ops()[name].call(*leaves)[0]
    (slope,) = torch.autograd.grad(out.square().sum(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
