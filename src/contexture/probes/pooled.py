r"""Probes: small models fitted to hidden vectors, to find out what can be read from them.

    pooled = sum_t softmax(s)_t h_t,     said = A pooled + b,   or   A relu(B pooled + c) + b

s weighs the tokens and is learned with the rest, so that a probe finds where something stands. What a probe reads has
to be held against what it reads elsewhere: at another layer, or in a network that was not trained (Hewitt and Liang
2019, arXiv:1909.03368). Akyurek et al. 2022, arXiv:2211.15661, probe for weights and moments in this way.
Shapes: h [batch, tokens, width], targets [batch, size].
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contexture.leaves.linear import Linear


@dataclass(frozen=True, kw_only=True, slots=True)
class PooledProbe:
    """How a probe is fitted; `hidden` of 0 leaves it linear."""

    hidden: int = 64
    steps: int = 300
    rate: float = 1e-2

    def fit(
        self,
        h: Float[Tensor, "batch tokens width"],
        targets: Float[Tensor, "batch size"],
        *,
        generator: torch.Generator,
    ) -> "FittedProbe":
        """Minimise the squared error by Adam on all of the samples at once, inputs and targets brought to scale."""
        h, targets = h.float(), targets.float()
        scales = h.std((0, 1)).clamp_min(1e-6), targets.mean(0), targets.std(0).clamp_min(1e-6)
        scores = torch.zeros(h.shape[1], requires_grad=True)
        sizes = (h.shape[2], self.hidden, targets.shape[1]) if self.hidden else (h.shape[2], targets.shape[1])
        read = nn.Sequential()
        for index in range(len(sizes) - 1):
            if index:
                read.append(nn.ReLU())
            read.append(Linear(sizes[index], sizes[index + 1], generator=generator))
        probe = FittedProbe(scores=scores, read=read, scales=scales)
        wanted = (targets - scales[1]) / scales[2]
        # A score has to move by several units before a token stands out, a weight by a tenth of that.
        groups: list[dict[str, Any]] = [{"params": [scores], "lr": 10 * self.rate}, {"params": list(read.parameters())}]
        optimiser = torch.optim.Adam(groups, lr=self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        with torch.enable_grad():
            for _ in range(self.steps):
                loss = (probe.scaled(h) - wanted).square().mean()
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
                schedule.step()
        scores.requires_grad_(False)
        read.requires_grad_(False)
        return probe


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FittedProbe:
    """A probe that has been fitted: the scores of tokens, what reads them, and the scales of inputs and targets."""

    scores: Float[Tensor, " tokens"]
    read: nn.Module
    scales: tuple[Tensor, Tensor, Tensor]

    def __call__(self, h: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch size"]:
        """What is read from hidden vectors."""
        said: Tensor = self.scaled(h.float()) * self.scales[2] + self.scales[1]
        return said.to(h.dtype)

    def scaled(self, h: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch size"]:
        """The same in units of the targets' spread around their mean."""
        pooled = torch.einsum("t,btw->bw", self.scores.softmax(0), h) / self.scales[0]
        said: Tensor = self.read(pooled)
        return said
