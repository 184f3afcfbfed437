"""Comparing what two ways of mixing make of the same tokens: one number a sequence, one curve over positions."""

from collections.abc import Sequence

from torch import Tensor, finfo

from contexture.claims.protocol import OneSeed
from contexture.evaluation.predictors import difference


def apart(said: Tensor, wanted: Tensor, name: str, *, x: Sequence[float] | None = None) -> OneSeed:
    """The relative difference of each sequence's outputs [sequences, time, ...], and of each position's as a curve.

    The zero predictor beside it answers zero where `wanted` stands. x: what the positions are called, 1, 2, .. unless
    given. A curve goes down to the dtype's rounding, not to zero, which a logarithmic axis does not have.

    >>> import torch
    >>> one = apart(torch.tensor([[1.0, 5.0]]).double(), torch.tensor([[3.0, 4.0]]).double(), "toy")
    >>> round(float(one.values), 4), one.curves["toy"][1].round(decimals=4).tolist()
    (0.4472, [0.6667, 0.25])
    """
    gap, size = difference(said.flatten(1), wanted.flatten(1))
    by_place = (part.transpose(0, 1).flatten(1).square().mean(1) for part in (said - wanted, wanted))
    curve = (next(by_place) / next(by_place)).sqrt().clamp_min(finfo(said.dtype).eps)
    places = range(1, curve.shape[0] + 1) if x is None else x
    return OneSeed(values=(gap / size.mean()).sqrt(), errors=gap, zero_errors=size, curves={name: (places, curve)})
