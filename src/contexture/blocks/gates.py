"""Gates in place of the sum around a step (Parisotto et al., 2019, arXiv:1910.06764).

    input          g(x, y) = s(W x) * x + y
    output         g(x, y) = x + s(W x - b) * y
    highway        g(x, y) = s(W x + b) * x + (1 - s(W x + b)) * y          (Srivastava et al., 2015, arXiv:1505.00387)
    sigmoid-tanh   g(x, y) = x + s(W y - b) * tanh(U y)
    gru            r = s(W_r y + U_r x),  z = s(W_z y + U_z x - b),  h = tanh(W_h y + U_h (r * x))
                   g(x, y) = (1 - z) * x + z * h                            (Chung et al., 2014, arXiv:1412.3555)

x is what flows past a step and y what the step makes of it, [batch, time, width]; s is the logistic function. A large b
makes every gate but the first the identity: a stack of them begins as one that passes its input on.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contexture.leaves.linear import Linear

Tokens = Float[Tensor, "batch time width"]


class Gate(nn.Module):
    """What a block asks of a gate."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, y: Tensor) -> Tensor:
            """Join what flows past with what a step made of it."""


def _biased(num_in: int, num_out: int, bias: float, *, generator: torch.Generator) -> Linear:
    """A map whose bias starts elsewhere than at zero."""
    made = Linear(num_in, num_out, generator=generator)
    assert made.bias is not None
    with torch.no_grad():
        made.bias.fill_(bias)
    return made


class Sum(Gate):
    """x + y: no gate.

    >>> Sum(1, generator=torch.Generator())(torch.ones(1, 1, 1), torch.ones(1, 1, 1)).item()
    2.0
    """

    def __init__(self, width: int, *, generator: torch.Generator, bias: float = 0.0) -> None:
        super().__init__()

    def forward(self, x: Tokens, y: Tokens) -> Tokens:
        """Add."""
        return x + y


class InputGate(Gate):
    """s(W x) * x + y."""

    def __init__(self, width: int, *, generator: torch.Generator, bias: float = 0.0) -> None:
        super().__init__()
        self.keep = _biased(width, width, bias, generator=generator)

    def forward(self, x: Tokens, y: Tokens) -> Tokens:
        """Hold back part of what flows past."""
        return self.keep(x).sigmoid() * x + y


class OutputGate(Gate):
    """x + s(W x - b) * y."""

    def __init__(self, width: int, *, generator: torch.Generator, bias: float = 2.0) -> None:
        super().__init__()
        self.admit = _biased(width, width, -bias, generator=generator)

    def forward(self, x: Tokens, y: Tokens) -> Tokens:
        """Hold back part of the step's output."""
        return x + self.admit(x).sigmoid() * y


class HighwayGate(Gate):
    """s(W x + b) * x + (1 - s(W x + b)) * y."""

    def __init__(self, width: int, *, generator: torch.Generator, bias: float = 2.0) -> None:
        super().__init__()
        self.keep = _biased(width, width, bias, generator=generator)

    def forward(self, x: Tokens, y: Tokens) -> Tokens:
        """Go part of the way from y to x."""
        return torch.lerp(y, x, self.keep(x).sigmoid())


class SigmoidTanhGate(Gate):
    """x + s(W y - b) * tanh(U y)."""

    def __init__(self, width: int, *, generator: torch.Generator, bias: float = 2.0) -> None:
        super().__init__()
        self.admit = _biased(width, width, -bias, generator=generator)
        self.squash = Linear(width, width, generator=generator, bias=False)

    def forward(self, x: Tokens, y: Tokens) -> Tokens:
        """Add a bounded part of the step's output."""
        return x + self.admit(y).sigmoid() * self.squash(y).tanh()


class GRUGate(Gate):
    """The cell of a gated recurrent unit over depth: x is its state and y its input.

    >>> gate = GRUGate(4, bias=60.0, generator=torch.Generator().manual_seed(0))
    >>> x = torch.tensor([[[1.0, -2.0, 3.0, 0.5]]])
    >>> torch.equal(gate(x, torch.ones_like(x)), x)
    True
    """

    def __init__(self, width: int, *, generator: torch.Generator, bias: float = 2.0) -> None:
        super().__init__()
        self.reset = Linear(2 * width, width, generator=generator, bias=False)
        self.update = _biased(2 * width, width, -bias, generator=generator)
        self.candidate = Linear(2 * width, width, generator=generator, bias=False)

    def forward(self, x: Tokens, y: Tokens) -> Tokens:
        """Update the state."""
        both = torch.cat((y, x), -1)
        kept = self.reset(both).sigmoid() * x
        new = self.candidate(torch.cat((y, kept), -1)).tanh()
        return torch.lerp(x, new, self.update(both).sigmoid())


GATES: dict[str, type[Sum | InputGate | OutputGate | HighwayGate | SigmoidTanhGate | GRUGate]] = {
    "sum": Sum,
    "input": InputGate,
    "output": OutputGate,
    "highway": HighwayGate,
    "sigmoid-tanh": SigmoidTanhGate,
    "gru": GRUGate,
}
