"""Landmark attention (Mohtashami & Jaggi, 2023, arXiv:2305.16300): blocks of the past, entered by their landmarks.

    q, k, v, m = x W;    y_t = concat over heads of landmark_attention(q, k, v, m),  times W_o

Landmarks differ from the paper's in one thing: they are no tokens put into the text but means of the projection m over
each complete block, see `contexture.ops.landmark_attention`. Rotary positions turn a landmark to the last position of
its block, where the paper's token would stand.
x: [batch, time, width]; q, k, v, m: [batch, time, num_heads, dim]. The state is every key and value seen so far and one
sum of marks per block.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.mixers.positioned_heads import PositionedHeads, steps_of
from contexture.ops.landmark_attention import LandmarkState, landmark_attention, no_landmarks
from contexture.protocols import MixerCard


class Landmark(nn.Module):
    """Softmax attention to the present block, and to earlier blocks through one landmark each.

    `num_retrieved` limits how many earlier blocks a query may enter, for each head; all of them unless given.

    >>> mixer = Landmark(8, num_heads=2, block=2, generator=torch.Generator().manual_seed(0))
    >>> mixer.stream(torch.ones(1, 5, 8), mixer.init_state(1, device="cpu", dtype=torch.float32))[1].sums.shape
    torch.Size([1, 3, 2, 4])
    """

    card = MixerCard(
        name="landmark",
        summary="Attention that finds a block of the past by its landmark, then looks inside.",
        paper="Mohtashami & Jaggi, Landmark Attention: Random-Access Infinite Context Length, arXiv:2305.16300",
        year=2023,
        state="grows",
        cost="quadratic",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        block: int = 16,
        num_retrieved: int | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if block < 1 or (num_retrieved is not None and num_retrieved < 1):
            raise InputError(f"blocks of {block} tokens, {num_retrieved} retrieved: both must be 1 at least")
        self.block, self.num_retrieved = block, num_retrieved
        self.heads = PositionedHeads(width, num_heads=num_heads, generator=generator, gain=gain)
        self.marks = Linear(width, width, generator=generator, bias=False)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> LandmarkState:
        """No keys, no values, no landmarks."""
        return no_landmarks(batch, self.heads.num_heads, self.heads.dim, device=device, dtype=dtype)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: LandmarkState
    ) -> tuple[Float[Tensor, "batch time width"], LandmarkState]:
        """Mix further tokens with all that the state holds."""
        return self._attend(x, steps_of(x, None) + state.keys.shape[1], state=state)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self._attend(x, steps_of(x, segments), segments=segments)[0]

    def _attend(
        self, x: Tensor, steps: Tensor, *, state: LandmarkState | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, LandmarkState]:
        q, k, v = self.heads.split(x, steps)
        last = steps - steps % self.block + self.block - 1
        marks = self.heads.place(torch.unflatten(self.marks(x), -1, (-1, self.heads.dim)), last)
        out, state = landmark_attention(
            q,
            k,
            v,
            marks,
            block=self.block,
            num_retrieved=self.num_retrieved,
            initial_state=state,
            segments=segments,
        )
        return self.heads.join(out), state
