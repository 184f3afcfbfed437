"""Counting floating-point operations: torch's counter, with formulas for what it misses: products in place, and much
of what runs on a CPU.

A multiplication and an addition count as two. Attention counts its whole table of scores, causal or not; a transform
of n points counts 5 n log2 n (2.5 where one side is real).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    batch, heads, time, dim = query
    return int(2 * batch * heads * time * key[2] * (dim + value[3]))


def _attention_backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    batch, heads, time, dim = query
    return int(2 * batch * heads * time * key[2] * (3 * dim + 2 * value[3]))


def _triangular_solve(matrix: Any, sides: Any, *_: Any, **__: Any) -> int:
    return int(math.prod(sides) * matrix[-1])


def _cumulative_sum(x: Any, *_: Any, **__: Any) -> int:
    return int(math.prod(x))


def _transform(x: Any, dims: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    points = math.prod(out_shape[dim] for dim in dims)
    return int(5 * math.prod(out_shape) * math.log2(max(points, 2)))


def _real_transform(x: Any, dims: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    widest = x if math.prod(x) > math.prod(out_shape) else out_shape
    points = math.prod(widest[dim] for dim in dims)
    return int(2.5 * math.prod(widest) * math.log2(max(points, 2)))


def _product_in_place(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
    return int(2 * math.prod(left) * right[-1])


FORMULAS: dict[Any, Callable[..., int]] = {
    aten.addmm_: _product_in_place,
    aten.baddbmm_: _product_in_place,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten.linalg_solve_triangular: _triangular_solve,
    aten.cumsum: _cumulative_sum,
    aten._fft_c2c: _transform,
    aten._fft_r2c: _real_transform,
    aten._fft_c2r: _real_transform,
}


def count_flops(function: Callable[[], Any]) -> int:
    """How many floating-point operations `function` does.

    >>> count_flops(lambda: torch.ones(2, 3) @ torch.ones(3, 5))
    60
    """
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        function()
    return int(counter.get_total_flops())
