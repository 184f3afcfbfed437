"""Environments with gymnasium's face, and agents in environments of gymnasium's."""

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contexture.discovery import registered
from contexture.errors import InputError
from contexture.estimators import gymnasium as face

gymnasium = pytest.importorskip("gymnasium")


@pytest.mark.parametrize("name", registered("environments"))
def test_every_environment_passes_the_check_of_gymnasium(name: str) -> None:
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(face.make(name), skip_render_check=True)
    # An environment that was not made by gymnasium.make has no spec to be made again from; that is all it may say.
    assert [str(one.message) for one in said if "spec" not in str(one.message)] == []


def test_an_episode_there_holds_several_here_in_one_world() -> None:
    env = face.make("darkroom", steps=12, size=3, horizon=4)
    env.reset(seed=0)
    ends, overs = [], []
    for _ in range(12):
        _, _, terminated, truncated, info = env.step(0)
        ends.append(info["done"])
        overs.append(terminated or truncated)
    assert [i for i, end in enumerate(ends) if end] == [3, 7, 11]
    assert [i for i, over in enumerate(overs) if over] == [11]


def test_a_world_can_be_kept() -> None:
    env = face.make("darkroom", size=9)
    env.reset(seed=3)
    goal = env._world.goal.tolist()  # type: ignore[attr-defined]
    env.reset(options={"world": "same"})
    assert env._world.goal.tolist() == goal  # type: ignore[attr-defined]
    others = []
    for _ in range(5):
        env.reset()
        others.append(env._world.goal.tolist())  # type: ignore[attr-defined]
    assert any(other != goal for other in others)


class TwoArms(gymnasium.Env):  # type: ignore[misc]
    """A user's own: the second arm pays ten times as often."""

    observation_space = gymnasium.spaces.Discrete(1)

    def __init__(self, start: int = 0) -> None:
        self.action_space = gymnasium.spaces.Discrete(2, start=start)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return 0, {}

    def step(self, action: int) -> Any:
        chance = (0.05, 0.5)[action - int(self.action_space.start)]
        return 0, 10.0 * float(self.np_random.random() < chance), False, False, {}


@pytest.mark.parametrize("name", ["thompson", "ucb", "beta-thompson"])
@pytest.mark.parametrize("start", [0, 5])
def test_an_agent_finds_the_better_arm_of_a_users_bandit(name: str, start: int) -> None:
    found = face.ContextAgent(TwoArms(start), name, rewards=(0.0, 10.0)).run(steps=200, seed=1)
    late = np.array(found["actions"][100:])
    assert set(found["actions"]) == {start, start + 1}
    assert (late == start + 1).mean() > 0.8


class Corridor(gymnasium.Env):  # type: ignore[misc]
    """Five cells; walking to the last one pays one and ends the episode."""

    observation_space = gymnasium.spaces.Discrete(5)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.cell = 0
        return self.cell, {}

    def step(self, action: int) -> Any:
        self.cell = max(0, self.cell + (1 if action else -1))
        over = self.cell == 4
        return self.cell, float(over), over, False, {}


def test_q_learning_learns_to_walk() -> None:
    agent = face.ContextAgent(Corridor(), "q-learning", settings={"optimism": 0.5})
    rewards = agent.run(steps=400)["rewards"]
    assert sum(rewards[200:]) > 30
    agent.begin(seed=0)
    assert agent.probabilities(0).tolist() == [0.5, 0.5]  # everything is forgotten


def test_what_cannot_be_acted_in_is_said_in_one_sentence() -> None:
    with pytest.raises(InputError, match="agents act with Discrete actions on Discrete observations"):
        face.ContextAgent(face.make("darkroom"), "q-learning")
    with pytest.raises(InputError, match="5 actions"):
        face.ContextAgent(TwoArms(), "transformer")
    with pytest.raises(InputError, match="cannot be built"):
        face.ContextAgent(TwoArms(), "ucb", settings={"wide": 1})
    with pytest.raises(InputError, match="call act first"):
        face.ContextAgent(TwoArms(), "ucb").observe(1.0, done=False)
    with pytest.raises(InputError, match="before its first step"):
        face.make("gaussian-bandit").step(0)


def test_without_gymnasium_the_way_to_get_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(InputError, match=r"pip install 'contexture\[gymnasium\]'"):
        face.make("gaussian-bandit")


def test_the_example_of_the_documentation_runs() -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "decisions.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import gymnasium\n.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(example, names)
    late = names["found"]["actions"][150:]
    assert late.count(2) > 100
    assert names["reward"] in (0.0, 1.0)
