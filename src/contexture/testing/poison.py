"""Memory that nobody has written to, made visible: what is allocated empty from Python holds NaN."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_EMPTY = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided}


class PoisonedMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fills every tensor that `torch.empty` and its kin return with NaN.

    >>> with PoisonedMemory():
    ...     torch.empty(2).tolist()
    [nan, nan]
    """

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the call, and poison what it returns if that is fresh memory."""
        out = func(*args, **(kwargs or {}))
        if getattr(func, "overloadpacket", None) in _EMPTY and out.is_floating_point():
            out.fill_(float("nan"))
        return out
