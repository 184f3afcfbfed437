r"""Histories of linear bandits, and how far a transformer that is set by hand is from the agents that made them.

    an agent's own pulls ─▶ transformer (`contexture.models.ridge_bandits`) ─▶ bounds or choices, beside the agent's

Six arms in two dimensions, another set for every seed.
Shapes: x [worlds, pulls, dim], r [worlds, pulls], arms [arms, dim]; bounds [worlds, arms].
"""

from collections.abc import Callable, Sequence
from math import log
from typing import Any, NamedTuple

import torch
from torch import Tensor

from contexture.agents.lin_ucb import LinUCB
from contexture.agents.linear import LinearAgent, LinearBelief
from contexture.agents.linear_thompson import LinearThompson
from contexture.agents.roll_out import roll_out, states_along
from contexture.claims.growth import crossing, slope
from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.environments.linear_bandit import LinearBandit
from contexture.models.ridge_bandits import LinUCBLayers, RidgeBandit
from contexture.tasks.draws import normal

DIM, ARMS = 2, 6
TOLERANCE = 0.01
"""The relative error at which layers and fractions are counted."""


class Pulled(NamedTuple):
    """A history of a linear bandit: features of what was pulled, rewards, the features of all arms."""

    x: Tensor
    r: Tensor
    arms: Tensor

    def first(self, pulls: int) -> "Pulled":
        """The same without what came after so many pulls: no example is an example of zeros."""
        kept = torch.arange(self.r.shape[1]) < pulls
        return self._replace(x=self.x * kept.unsqueeze(-1), r=self.r * kept)

    @property
    def longest(self) -> float:
        """The largest square of an arm's length."""
        return float(self.arms.square().sum(-1).amax())

    def believed(self, agent: LinearAgent) -> LinearBelief:
        """What the agent knows after the history, by equations solved at once; zeros change nothing."""
        second = self.x.mT @ self.x + agent.prior * torch.eye(self.x.shape[-1], dtype=torch.float64)
        return LinearBelief(second.inverse(), (self.x.mT @ self.r.unsqueeze(-1)).squeeze(-1), torch.Generator())


def bandit(seed: int, num_arms: int = ARMS) -> LinearBandit:
    """Another set of arms for every seed."""
    return LinearBandit(dim=DIM, num_arms=num_arms, arms_seed=seed)


def pulled(agent: LinUCB | LinearThompson, *, worlds: int, pulls: int, seed: int) -> tuple[Pulled, list[LinearBelief]]:
    """What an agent does by itself, and what it believes before every pull and after the last."""
    played = roll_out(agent, agent.environment, worlds=worlds, steps=pulls + 1, seed=seed)
    arms = agent.environment.arms.double()
    known = Pulled(arms[played.actions[:, :-1]], played.rewards[:, :-1].double(), arms)
    return known, list(states_along(agent, played))


def lin_ucb_layers(known: Pulled, pulls: int, **settings: Any) -> LinUCBLayers:
    """The transformer for histories of so many pulls."""
    longest = known.longest
    return LinUCBLayers(dim=DIM, num_arms=len(known.arms), largest=pulls * longest, longest=longest, **settings)


def read(layers: RidgeBandit, known: Pulled, counts: Sequence[int]) -> list[Tensor]:
    """Scores of all arms after so many iterations."""
    said = layers.read_outs(known.x, known.r, known.arms.expand(len(known.x), -1, -1), iterations=counts)
    return [one.squeeze(1) for one in said]


def relative(said: Tensor, wanted: Tensor) -> Tensor:
    """Each world's largest error over the size of what is wanted."""
    return (said - wanted).abs().amax(-1) / wanted.square().mean().sqrt()


def bounds(run: Run, say: Callable[[LinUCB, Pulled, int, list[int]], list[Tensor]], name: str) -> Samples:
    """The largest error of LinUCB's bounds at four moments of its own histories."""
    pulls = run.setting("pulls", smoke=8, cpu=40)
    worlds = run.setting("worlds", smoke=2, cpu=8)
    counts = run.setting("layers", smoke=[20, 40], cpu=[10, 20, 40, 60, 80, 100, 120])

    def one(seed: int) -> OneSeed:
        agent = LinUCB(bandit(seed))
        known, believed = pulled(agent, worlds=worlds, pulls=pulls, seed=seed)
        moments = [pulls // 8, pulls // 4, pulls // 2, pulls]
        wanted = torch.cat([agent.bounds(believed[moment]) for moment in moments])
        parts = [known.first(moment) for moment in moments]
        told = Pulled(torch.cat([part.x for part in parts]), torch.cat([part.r for part in parts]), known.arms)
        said = say(agent, told, pulls, counts)
        worst = torch.stack([relative(one, wanted).view(len(moments), -1).amax(0) for one in said])
        squares = [part.square().mean(1).view(len(moments), -1).mean(0) for part in (said[-1] - wanted, wanted)]
        curves = {name: (counts, worst.mean(1))}
        return OneSeed(values=worst[-1], errors=squares[0], zero_errors=squares[1], curves=curves)

    return over_seeds(run, one)


def layers_needed(
    run: Run, solve: Callable[[Pulled, int, list[int]], list[Tensor]], name: str, *, accelerated: bool = True
) -> Samples:
    """The slope of the logarithm of the layers that are needed over that of the number of pulls, all of one arm.

    Where descent is not accelerated, more of them are tried.
    """
    lengths = run.setting("pulls", smoke=(2, 8), cpu=(10, 20, 40, 80))

    def one(seed: int) -> OneSeed:
        agent = LinUCB(bandit(seed, 3))
        arms, needed = agent.environment.arms.double(), []
        noise = agent.environment.noise * normal(len(arms), max(lengths), generator=run.generator(seed, "rewards"))
        for length in lengths:
            told = Pulled(arms.unsqueeze(1).expand(-1, length, -1), noise[:, :length], arms)
            wanted = agent.bounds(told.believed(agent))
            condition = 1 + length * told.longest
            most = 12 * condition**0.5 if accelerated else 6 * condition
            grid = sorted({round(1.1**power) for power in range(1, round(log(most, 1.1)))})
            said = solve(told, length, grid)
            off = torch.stack([relative(one, wanted) for one in said]) > TOLERANCE
            last = (off * torch.arange(1, len(grid) + 1).unsqueeze(1)).amax(0).clamp(max=len(grid) - 1)
            needed.append(torch.tensor(grid, dtype=torch.float64)[last])
        counts = torch.stack(needed)
        return OneSeed(
            values=slope(lengths, counts),
            errors=(said[-1] - wanted).square().mean(1),
            zero_errors=wanted.square().mean(1),
            curves={name: (lengths, counts.mean(1))},
        )

    return over_seeds(run, one)


TEMPERATURE = 0.02
"""An arm that is better by so much is chosen e times as often; the agent's choice is the limit at zero."""

Choose = Callable[[LinearThompson, Pulled, Tensor, int], Tensor]


def choices(run: Run, choose: Choose, name: str) -> Samples:
    """Half the sum over arms of how far the chances to be chosen are from the agent's, which has the same draws."""
    pulls = run.setting("pulls", smoke=4, cpu=24)
    worlds = run.setting("worlds", smoke=2, cpu=8)
    num_draws = run.setting("draws", smoke=16, cpu=64)
    moments = run.setting("moments", smoke=(1, 4), cpu=(6, 24))

    def one(seed: int) -> OneSeed:
        agent = LinearThompson(bandit(seed))
        known, believed = pulled(agent, worlds=worlds, pulls=pulls, seed=seed)
        draws = normal(worlds, num_draws, DIM, generator=run.generator(seed, "draws"))
        gaps, sizes = [], []
        for moment in moments:
            wanted = agent.drawn(believed[moment], draws.transpose(0, 1)).transpose(0, 1)
            said = choose(agent, known.first(moment), draws, pulls)
            own, theirs = ((scores / TEMPERATURE).softmax(-1).mean(1) for scores in (said, wanted))
            gaps.append((own - theirs).abs().sum(1) / 2)
            sizes.append((theirs - 1 / ARMS).abs().sum(1) / 2)
        off = torch.stack(gaps)
        curves = {name: (moments, off.mean(1))}
        return OneSeed(values=off.mean(0), errors=off.mean(0), zero_errors=torch.stack(sizes).mean(0), curves=curves)

    return over_seeds(run, one)


Missing = Callable[..., float]
"""The relative error that so many fractions leave, for eigenvalues from `least` to `largest`."""

COUNTS = sorted({round(1.15**power) for power in range(37)})


def fractions_needed(run: Run, missing: Missing, name: str) -> Samples:
    """The slope of the logarithm of the fractions that are needed over that of the number of pulls."""
    lengths = run.setting("pulls", smoke=(10, 160), cpu=(10, 40, 160, 640))
    bandits = run.setting("bandits", smoke=3, cpu=8)

    def one(seed: int) -> OneSeed:
        needed, errors = [], torch.zeros(bandits)
        for length in lengths:
            crossed = []
            for number in range(bandits):
                agent = LinearThompson(bandit(bandits * seed + number))
                longest = float(agent.environment.arms.square().sum(1).amax())
                off = [missing(count, least=agent.prior, largest=agent.prior + length * longest) for count in COUNTS]
                crossed.append(crossing(COUNTS, off, tolerance=TOLERANCE))
                errors[number] = off[COUNTS.index(16)] ** 2
            needed.append(torch.tensor(crossed, dtype=torch.float64))
        counts = torch.stack(needed)
        curves = {name: (lengths, counts.mean(1))}
        return OneSeed(values=slope(lengths, counts), errors=errors, zero_errors=torch.ones_like(errors), curves=curves)

    return over_seeds(run, one)
