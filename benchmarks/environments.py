"""Steps per second of batched environments, beside gymnasium's vector environments where gymnasium is installed.

    python benchmarks/environments.py --worlds 1,64,4096 --output results/benchmarks/environments.json

One thread, processor time. Actions are drawn before the clock starts; every world is restarted where its episode ends.
The grid of gymnasium is its FrozenLake-v1 of 8 by 8 cells, and its bandit the example of our documentation, each in a
SyncVectorEnv: a step of a plain Python environment for every world, against one batched step here.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from contexture.discovery import registered
from contexture.environments.choice import build_environment
from contexture.protocols import Environment
from contexture.randomness import generator
from contexture.store.environment import environment as describe
from contexture.store.results import write_result

SECONDS = 1.0


def per_second(step: Callable[[int], None], worlds: int, *, seconds: float = SECONDS) -> float:
    """World steps per second of processor time, after a few steps that are not counted."""
    for index in range(3):
        step(index)
    began, taken = time.process_time(), 0
    while time.process_time() - began < seconds:
        step(taken)
        taken += 1
    return taken * worlds / (time.process_time() - began)


def here(environment: Environment, worlds: int) -> float:
    """Steps of an environment of this library."""
    source = generator("benchmark", environment.card.name)
    held = {"world": environment.begin(worlds, generator=source)}
    actions = torch.randint(environment.num_actions, (64, worlds), generator=source)

    def step(index: int) -> None:
        world = held["world"]
        environment.observation(world)
        outcome, world = environment.step(world, actions[index % 64], generator=source)
        held["world"] = environment.restart(world, outcome.done)

    return per_second(step, worlds)


def there(make: Callable[[], Any], worlds: int) -> float:
    """Steps of gymnasium's SyncVectorEnv."""
    import gymnasium

    env = gymnasium.vector.SyncVectorEnv([make] * worlds)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(64)]
    found = per_second(lambda index: env.step(actions[index % 64]), worlds)
    env.close()
    return found


def gymnasium_makers() -> dict[str, Callable[[], Any]]:
    """A grid and a bandit there; none where gymnasium is not installed."""
    try:
        import gymnasium
    except ImportError:
        return {}

    class Coins(gymnasium.Env):
        observation_space = gymnasium.spaces.Discrete(1)
        action_space = gymnasium.spaces.Discrete(5)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return 0, {}

        def step(self, action):
            return 0, float(self.np_random.random() < 0.2 * action), True, False, {}

    return {
        "gymnasium FrozenLake-v1 8x8": lambda: gymnasium.make("FrozenLake-v1", map_name="8x8"),
        "gymnasium bandit in Python": Coins,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="1,64,4096")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [int(part) for part in options.worlds.split(",")]
    rows: dict[str, dict[int, float]] = {}
    for name in registered("environments"):
        rows[name] = {worlds: here(build_environment(name), worlds) for worlds in sizes}
    for name, make in gymnasium_makers().items():
        rows[name] = {worlds: there(make, worlds) for worlds in sizes if worlds <= 64}
    print(f"{'steps per second of all worlds':34}" + "".join(f"{worlds:>14,}" for worlds in sizes))
    for name, row in rows.items():
        cells = (f"{row[worlds]:>14,.0f}" if worlds in row else f"{'':>14}" for worlds in sizes)
        print(f"{name:34}" + "".join(cells), flush=True)
    if options.output:
        document = {
            "measured": {name: {str(worlds): rate for worlds, rate in row.items()} for name, row in rows.items()},
            "seconds": SECONDS,
            "environment": describe(),
            "command": "python benchmarks/environments.py --worlds " + options.worlds,
        }
        write_result(options.output, document)


if __name__ == "__main__":
    main()
