r"""The upper layers of a sequence model over pairs alone, pasted behind hidden vectors that come from elsewhere.

    h_l  ─▶ block l+1 ─▶ .. ─▶ block L ─▶ norm ─▶ head,  read at the x tokens

With h_l as the lower layers leave it, this is the model. Guo et al. 2023, arXiv:2310.10616, paste upper layers behind a
linear embedding, to see what they can do by themselves.
Shapes: h [batch, 2 * time, width], tokens x_1, y_1, x_2, ..; mean [batch, time].
"""

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.models.backbone import Backbone
from contexture.models.pairs import PairsModel


@torch.no_grad()
def upper_layers(
    model: PairsModel, h: Float[Tensor, "batch tokens width"], *, layer: int
) -> Float[Tensor, "batch time"]:
    """What a regressing model says where block `layer` (0 for the embedding) left `h`; fp64.

    Raises InputError unless there is a block behind `layer`.

    >>> from contexture.learners.in_context import InContext
    >>> from contexture.probes.hidden import hidden_states
    >>> from contexture.tasks.linear_regression import LinearRegression
    >>> episodes = LinearRegression(num_points=3).sample(5, generator=torch.Generator().manual_seed(0))
    >>> model = InContext.example().model
    >>> said = upper_layers(model, hidden_states(model, episodes)[1], layer=1)
    >>> torch.allclose(said, InContext(model).prequential(episodes).mean)
    True
    """
    assert isinstance(model.backbone, Backbone)
    blocks = list(model.backbone.blocks)
    if not 0 <= layer < len(blocks):
        raise InputError(f"a model of {len(blocks)} blocks has none behind number {layer}")
    x = h.to(next(model.parameters()).dtype)
    for block in blocks[layer:]:
        x = block(x)
    mean: Tensor = model.head(model.backbone.norm(x[:, ::2]))
    return mean.squeeze(-1).double()
