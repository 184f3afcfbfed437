"""What a small network reads from the hidden vectors of models, layer by layer, after the examples of a prompt.

    hidden vectors of prompts ─▶ a probe fitted to some prompts ─▶ what it misses of a target on other prompts

The first layer holds the inputs, of which a target is a function: it is probed, drawn and not counted.
Shapes: hidden vectors [prompts, tokens, width] of each layer; a target [prompts, size].
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.models.pairs import PairsModel
from contexture.probes.hidden import hidden_states
from contexture.probes.pooled import PooledProbe
from contexture.protocols import Pairs, Task

States = Callable[[int, Pairs], list[Tensor]]
"""The hidden vectors of a seed's model on its prompts, for each layer."""

Target = Callable[[Pairs], Tensor]


def probed(run: Run, task: Task, states: States, target: Target, name: str) -> Samples:
    """The share of the target's variance that a probe leaves, at the best of the layers after the first."""
    fitted = run.setting("prompts fitted", smoke=256, cpu=1024)
    asked = run.setting("prompts", smoke=256, cpu=1024)
    probe = PooledProbe(steps=run.setting("probe's steps", smoke=60, cpu=300))

    def one(seed: int) -> OneSeed:
        fit, new = (
            run.sample(task, size, seed=seed, purpose=purpose)
            for size, purpose in ((fitted, "probe"), (asked, "evaluate"))
        )
        wanted, left = target(new), []
        spread = (wanted - wanted.mean(0)).square().mean(1)
        for layer, (shown, h) in enumerate(zip(states(seed, fit), states(seed, new), strict=True)):
            read = probe.fit(shown, target(fit), generator=run.generator(seed, "probe", layer))
            left.append((read(h).double() - wanted).square().mean(1))
        by_layer = torch.stack(left)
        best = by_layer[1:].mean(1).argmin() + 1
        return OneSeed(
            values=by_layer[best],
            per=spread,
            errors=by_layer[best],
            zero_errors=spread,
            curves={name: (range(len(left)), by_layer.mean(1) / spread.mean())},
        )

    return over_seeds(run, one)


def inside(models: Sequence[PairsModel], run: Run) -> States:
    """The hidden vectors of each seed's model."""
    return lambda seed, drawn: hidden_states(models[run.seeds.index(seed)], drawn)


def holding(target: Target) -> States:
    """Hidden vectors that are the inputs at first, and the target itself after a layer."""
    return lambda _, drawn: [drawn.x, target(drawn).unsqueeze(1)]
