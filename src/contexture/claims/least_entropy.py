r"""Rows of scores whose softmax has little entropy for their norm: drawn, searched for, and those at the bound.

    scores of a Euclidean norm ─▶ entropy of their softmax, beside `contexture.probes.attention.least_entropy`

Shapes: scores [episodes, keys] for every norm; entropies, norms [norms, episodes].
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.probes.attention import entropy, least_entropy

KEYS = 16
NORMS = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0)
Rows = Mapping[float, Tensor]


def random_rows(run: Run, seed: int) -> Rows:
    """Scores in random directions, [episodes, keys], for every norm."""
    rows = run.setting("rows", smoke=8, cpu=64)
    drawn = torch.randn(rows, KEYS, generator=run.generator(seed, "rows"), dtype=torch.float64)
    return {norm: norm * nn.functional.normalize(drawn, dim=-1) for norm in NORMS}


def searched_rows(run: Run, seed: int) -> Rows:
    """Scores of the same norms, turned by gradient steps until their entropy is as low as they find it."""
    begun = random_rows(run, seed)
    steps = run.setting("search steps", smoke=400, cpu=2000)
    norms = torch.tensor(NORMS, dtype=torch.float64).view(-1, 1, 1)
    free = nn.functional.normalize(torch.stack(list(begun.values())), dim=-1).requires_grad_()
    optimiser = torch.optim.Adam([free], lr=0.02)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.autograd.backward(entropy(norms * nn.functional.normalize(free, dim=-1)).log().sum())
        optimiser.step()
        schedule.step()
    rows = norms * nn.functional.normalize(free.detach(), dim=-1)
    return dict(zip(NORMS, rows.unbind(), strict=True))


def attaining_rows(run: Run, seed: int) -> Rows:
    """One key above all the others, which are alike: what the bound's proof ends with."""
    rows = run.setting("rows", smoke=8, cpu=64)
    row = torch.full((rows, KEYS), -1 / KEYS, dtype=torch.float64)
    row[:, 0] += 1
    return {norm: norm * nn.functional.normalize(row, dim=-1) for norm in NORMS}


def over_norms(
    run: Run, rows: Callable[[Run, int], Rows], measure: Callable[[Tensor, Tensor], Tensor], name: str
) -> Samples:
    """What `measure` makes of entropies and bounds, [norms, episodes], with the entropies drawn over norms."""

    def one(seed: int) -> OneSeed:
        found = rows(run, seed)
        entropies = torch.stack([entropy(row) for row in found.values()])
        norms = torch.tensor(NORMS, dtype=torch.float64).unsqueeze(1).expand_as(entropies)
        curves = {name: (NORMS, entropies.mean(1)), "bound": (NORMS, least_entropy(norms[:, 0], KEYS))}
        return OneSeed(values=measure(entropies, norms), curves=curves)

    return over_seeds(run, one)
