"""Triton's interpreter, mended where it differs from a GPU: how it counts loops, and its numbers in bf16 and tf32.

Releases 3.6 and 3.7 hold bf16 as 16-bit integers: they multiply these integers in products, and cut fp32 off where a
GPU rounds to the nearest. With numpy 2.4 they can't count a loop whose bound is an argument. And they exchange the
functions of Triton's language for their own anew in every function that a kernel calls, a third of all time. Products
in tf32 are of fp32's 23 binary places in it, not of a GPU's ten.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

_exchanged: list[Any] = []
Builder, Handle = interpreter.InterpreterBuilder, interpreter.TensorHandle


def to_bf16(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """fp32 rounded to the nearest bf16, ties to even, as 16-bit integers.

    >>> [hex(int(one)) for one in to_bf16(np.array([1.0, 1.00390625, 1.01171875, np.inf, np.nan], dtype=np.float32))]
    ['0x3f80', '0x3f80', '0x3f82', '0x7f80', '0x7fc0']
    """
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)


def from_bf16(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """16-bit integers, read as bf16, in fp32.

    >>> from_bf16(np.array([0x3F80, 0x3F82], dtype=np.uint16)).tolist()
    [1.0, 1.015625]
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_tf32(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """fp32, cut off after the ten binary places that a GPU's tf32 products read.

    >>> to_tf32(np.array([1 + 2**-10, 1 + 2**-11], dtype=np.float32)).tolist()
    [1.0009765625, 1.0]
    """
    return (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


class _Kept:
    """What a function called by a kernel puts back: nothing."""

    def restore(self) -> None:
        """Leave all as it is."""


class _Exchange:
    """The exchange that a kernel makes, and undoes at its end."""

    def __init__(self, scope: Any) -> None:
        self.scope = scope
        _exchanged.append(scope)

    def restore(self) -> None:
        """Put Triton's own functions back."""
        _exchanged.remove(self.scope)
        self.scope.restore()


def mend() -> None:
    """Change the interpreter of this process; once is enough."""
    patch, cast, convert, product = (
        interpreter._patch_lang_tensor,
        Builder.cast_impl,
        Builder.create_fp_to_fp,
        Builder.create_dot,
    )

    def counted(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    exchange = interpreter._patch_lang
    visible = FunctionType((lambda: None).__code__, {"tl": tl, "core": tl.core})

    def exchanged(function: Any) -> Any:
        return _Kept() if _exchanged else _Exchange(exchange(visible))

    def rounded(source: Any, target: Any, otherwise: Callable[[], Any]) -> Any:
        kinds = source.dtype.scalar, target.scalar
        if kinds == (tl.float32, tl.bfloat16):
            return Handle(to_bf16(source.data), tl.bfloat16)
        if kinds == (tl.bfloat16, tl.float32):
            return Handle(from_bf16(source.data), tl.float32)
        return otherwise()

    def factor(x: Any, precision: Any) -> Any:
        if x.dtype.scalar == tl.bfloat16:
            return Handle(from_bf16(x.data), tl.float32)
        if x.dtype.scalar == tl.float32 and precision == interpreter._ir.INPUT_PRECISION.TF32:
            return Handle(to_tf32(x.data), tl.float32)
        return x

    def dot(self: Any, a: Any, b: Any, d: Any, precision: Any, *rest: Any) -> Any:
        return product(self, factor(a, precision), factor(b, precision), d, precision, *rest)

    interpreter._patch_lang, interpreter._patch_lang_tensor = exchanged, counted
    Builder.cast_impl = lambda self, x, target: rounded(x, target, lambda: cast(self, x, target))
    Builder.create_fp_to_fp = lambda self, x, target, mode: rounded(x, target, lambda: convert(self, x, target, mode))
    Builder.create_dot = dot
