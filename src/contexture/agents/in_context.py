"""A trained sequence model as an agent: it learns in its forward pass while it acts, its weights stay as they are.

What it does depends on the scores of its model after all that it has seen:

    act by chance      a_t ~ softmax(scores_t)      a decision-pretrained model then samples from what it believes to be
                                                    the best action (Lee et al., 2023, arXiv:2306.14892)
    act surely         a_t = argmax scores_t        for choosing once from given data

The state is the model's own, carried along: a step costs the same however long the history is where the mixer's state
does not grow.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import greedy, require_family
from contexture.agents.saved import SavedDecisions, load_decisions, load_shipped_decisions
from contexture.errors import InputError
from contexture.models.decisions import DecisionModel, DecisionModelConfig, DecisionState
from contexture.models.planning import PlanningModelConfig
from contexture.protocols import AgentCard, Environment


def require_shape(config: DecisionModelConfig | PlanningModelConfig, environment: Environment) -> None:
    """InputError if a model chooses among other actions, or by other features, than an environment has."""
    wanted = (environment.num_actions, environment.num_features)
    if (config.num_actions, config.num_features) != wanted:
        raise InputError(
            f"this model chooses among {config.num_actions} actions by {config.num_features} features, and "
            f"{environment.card.name!r} has {wanted[0]} and {wanted[1]}"
        )


@dataclass(frozen=True)
class InContextAgent:
    """Acts by the scores of a trained `DecisionModel`; `surely` takes the highest score."""

    card: ClassVar[AgentCard] = AgentCard(
        name="transformer",
        summary="A sequence model that was trained on other worlds and learns of this one in its forward pass.",
        paper="Lee et al., Supervised Pretraining Can Learn In-Context Reinforcement Learning, arXiv:2306.14892",
        year=2023,
        kind="in-context",
        families=frozenset({"arms", "linear-arms", "states", "features"}),
    )

    environment: Environment
    model: DecisionModel
    surely: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        require_family(self.card, self.environment)
        require_shape(self.model.config, self.environment)

    @classmethod
    def example(cls) -> "InContextAgent":
        """The one that ships for the default bandit."""
        return cls.of(load_shipped_decisions("gaussian-bandit"))

    @classmethod
    def of(cls, saved: SavedDecisions, environment: Environment | None = None) -> "InContextAgent":
        """A trained model in the environment that it was trained for, or in another one of the same shape."""
        return cls(environment or saved.environment, saved.decisions)

    @classmethod
    def load(cls, path: str | Path, environment: Environment | None = None) -> "InContextAgent":
        """The agent of a folder that a training run wrote."""
        return cls.of(load_decisions(path), environment)

    def begin(self, batch: int, *, generator: torch.Generator) -> DecisionState:
        """Nothing seen."""
        weight = self.model.head.weight
        return self.model.init_state(batch, device=weight.device, dtype=weight.dtype)

    def act(
        self, state: DecisionState, observation: Float[Tensor, "batch features"]
    ) -> tuple[Categorical, DecisionState]:
        """What the model says after all that it saw."""
        with torch.no_grad():
            scores, state = self.model.decide(observation.to(state.reward.dtype), state)
        if self.surely:
            return greedy(scores), state
        return Categorical(probs=scores.to(torch.float64).softmax(1), validate_args=False), state

    def observe(
        self,
        state: DecisionState,
        action: Int[Tensor, " batch"],
        reward: Float[Tensor, " batch"],
        done: Shaped[Tensor, " batch"],
    ) -> DecisionState:
        """Keep the step for the next token."""
        return self.model.observe(state, action, reward, done)
