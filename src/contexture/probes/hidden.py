"""The hidden vectors of a sequence model over pairs, layer by layer.

    h_0 = embedded tokens with their positions;    h_l = what block l leaves

Interleaved tokens x_1, y_1, x_2, ..: two to an example; the last block runs at the x tokens alone.
Shapes: x [batch, time, features], y [batch, time]; h [batch, tokens, width].
"""

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.models.pairs import PairsModel
from contexture.protocols import Pairs


@torch.no_grad()
def hidden_states(model: PairsModel, episodes: Pairs) -> list[Float[Tensor, "batch tokens width"]]:
    """h_0 and the output of every block, in the model's own precision.

    >>> from contexture.learners.in_context import InContext
    >>> from contexture.tasks.linear_regression import LinearRegression
    >>> episodes = LinearRegression(num_points=3).sample(5, generator=torch.Generator().manual_seed(0))
    >>> [tuple(h.shape) for h in hidden_states(InContext.example().model, episodes)]
    [(5, 6, 16), (5, 6, 16), (5, 3, 16)]
    """
    found: list[Tensor] = []
    blocks = list(model.backbone.blocks)
    hooks = [blocks[0].register_forward_pre_hook(lambda _, arrived: found.append(arrived[0]))]
    hooks += [block.register_forward_hook(lambda _, __, left: found.append(left)) for block in blocks]
    shown = episodes.to(dtype=next(model.parameters()).dtype)
    try:
        model(shown.x, shown.y)
    finally:
        for hook in hooks:
            hook.remove()
    return found
