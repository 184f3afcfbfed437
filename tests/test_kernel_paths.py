"""Kernels as paths: asked for by name, counted, refused with a reason, and the same results in the mixers."""

import pytest
import torch

from contexture import discovery, ops
from contexture.cli import main
from contexture.errors import InputError
from contexture.ops import dispatch, kernels
from contexture.ops.linear_attention import linear_attention
from contexture.testing.agreement import agree, rms
from contexture.testing.ops import TOLERANCES
from kernel_toys import DEVICE, linux

USERS = {
    "decayed-linear-attention": ("retention", "mamba-2"),
    "delta-rule": ("delta-rule",),
    "gated-delta-rule": ("gated-delta-rule",),
    "gated-linear-attention": ("gated-linear-attention",),
    "linear-attention": ("linear-attention", "linear-attention-identity"),
}
"""Mixers that call an op which has a kernel."""
SETTINGS = {"mamba-2": {"state_size": 8, "expand": 1}}


def ones(*shape: int, dtype: torch.dtype = torch.float32, device: str = DEVICE) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype, device=device)


@linux
def test_linear_attention_by_hand():
    # Sums of k v': 1 * 2, then + 3 * 1; read by 1 and 2.
    q, k, v = (torch.tensor(x, device=DEVICE).view(1, 2, 1, 1) for x in ([1.0, 2.0], [1.0, 3.0], [2.0, 1.0]))
    with ops.use("triton"):
        out, state = linear_attention(q, k, v)
    assert out.flatten().tolist() == [2.0, 10.0]
    assert state.item() == 5.0


@linux
def test_the_counter_shows_the_path():
    before = ops.counts().get(("linear-attention", "triton"), 0)
    with ops.use("triton", op="linear-attention"):
        linear_attention(*(ones(1, 2, 1, 4) for _ in range(3)))
    assert ops.counts()["linear-attention", "triton"] == before + 1


def test_without_being_asked_a_cpu_takes_no_kernel():
    call = dispatch.Call(device="cpu", dtype=torch.float32, time=64, keys=64, dim=64, gradient=False)
    assert dispatch.choose("linear-attention", call) == "chunked"


def test_a_gpu_takes_the_kernel_where_there_is_one(monkeypatch):
    monkeypatch.setattr(kernels, "installed", lambda: True)

    def chosen(name: str, dim: int = 64, dtype: torch.dtype = torch.bfloat16) -> str:
        call = dispatch.Call(device="cuda", dtype=dtype, time=64, keys=64, dim=dim, gradient=True)
        return dispatch.choose(name, call)

    assert chosen("linear-attention") == "triton"
    assert chosen("linear-attention", dim=512) == "chunked"
    assert chosen("linear-attention", dtype=torch.float64) == "chunked"
    assert chosen("mesa") == "chunked"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"dtype": torch.float64}, "bf16, fp16 and fp32, not float64"),
        ({"dim": 257}, "up to 256, not 257"),
        ({"interpreted": False}, "CUDA devices, not on 'cpu'"),
        ({"installed": False}, "triton is not installed: pip install"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(monkeypatch, settings, reason):
    monkeypatch.setattr(kernels, "installed", lambda: settings.get("installed", True))
    monkeypatch.setattr(kernels, "interpreted", lambda: settings.get("interpreted", True))
    x = ones(1, 2, 1, settings.get("dim", 4), dtype=settings.get("dtype", torch.float32), device="cpu")
    with ops.use("triton"), pytest.raises(InputError, match="'linear-attention' cannot take the path 'triton'") as said:
        linear_attention(x, x, x)
    assert reason in str(said.value)


def test_an_op_without_a_kernel_says_so():
    x = ones(1, 2, 1, 4, device="cpu")
    with ops.use("triton"), pytest.raises(InputError, match=r"'softmax-attention' cannot take .*it has no kernel"):
        discovery.ops()["softmax-attention"].call(x, x, x)


@linux
@pytest.mark.parametrize(("op", "name"), [(op, name) for op, names in USERS.items() for name in names])
def test_mixers_give_the_same_on_either_path(op, name):
    generator = torch.Generator().manual_seed(0)
    mixer = discovery.find(name, "mixers")(16, num_heads=2, generator=generator, **SETTINGS.get(name, {})).to(DEVICE)
    x = torch.randn(2, 20, 16, generator=generator).to(DEVICE)
    segments = torch.tensor([[0] * 9 + [1] * 11, [2] * 17 + [-1] * 3], device=DEVICE)
    results = []
    for path in ("reference", "triton"):
        before = ops.counts().get((op, path), 0)
        with ops.use(path, op=op):
            out = mixer(x, segments=segments).masked_fill((segments == -1).unsqueeze(-1), 0.0)
            first, state = mixer.stream(x[:, :7], mixer.init_state(2, device=DEVICE, dtype=x.dtype))
            streamed = torch.cat((first, mixer.stream(x[:, 7:], state)[0]), 1)
            gradients = torch.autograd.grad(out.sum() + streamed.square().sum(), list(mixer.parameters()))
        assert ops.counts()[op, path] == before + 3
        results.append((out, streamed, gradients))
    expected, got = results
    law, (values, slopes) = "paths", TOLERANCES[torch.float32]
    agree(law, "the packed output", got[0], expected[0], tolerance=values)
    agree(law, "the streamed output", got[1], expected[1], tolerance=values)
    largest = max(rms(gradient) for gradient in expected[2])
    for one, other in zip(got[2], expected[2], strict=True):
        agree(law, "a parameter's gradient", one, other, tolerance=slopes, scale=1e-2 * largest)


@linux
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")
@pytest.mark.parametrize("op", ["linear-attention", "gated-delta-rule"])
def test_a_compiled_mixer_holds_the_kernel_as_one_node(op):
    mixer = discovery.find(op, "mixers")(8, num_heads=2, generator=torch.Generator()).to(DEVICE)
    x = torch.randn(1, 5, 8, generator=torch.Generator()).to(DEVICE).requires_grad_()
    segments = torch.tensor([[0, 0, 1, 1, 1]], device=DEVICE)
    expected = mixer(x, segments=segments)
    (slope,) = torch.autograd.grad(expected.square().sum(), x)
    with ops.use("triton", op=op):
        got = torch.compile(mixer, fullgraph=True, backend="aot_eager")(x, segments=segments)
        (other,) = torch.autograd.grad(got.square().sum(), x)
    agree("paths", "the output", got, expected, tolerance=1e-5)
    agree("paths", "the gradient", other, slope, tolerance=1e-4)


def test_the_command_line_reads_the_variable_once(monkeypatch, capsys):
    monkeypatch.setenv("CONTEXTURE_PATHS", "mesa=reference")
    assert main(["doctor"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  mesa cpu")]
    assert len(rows) == 2
    assert all("training: reference (asked for)" in row for row in rows)
    assert dispatch.overrides() == {}


def test_the_doctor_names_the_path_of_a_single_token(capsys):
    assert main(["doctor"]) == 0
    rows = [line.split(": ", 1)[1] for line in capsys.readouterr().out.splitlines() if " cpu float32: " in line]
    assert "forward: chunked, one token: reference, training: chunked" in "".join(rows)
    assert "forward: sdpa, one token: sdpa, training: sdpa" in "".join(rows)


@pytest.mark.parametrize(("text", "said"), [("=triton", "op=path"), ("a=,b", "op=path"), ("mesma=chunked", "'mesma'")])
def test_a_variable_that_says_nothing_is_bad_input(monkeypatch, capsys, text, said):
    monkeypatch.setenv("CONTEXTURE_PATHS", text)
    assert main(["doctor"]) == 2
    assert said in capsys.readouterr().err
