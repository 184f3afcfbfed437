"""Packed sequences: a row of segment ids, where a change of id starts anew and -1 is padding.

segments: int [batch, time]; runs: int64 [batch, time], 0 for the first stretch of equal ids, 1 for the next, ...
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

PADDING = -1


def runs(segments: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """Number the stretches of equal ids.

    >>> runs(torch.tensor([[7, 7, 2, 2, 7]])).tolist()
    [[0, 0, 1, 1, 2]]
    """
    changes = segments[:, 1:] != segments[:, :-1]
    return torch.nn.functional.pad(changes, (1, 0)).cumsum(1)


def padding(segments: Int[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
    """True where a position belongs to no sequence."""
    return segments == PADDING


def positions(segments: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """The position of each token within its stretch.

    >>> positions(torch.tensor([[7, 7, 2, 2, 7]])).tolist()
    [[0, 1, 0, 1, 0]]
    """
    time = torch.arange(segments.shape[1], device=segments.device).expand(segments.shape)
    changes = segments[:, 1:] != segments[:, :-1]
    starts = torch.where(torch.nn.functional.pad(changes, (1, 0)), time, 0).cummax(1).values
    return time - starts
