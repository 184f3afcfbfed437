"""Ops on small numbers that can be checked by hand, the table of paths, and the count of operations."""

import pytest
import torch

from contexture import ops
from contexture.errors import InputError
from contexture.ops import dispatch, segments
from contexture.ops.delta_rule import delta_rule
from contexture.ops.flops import count_flops
from contexture.ops.linear_attention import linear_attention
from contexture.ops.rotary import rotate, turns
from contexture.ops.short_convolution import short_convolution
from contexture.ops.softmax_attention import softmax_attention
from contexture.ops.unit import unit
from contexture.testing.ops import registered_ops


def heads(*rows):
    return torch.tensor(rows, dtype=torch.float64).view(1, len(rows), 1, -1)


def test_softmax_attention_weighs_by_exponentials():
    q, k, v = heads([1.0], [1.0]), heads([0.0], [torch.log(torch.tensor(3.0)).item()]), heads([8.0], [4.0])
    out, state = softmax_attention(q, k, v, scale=1.0)
    torch.testing.assert_close(out.flatten(), torch.tensor([8.0, 0.25 * 8 + 0.75 * 4], dtype=torch.float64))
    assert state.keys.shape == (1, 2, 1, 1)


def test_linear_attention_sums_products():
    out, state = linear_attention(heads([1.0, 2.0], [1.0, 0.0]), heads([1.0, 1.0], [2.0, 5.0]), heads([10.0], [1.0]))
    assert out.flatten().tolist() == [30.0, 12.0]
    assert state.flatten().tolist() == [12.0, 15.0]


def test_the_delta_rule_overwrites():
    key = heads([0.6, 0.8], [0.6, 0.8])
    out, state = delta_rule(key, key, heads([5.0], [7.0]), torch.ones(1, 2, 1, dtype=torch.float64))
    torch.testing.assert_close(out.flatten(), torch.tensor([5.0, 7.0], dtype=torch.float64))
    torch.testing.assert_close(state.flatten(), torch.tensor([4.2, 5.6], dtype=torch.float64))


def test_short_convolution_remembers_its_last_inputs():
    x = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1)
    out, state = short_convolution(x, torch.tensor([[[100.0, 10.0, 1.0]]]))
    assert out.flatten().tolist() == [1.0, 12.0, 123.0]
    assert state.flatten().tolist() == [2.0, 3.0]


def test_rotation_makes_products_depend_on_distance_alone():
    x, y = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = [
        (
            rotate(x, turns(torch.tensor([[p]]), 8, dtype=x.dtype))
            * rotate(y, turns(torch.tensor([[p + 5]]), 8, dtype=x.dtype))
        ).sum()
        for p in (0, 1, 400)
    ]
    torch.testing.assert_close(both[1], both[0])
    torch.testing.assert_close(both[2], both[0])


def test_unit_vectors_and_their_gradient():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    assert unit(x).flatten().tolist() == pytest.approx([0.6, 0.8, 0.0, 0.0])
    y = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: unit(y, epsilon=0.1), y)
    assert torch.autograd.gradgradcheck(lambda y: unit(y, epsilon=0.1), y)


def test_runs_and_positions():
    ids = torch.tensor([[4, 4, -1, 4, 4, 4], [0, 1, 1, 2, -1, -1]])
    assert segments.runs(ids).tolist() == [[0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 3, 3]]
    assert segments.positions(ids).tolist() == [[0, 1, 0, 0, 1, 2], [0, 0, 1, 0, 0, 1]]


def test_an_override_holds_inside_its_block_and_is_counted():
    one = torch.ones(1, 3, 1, 1)
    before = ops.counts()
    with ops.use("reference"):
        linear_attention(one, one, one)
        with ops.use("chunked", op="linear-attention"):
            linear_attention(one, one, one)
        softmax_attention(one, one, one)
    linear_attention(one, one, one)
    ran = {key: count - before.get(key, 0) for key, count in ops.counts().items() if count != before.get(key, 0)}
    assert ran == {
        ("linear-attention", "reference"): 1,
        ("linear-attention", "chunked"): 2,
        ("softmax-attention", "reference"): 1,
    }


def test_a_path_that_does_not_exist_raises_by_name():
    one = torch.ones(1, 3, 1, 1)
    with (
        ops.use("turbo"),
        pytest.raises(InputError, match=r"'linear-attention' has no path 'turbo'.*chunked"),
    ):
        linear_attention(one, one, one)


def test_a_path_that_cannot_run_raises_by_name():
    x, packed = torch.ones(1, 3, 2), torch.zeros(1, 3, dtype=torch.int64)
    with ops.use("fused"), pytest.raises(InputError, match="'fused' of short-convolution"):
        short_convolution(x, torch.ones(1, 2, 2), segments=packed)


@pytest.mark.parametrize(
    ("dtype", "keys", "gradient", "path"),
    [
        (torch.float32, 64, True, "sdpa"),
        (torch.bfloat16, 64, True, "products"),
        (torch.bfloat16, 64, False, "sdpa"),
        (torch.bfloat16, 2048, True, "sdpa"),
    ],
)
def test_the_table_for_attention_on_a_cpu(dtype, keys, gradient, path):
    call = dispatch.Call(device="cpu", dtype=dtype, time=keys, keys=keys, dim=16, gradient=gradient)
    assert dispatch.choose("softmax-attention", call) == path


def test_one_token_takes_the_step_of_the_definition():
    q = torch.ones(1, 1, 2, 4)
    before = ops.counts()
    state = linear_attention(q, q, q)[1]
    linear_attention(*(torch.ones(1, 2, 2, 4) for _ in range(3)), initial_state=state)
    with ops.use("chunked"):
        torch.testing.assert_close(linear_attention(q, q, q)[1], state)
    ran = {path: n - before.get((op, path), 0) for (op, path), n in ops.counts().items() if op == "linear-attention"}
    assert (ran["reference"], ran["chunked"]) == (1, 2)
    assert set(registered_ops()) > dispatch.STEPPED
    call = dispatch.Call(device="cpu", dtype=torch.float32, time=1, keys=9, dim=4, gradient=False)
    assert dispatch.choose("softmax-attention", call) == "sdpa"


def test_autocast_stays_outside_an_op():
    q = torch.randn(1, 70, 2, 8, generator=torch.Generator().manual_seed(0))
    expected = linear_attention(q, q, q)[0]
    with torch.autocast("cpu", torch.bfloat16):
        out, state = linear_attention(q, q, q)
    assert torch.equal(out, expected)
    assert state.dtype == torch.float32


def test_half_precision_keeps_states_in_single_precision():
    q = torch.randn(1, 70, 2, 8, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    out, state = delta_rule(q, q, q, torch.ones_like(q[..., 0]))
    assert (out.dtype, state.dtype) == (torch.bfloat16, torch.float32)


def test_operations_that_torch_does_not_count():
    q = torch.ones(2, 5, 3, 4)
    with ops.use("sdpa"):
        assert count_flops(lambda: softmax_attention(q, q, q)) == 2 * (2 * 2 * 3 * 5 * 5 * 4)
    matrix, sides = torch.eye(4), torch.ones(4, 3)
    assert count_flops(lambda: torch.linalg.solve_triangular(matrix, sides, upper=False)) == 4 * 4 * 3
    assert count_flops(lambda: torch.ones(6).cumsum(0)) == 6
    assert count_flops(lambda: torch.zeros(2, 3, 4).baddbmm_(torch.ones(2, 3, 5), torch.ones(2, 5, 4))) == 240
    assert count_flops(lambda: torch.zeros(3, 4).addmm_(torch.ones(3, 5), torch.ones(5, 4))) == 120
    assert count_flops(lambda: torch.fft.fft(torch.ones(8, dtype=torch.complex64))) == 5 * 8 * 3
    assert count_flops(lambda: torch.fft.rfft(torch.ones(8))) == 2.5 * 8 * 3
