"""An in-context agent that plans with its own predictions before it acts (DICP: Son et al., 2025, arXiv:2502.19009).

    for every action a:  take it in the model, then what the policy takes most likely, until `depth` steps are taken
    V_a = rewards foreseen before the last step + return foreseen from it on
    act by  p(a) ~ policy(a) exp(V_a / temperature)

The policy is the distilled one. Where nothing is known, all V_a are alike and it explores as its source did; where the
model knows what pays, planning departs from a source that has not made use of it yet. Son et al. draw candidates from
the policy and take the best one; here every first action is a candidate, and the policy weighs it.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import require_family
from contexture.agents.in_context import InContextAgent, require_shape
from contexture.agents.saved import SavedDecisions
from contexture.environments.darkroom import Darkroom
from contexture.errors import InputError
from contexture.models.backbone import BackboneConfig
from contexture.models.decisions import DecisionState
from contexture.models.planning import Foresight, PlanningModel, PlanningModelConfig
from contexture.models.state import repeat_state
from contexture.protocols import AgentCard, Environment
from contexture.randomness import generator as generator_of


@dataclass(frozen=True)
class PlanningAgent:
    """Looks `depth` steps ahead in the model's own predictions; `temperature` is in rewards."""

    card: ClassVar[AgentCard] = AgentCard(
        name="dicp",
        summary="A sequence model that learns of its world in its forward pass, and plans with what it foresees there.",
        paper="Son et al., Distilling Reinforcement Learning Algorithms for In-Context Model-Based Planning, "
        "arXiv:2502.19009",
        year=2025,
        kind="in-context",
        families=frozenset({"states", "features"}),
        waivers={"competence": "what it is built from unless a trained model is given has not been trained"},
    )

    environment: Environment
    model: PlanningModel
    depth: int = field(default=2, kw_only=True)
    temperature: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        require_family(self.card, self.environment)
        require_shape(self.model.config, self.environment)
        if self.depth < 1 or not self.temperature > 0:
            raise InputError(
                f"planning needs a depth of at least one step and a temperature above zero, not {self.depth} and "
                f"{self.temperature}"
            )

    @classmethod
    def example(cls) -> "PlanningAgent":
        """A small model with fresh weights, in a small room."""
        room = Darkroom(size=3, horizon=4)
        config = PlanningModelConfig(
            num_actions=room.num_actions,
            num_features=room.num_features,
            backbone=BackboneConfig(pattern="softmax", width=8, num_heads=2),
            horizon=room.horizon,
        )
        return cls(room, PlanningModel(config, generator=generator_of("example")).requires_grad_(False))

    def begin(self, batch: int, *, generator: torch.Generator) -> DecisionState:
        """Nothing seen."""
        weight = self.model.outcomes.weight
        return self.model.init_state(batch, device=weight.device, dtype=weight.dtype)

    def act(
        self, state: DecisionState, observation: Float[Tensor, "batch features"]
    ) -> tuple[Categorical, DecisionState]:
        """What the policy would do, and what planning makes of it."""
        seen = observation.to(state.reward.dtype)
        with torch.no_grad():
            said, state = self.model.decide(seen, state)
            values = self._look_ahead(said, seen, state)
        scores = said.scores.to(torch.float64).log_softmax(1) + values.to(torch.float64) / self.temperature
        return Categorical(probs=scores.softmax(1), validate_args=False), state

    def observe(
        self,
        state: DecisionState,
        action: Int[Tensor, " batch"],
        reward: Float[Tensor, " batch"],
        done: Shaped[Tensor, " batch"],
    ) -> DecisionState:
        """Keep the step for the next token."""
        return self.model.observe(state, action, reward, done)

    def _look_ahead(self, said: Foresight, seen: Tensor, state: DecisionState) -> Float[Tensor, "batch actions"]:
        """The return foreseen after each first action, in rewards."""
        batch, num_actions = said.scores.shape
        action = torch.arange(num_actions, device=seen.device).repeat(batch)
        state, place = repeat_state(state, num_actions), seen.repeat_interleave(num_actions, 0)
        brought = said.outcomes.flatten(0, 1)
        earned = torch.zeros_like(brought[:, 0])
        for _ in range(self.depth - 1):
            reward = brought[:, -2]
            place, earned = place + brought[:, :-2], earned + reward
            state = self.model.observe(state, action, reward, torch.zeros_like(state.known))
            after, state = self.model.decide(place, state)
            action = after.scores.argmax(1)
            brought = after.outcomes[torch.arange(len(action), device=seen.device), action]
        return (earned + brought[:, -1] * self.model.config.horizon).view(batch, num_actions)


def agent_of(saved: SavedDecisions, environment: Environment | None = None) -> InContextAgent | PlanningAgent:
    """The agent of a trained model: one that plans where the model foresees."""
    if isinstance(saved.model, PlanningModel):
        return PlanningAgent(environment or saved.environment, saved.model)
    return InContextAgent.of(saved, environment)
