"""Attention with a learned kernel (Chowdhury et al., 2021, arXiv:2110.08323), the form that the paper calls GMM-PRF.

A shift-invariant kernel is the mean, over frequencies w from its spectrum, of products of features of q and of k. Here
the spectrum is a mixture of Gaussians per head, with learned means m_c, scales s_c and shares p_c:

    o_t = sum_{s <= t} v_s f(q_t).f(k_s) / sum_{s <= t} f(q_t).f(k_s),    x' = x / dim^(1/4)
    f(x) = sqrt(p_c) exp(w_cj.x' - |x'|^2),    w_cj = m_c + s_c * n_cj,    n_cj ~ N(0, I) drawn once and kept

With one component, m = 0 and s = 1, f(q).f(k) / num_features estimates exp(-|q' - k'|^2 / 2), the Gaussian kernel.

x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]. The state is one [components * num_features, dim + 1]
sum per head. How the exponentials are kept finite: `contexture.ops.random_features`, where the keys' bound is now
w.k - |k|^2 <= |w|^2 / 4.
"""

import torch
from torch import Tensor

from contexture.leaves.spectrum import Spectrum
from contexture.mixers.heads import Heads
from contexture.mixers.memory import MemoryMixer
from contexture.ops.chunks import wide
from contexture.ops.linear_attention import linear_attention
from contexture.ops.random_features import key_features, orthogonal_directions, query_features
from contexture.ops.weighted_average import weighted_average
from contexture.protocols import MixerCard


class Kernelized(MemoryMixer):
    """Attention whose kernel is learned as a mixture of Gaussians over frequencies.

    `num_features` counts the features of each of the `num_components`; it is the size of a head unless given.
    """

    card = MixerCard(
        name="kernelized",
        summary="Attention with a kernel that is learned through the spectrum of its features.",
        paper="Chowdhury et al., On Learning the Transformer Kernel, arXiv:2110.08323",
        year=2021,
        state="constant",
        cost="linear",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        num_components: int = 2,
        num_features: int | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)
        dim = self.heads.dim
        features = dim if num_features is None else num_features
        noise = [orthogonal_directions(features, dim, generator=generator) for _ in range(num_components)]
        self.spectrum = Spectrum(num_heads, torch.stack(noise), generator=generator)
        self.memory_shape = (num_heads, num_components * features, dim + 1)

    def attend(
        self, x: Tensor, *, memory: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Average values with the kernel's weights."""
        q, k, v = (part.to(wide(part.dtype)) for part in self.heads.split(x))
        bound = self.spectrum.frequencies().square().sum(-1).amax() / 4
        out, memory = weighted_average(
            linear_attention,
            query_features(self._exponents(q)),
            key_features(self._exponents(k), bound=bound),
            v,
            initial_state=memory,
            segments=segments,
        )
        return self.heads.join(out.to(x.dtype)), memory

    def _exponents(self, x: Tensor) -> Tensor:
        # An exponent rounded to bf16 would be off by per cents once it is raised.
        with torch.autocast(x.device.type, enabled=False):
            x = x * x.shape[-1] ** -0.25
            return self.spectrum(x) - x.square().sum(-1, keepdim=True)
