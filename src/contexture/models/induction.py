r"""An induction head with two parameters beside a network that knows classes by heart.

    u_s = sum_{j <= s} softmax_j(p [j = s]) x_j              what label s has been joined to
    c_t = sum_{s < t} softmax_s(m <x_t, u_s>) onehot(y_s)    the labels that item t finds
    logits = W c_t + V relu(U x_t + a) + b                   from the context, and from the weights

p joins a label to its own item in place of all items before it; m sharpens the search. Both start at zero, where the
head says nothing of the items. The head has no other parameters. Reddy 2023, arXiv:2312.03002, whose head is of this
kind; ours answers at every item.
Shapes: x [batch, time, features], y int64 [batch, time], u as x, c [batch, time, classes].
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.leaves.table import Table
from contexture.models.pairs import PairsOutput


@dataclass(frozen=True, kw_only=True)
class InductionModelConfig:
    """The sizes of an induction head with its network; without `joins`, p stays at zero."""

    num_features: int
    num_classes: int
    hidden: int = 128
    joins: bool = True

    def __post_init__(self) -> None:
        if self.num_features < 1 or self.num_classes < 2 or self.hidden < 1:
            raise InputError("an induction head needs at least one feature, two classes and one hidden unit")


class InductionModel(nn.Module):
    """Two numbers make the head; three linear maps read it and the item.

    >>> config = InductionModelConfig(num_features=3, num_classes=2)
    >>> model = InductionModel(config, generator=torch.Generator().manual_seed(0))
    >>> model(torch.ones(2, 5, 3), torch.ones(2, 5, dtype=torch.int64)).logits.shape
    torch.Size([2, 5, 2])
    """

    def __init__(self, config: InductionModelConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.joining = Table(torch.zeros(1, device=generator.device))
        self.matching = Table(torch.zeros(1, device=generator.device))
        self.joining.requires_grad_(config.joins)
        self.found = Linear(config.num_classes, config.num_classes, generator=generator, bias=False)
        self.enter = Linear(config.num_features, config.hidden, generator=generator)
        self.leave = Linear(config.hidden, config.num_classes, generator=generator)

    def forward(self, x: Float[Tensor, "batch time features"], y: Int[Tensor, "batch time"]) -> PairsOutput:
        """Score the label of every item."""
        labels = F.one_hot(y, self.config.num_classes).to(x.dtype)
        in_context = self.found(self.attention(x) @ labels)
        return PairsOutput(logits=in_context + self.leave(F.relu(self.enter(x))))

    def attention(self, x: Float[Tensor, "batch time features"]) -> Float[Tensor, "batch time time"]:
        """How much every item attends to each label before it; the first finds none."""
        time = x.shape[1]
        own = torch.eye(time, dtype=x.dtype, device=x.device)
        later = torch.ones(time, time, dtype=torch.bool, device=x.device).triu(1)
        joined = (self._each(self.joining, x) * own).masked_fill(later, -torch.inf).softmax(-1) @ x
        scores = self._each(self.matching, x) * (x @ joined.mT)
        before = (later | own.bool())[1:]
        return F.pad(scores[:, 1:].masked_fill(before, -torch.inf).softmax(-1), (0, 0, 1, 0))

    @staticmethod
    def _each(number: Table, x: Tensor) -> Float[Tensor, "batch 1 1"]:
        """A number for each episode: that of the member it belongs to."""
        read = number.read()
        return read.repeat_interleave(x.shape[0] // len(read), 0).unsqueeze(-1)
