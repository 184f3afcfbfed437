"""The diagonal state space model (S4D; Gu et al., 2022, arXiv:2206.11893), with the linear initialisation S4D-Lin.

    z_t = exp(D a) z_{t-1} + b x_t,    y_t = 2 Re(c.z_t) + d x_t,    b = (exp(D a) - 1) / a

for every channel with its own step D, factors a and read-out c: the zero-order hold of z' = a z + x. One of each pair
of conjugate factors is held, so `state` counts twice the complex numbers. At the start a_n = -1/2 + i pi n, and D is
drawn log-uniformly from [0.001, 0.1]. Channels are mixed after a GELU, by a gated linear map:

    out = (gelu(y) W) * sigmoid(gelu(y) W')

x, y: [batch, time, width]; a, c: [width, state / 2]; the streaming state is z, complex, in fp32 at least.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.gain import Gain
from contexture.leaves.linear import Linear
from contexture.leaves.table import Table, drawn
from contexture.mixers.heads import head_size
from contexture.ops.chunks import wide
from contexture.ops.diagonal_recurrence import diagonal_recurrence
from contexture.protocols import MixerCard

SHORTEST, LONGEST = 0.001, 0.1
"""The steps D start between these."""


class S4D(nn.Module):
    """A linear system of oscillators per channel; heads change nothing.

    InputError if `state` is odd or the width cannot be split into `num_heads`.
    """

    card = MixerCard(
        name="s4d",
        summary="Every channel drives its own decaying oscillators and reads a learned sum of them.",
        paper="Gu et al., On the Parameterization and Initialization of Diagonal State Space Models, arXiv:2206.11893",
        year=2022,
        state="constant",
        cost="linear",
    )

    def __init__(
        self, width: int, *, num_heads: int, generator: torch.Generator, state: int = 64, gain: float = 1.0
    ) -> None:
        super().__init__()
        head_size(width, num_heads)
        if state % 2:
            raise InputError(f"the {state} numbers of a channel's state are conjugate pairs: choose an even number")
        self.width, self.modes = width, state // 2
        device = generator.device
        steps = torch.rand(width, 1, generator=generator, device=device)
        self.log_step = Table(torch.lerp(torch.tensor(math.log(SHORTEST)), torch.tensor(math.log(LONGEST)), steps))
        self.log_decay = Table(torch.full((width, self.modes), math.log(0.5), device=device))
        self.frequency = Table(math.pi * torch.arange(self.modes, device=device).expand(width, -1))
        self.read = drawn(width, self.modes, 2, std=math.sqrt(0.5), generator=generator)
        self.skip = Gain(width, device=device)
        self.output = Linear(width, 2 * width, generator=generator, gain=gain)

    def init_state(
        self, batch: int, *, device: torch.device | str, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "batch modes width 2"]]:
        """Oscillators at rest."""
        return (torch.zeros(batch, self.modes, self.width, 2, device=device, dtype=wide(dtype)),)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: tuple[Float[Tensor, "batch modes width 2"]]
    ) -> tuple[Float[Tensor, "batch time width"], tuple[Float[Tensor, "batch modes width 2"]]]:
        """Drive the oscillators with further tokens."""
        y, after = diagonal_recurrence(x, *self.system(), initial_state=state[0])
        return self._join(x, y), (after,)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self._join(x, diagonal_recurrence(x, *self.system(), segments=segments)[0])

    def system(self) -> tuple[Tensor, Tensor, Tensor]:
        """The discrete system: logarithm of the decay, angle and read-out, [groups, width, modes (, 2)]."""
        step, decay, frequency = self.log_step.read().exp(), self.log_decay.read().exp(), self.frequency.read()
        log_decay, angle = -step * decay, step * frequency
        held = torch.polar(log_decay.exp(), angle) - 1
        read = 2 * torch.view_as_complex(self.read.read()) * held / torch.complex(-decay, frequency)
        return log_decay, angle, torch.view_as_real(read)

    def _join(self, x: Tensor, y: Tensor) -> Tensor:
        value, gate = self.output(F.gelu(y + self.skip(x))).chunk(2, -1)
        return value * torch.sigmoid(gate)
