"""Functions of tensors that a compiled graph calls as one node, because their shapes inside depend on the data.

A compiled graph needs every shape in advance; how many chunks packed sequences have, it cannot know. `call` puts a
pure function into the graph unopened: its forward runs as it stands, its backward runs it again and differentiates.
Outside compiled graphs nothing of this is used.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

Function = Callable[[Sequence[Tensor], str], Sequence[Tensor]]

_functions: dict[str, tuple[Function, Function]] = {}


def register(name: str, function: Function, shapes: Function) -> None:
    """Make `function(tensors, settings)` callable by name; `shapes` gives empty tensors shaped like its results."""
    _functions[name] = function, shapes


@torch.library.custom_op("contexture::opaque", mutates_args=())
def _forward(tensors: list[Tensor], name: str, settings: str) -> list[Tensor]:
    with torch.no_grad():
        return [
            result.clone(memory_format=torch.contiguous_format) for result in _functions[name][0](tensors, settings)
        ]


@_forward.register_fake
def _(tensors: list[Tensor], name: str, settings: str) -> list[Tensor]:
    return list(_functions[name][1](tensors, settings))


@torch.library.custom_op("contexture::opaque_backward", mutates_args=())
def _backward(tensors: list[Tensor], gradients: list[Tensor], name: str, settings: str) -> list[Tensor]:
    stream = torch.cuda.current_stream(tensors[0].device) if tensors[0].is_cuda else None

    def differentiate() -> list[Tensor]:
        with torch.cuda.stream(stream):
            return on_this_stream()

    def on_this_stream() -> list[Tensor]:
        leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in tensors]
        results = _functions[name][0](leaves, settings)
        ends = [(one, gradient) for one, gradient in zip(results, gradients, strict=True) if one.requires_grad]
        wanted = [x for x in leaves if x.requires_grad]
        outputs, weights = [one for one, _ in ends], [gradient for _, gradient in ends]
        found = iter(torch.autograd.grad(outputs, wanted, weights, allow_unused=True))
        given = [next(found) if x.requires_grad else None for x in leaves]
        return [torch.zeros_like(x) if one is None else one.contiguous() for x, one in zip(leaves, given, strict=True)]

    # An operator's own code runs with autograd switched off for its thread, whatever it asks for; not so a new thread,
    # which would begin on the default stream of the first device.
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(differentiate).result()


@_backward.register_fake
def _(tensors: list[Tensor], gradients: list[Tensor], name: str, settings: str) -> list[Tensor]:
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in tensors]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors, ctx.name, ctx.settings = inputs
    ctx.shapes = [(one.shape, one.dtype) for one in output]
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, gradients: list[Tensor | None]) -> tuple[list[Tensor | None], None, None]:
    tensors = list(ctx.saved_tensors)
    filled = [
        tensors[0].new_zeros(shape, dtype=dtype) if one is None else one
        for one, (shape, dtype) in zip(gradients, ctx.shapes, strict=True)
    ]
    found = _backward(tensors, filled, ctx.name, ctx.settings)
    return [one if x.is_floating_point() else None for x, one in zip(tensors, found, strict=True)], None, None


_forward.register_autograd(_differentiate, setup_context=_remember)


def call(name: str, tensors: Sequence[Tensor], settings: str) -> list[Tensor]:
    """The registered function's results, in a compiled graph or out of it."""
    results: list[Tensor] = _forward(list(tensors), name, settings)
    return results
