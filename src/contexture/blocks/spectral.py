"""Sigma reparametrisation of whole modules (Zhai et al., 2023, arXiv:2303.06296): every linear map gets a spectral norm
that is learned. See `contexture.leaves.spectral_linear`.
"""

from torch import nn

from contexture.leaves.linear import Linear
from contexture.leaves.spectral_linear import SpectralLinear


def reparametrise(module: nn.Module) -> None:
    """Put a `SpectralLinear` with the same weight in the place of every `Linear` inside `module`.

    >>> import torch
    >>> from contexture.blocks.feed_forward import GELU
    >>> network = GELU(4, hidden=8, generator=torch.Generator().manual_seed(0))
    >>> reparametrise(network)
    >>> type(network.enter).__name__, type(network.leave).__name__
    ('SpectralLinear', 'SpectralLinear')
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Linear):
                setattr(parent, name, SpectralLinear.of(child))
