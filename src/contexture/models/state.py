"""What can be done with any streaming state: a nest of tuples whose tensors have the batch as their first axis."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor


def map_state(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """The same nest with `function` applied to every tensor; None and numbers stay as they are."""
    if isinstance(state, Tensor):
        return function(state)
    if isinstance(state, tuple):
        parts = [map_state(function, part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state


def tensors(state: Any) -> Iterator[Tensor]:
    """Every tensor of a nest, in order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, tuple):
        for part in state:
            yield from tensors(part)


def repeat_state(state: Any, times: int) -> Any:
    """Every row of the batch `times` times in a row: [batch, ...] to [batch * times, ...]."""
    return map_state(lambda tensor: tensor.repeat_interleave(times, dim=0), state)


def state_bytes(state: Any) -> int:
    """What the state's tensors hold, in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(state))
