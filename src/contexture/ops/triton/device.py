"""How much a device does at once."""

from functools import cache

import torch


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def num_programs(device: torch.device, *, each: int) -> int:
    """How many programs keep the device busy, `each` to a multiprocessor; in the interpreter, as many as to split work.

    >>> num_programs(torch.device("cpu"), each=8)
    8
    """
    return each * (_processors(device) if device.type == "cuda" else 1)
