"""Kernels beyond the laws: settings of their own, sizes that need another tile, and the mixers that call them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from contexture import discovery, ops
from contexture.errors import InputError
from contexture.testing.agreement import agree, rms
from contexture.testing.kernels import PACKED
from contexture.testing.ops import TOLERANCES, registered_ops
from contexture.testing.poison import PoisonedMemory
from kernel_toys import DEVICE, linux

pytestmark = linux
OPS = registered_ops()
SEGMENTS = torch.tensor([PACKED[0][:40], PACKED[1][:40]])


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).float().double()


def sample(name: str, time: int, *, heads: int = 1, dim: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    return [x.float().double() for x in OPS[name].sample(generator, batch=2, time=time, heads=heads, dim=dim)]


def check(name: str, inputs: list[Tensor], **settings) -> None:
    """Outputs and gradients on the kernel's path against the reference in fp64."""
    results = []
    for path, dtype, device in (("reference", torch.float64, "cpu"), ("triton", torch.float32, DEVICE)):
        leaves = [x.to(device, dtype).requires_grad_() for x in inputs]
        there = {key: x.to(device) if isinstance(x, Tensor) else x for key, x in settings.items()}
        with PoisonedMemory(), ops.use(path, op=name):
            out = OPS[name].call(*leaves, **there)[0]
            weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out)
            results.append((out, torch.autograd.grad(out, leaves, weights, materialize_grads=True)))
    (expected, wanted), (got, found) = results
    values, slopes = TOLERANCES[torch.float32]
    agree("settings", f"the output of {name}", got.cpu(), expected, tolerance=values)
    largest = max(rms(gradient) for gradient in wanted)
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        agree("settings", f"gradient {number} of {name}", one.cpu(), other, tolerance=slopes, scale=1e-3 * largest)


@pytest.mark.parametrize("window", [0, 40])
def test_native_hybrid_windows(window):
    check("native-hybrid-attention", sample("native-hybrid-attention", 34), window=window)


def test_native_hybrid_without_slots():
    inputs = sample("native-hybrid-attention", 34)
    inputs[3] = inputs[3][..., :0]
    check("native-hybrid-attention", inputs, window=5)


def test_native_hybrid_forgets_as_strongly_as_it_may():
    inputs = sample("native-hybrid-attention", 34)
    inputs[3] = 4 * inputs[3] - 1
    # What the future would be to the past exceeds fp32 before it is masked.
    with np.errstate(over="ignore", invalid="ignore"):
        check("native-hybrid-attention", inputs)


@pytest.mark.parametrize(
    ("block", "num_retrieved", "packed"), [(5, None, True), (5, 2, False), (6, 1, True), (70, None, False)]
)
def test_landmark_blocks(block, num_retrieved, packed):
    segments = SEGMENTS if packed else None
    rest = {"block": block, "num_retrieved": num_retrieved, "segments": segments}
    check("landmark-attention", sample("landmark-attention", 40 if block < 70 else 75), **rest)


@pytest.mark.parametrize(("queries", "slots"), [(32, 32), (16, 32)])
def test_landmark_tiles_of_large_heads(queries, slots, monkeypatch):
    from contexture.ops.triton import landmark_attention

    cut = landmark_attention.Cut(queries, slots, num_stages=1)
    monkeypatch.setattr(landmark_attention, "cut", lambda *sizes: cut)
    check("landmark-attention", sample("landmark-attention", 75), block=5)


def test_landmark_blocks_that_are_too_long_are_refused():
    inputs = [x.float().to(DEVICE) for x in sample("landmark-attention", 2)]
    with ops.use("triton"), pytest.raises(InputError, match="blocks of up to 256 tokens, not 300"):
        OPS["landmark-attention"].call(*inputs, block=300)


@pytest.mark.parametrize(("num_routes", "dim", "packed"), [(2, 6, True), (2, 144, False)])
def test_routes(num_routes, dim, packed):
    segments = SEGMENTS if packed else None
    check(
        "routed-linear-attention",
        sample("routed-linear-attention", 40 if packed else 20, dim=dim),
        num_routes=num_routes,
        segments=segments,
    )


def test_the_scan_takes_groups_of_rows_and_large_states():
    x, dt, _, _, _ = sample("selective-scan", 12, dim=20)
    check("selective-scan", [x, dt, -draw(2, 20, 40).exp(), draw(2, 12, 40), draw(2, 12, 40)])


def test_memories_that_are_not_read_get_no_gradient():
    weights = torch.rand(2, 70, 3, dtype=torch.float64).float().double()
    weights[:, :64, 2], weights[0, 64:, 0] = 0, 0
    check("cached-memories", [draw(2, 70, 2, 6), weights, draw(3, 2, 6, 9)])


@pytest.mark.parametrize(("name", "settings"), [
    ("titans", {"chunk": 3}),
    ("omega", {"chunk": 3, "window": 4, "segments": SEGMENTS}),
    ("omega", {"loss": "product", "window": 2}),
])  # fmt: skip
def test_chunks_of_learned_memories(name, settings):
    check(name, sample(name, 40 if "segments" in settings else 17), **settings)


@pytest.mark.parametrize(("name", "packed"), [("delta-rule", False), ("gated-delta-rule", True)])
def test_gradients_of_the_delta_rules_take_large_heads_tile_by_tile(name, packed, monkeypatch):
    from contexture.ops.triton import delta_chunks

    inputs = sample(name, 40, dim=37)
    inputs[2] = inputs[2][..., :21]
    # Tiles of 16, 16 and 5 key channels; passes over 16 and 5 columns; chunks of 16, 16 and 8 steps.
    cut = delta_chunks.Cut(16, scanned=16, num_warps=4, num_stages=1, tile=16, passed=16, tile_warps=4)
    monkeypatch.setattr(delta_chunks, "cut", lambda *sizes: cut)
    check(name, inputs, **({"segments": SEGMENTS} if packed else {}))


@pytest.mark.parametrize(("dim", "itemsize", "steps", "tile", "warps"), [
    (64, 2, 64, 32, 4),
    (128, 2, 64, 128, 8),
    (256, 2, 32, 64, 4),
    (64, 4, 32, 64, 4),
    (256, 4, 32, 64, 4),
])  # fmt: skip
def test_tiles_of_the_delta_rules_gradients(dim, itemsize, steps, tile, warps):
    from contexture.ops.triton.delta_chunks import cut

    found = cut(8192, dim, dim, itemsize)
    assert (found.size, found.tile, found.tile_warps, found.passed * itemsize) == (steps, tile, warps, 64)


MIXERS = (
    ("mamba", "selective-scan", {}),
    ("native-hybrid", "native-hybrid-attention", {"window": 5}),
    ("landmark", "landmark-attention", {"block": 5}),
    ("sse", "routed-linear-attention", {}),
    ("omega", "omega", {}),
    ("titans", "titans", {}),
    ("memory-caching-soup", "cached-memories", {}),
    ("memory-caching-sparse", "cached-memories", {}),
)


@pytest.mark.parametrize(("name", "op", "settings"), MIXERS)
def test_mixers_give_the_same_on_either_path(name, op, settings):
    generator = torch.Generator().manual_seed(0)
    mixer = discovery.find(name, "mixers")(8, num_heads=1, generator=generator, **settings).to(DEVICE)
    x = torch.randn(2, 10, 8, generator=generator).to(DEVICE)
    segments = torch.tensor([[0] * 6 + [1] * 4, [2] * 8 + [-1] * 2], device=DEVICE)
    results = []
    for path in ("reference", "triton"):
        before = ops.counts().get((op, path), 0)
        with ops.use(path, op=op):
            out = mixer(x, segments=segments).masked_fill((segments == -1).unsqueeze(-1), 0.0)
            slopes = torch.autograd.grad(out.square().sum(), list(mixer.parameters()), materialize_grads=True)
            with torch.no_grad():
                first, state = mixer.stream(x[:, :9], mixer.init_state(2, device=DEVICE, dtype=x.dtype))
                streamed = torch.cat((first, mixer.stream(x[:, 9:], state)[0]), 1)
        assert ops.counts()[op, path] >= before + 3
        results.append((out, streamed, slopes))
    expected, got = results
    values, tolerance = TOLERANCES[torch.float32]
    agree("paths", "the packed output", got[0], expected[0], tolerance=values)
    agree("paths", "the streamed output", got[1], expected[1], tolerance=values)
    largest = max(rms(gradient) for gradient in expected[2])
    for one, other in zip(got[2], expected[2], strict=True):
        agree("paths", "a parameter's gradient", one, other, tolerance=tolerance, scale=1e-2 * largest)
