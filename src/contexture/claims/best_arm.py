"""What is said of the best arm after a history of pulls, and the share of what the history tells of it that is lost.

    a history, what came before each pull ─▶ who says how likely each arm is the best ─▶ nats lost against the posterior

Shapes: what is said [worlds, pulls, arms]; lost, gained [worlds, pulls].
"""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.evaluation.posterior import exactly, information
from contexture.protocols import Trajectories

Histories = Callable[[int], Trajectories]
"""The histories of a seed."""

Says = Callable[[int, Trajectories, Sequence[int]], Tensor]
"""Who says it: from a seed, its histories and the pulls before which it is asked."""


def lost(
    bandit: GaussianBandit, say: Says, seed: int, drawn: Trajectories, pulls: Sequence[int]
) -> tuple[Float[Tensor, "worlds pulls"], Float[Tensor, "worlds pulls"]]:
    """Nats that are lost and that could be gained before each of these pulls."""
    return information(exactly(drawn, bandit, pulls), say(seed, drawn, pulls))


def share_lost(
    run: Run, bandit: GaussianBandit, histories: Histories, say: Says, name: str, *, pulls: Sequence[int]
) -> Samples:
    """Excess log-loss over the exact posterior's gain, drawn over the pulls."""

    def one(seed: int) -> OneSeed:
        nats, gained = lost(bandit, say, seed, histories(seed), pulls)
        return OneSeed(
            values=nats.mean(1),
            per=gained.mean(1),
            errors=nats.mean(1),
            zero_errors=gained.mean(1),
            curves={name: (pulls, nats.mean(0) / gained.mean(0))},
        )

    return over_seeds(run, one)
