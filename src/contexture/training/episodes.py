"""The episodes of a step: drawn in fixed blocks, each from a generator of its own address.

    (seed, "train", step, block) ─▶ block of episodes;   a step's batch = its blocks in order

So the parts of an accumulated step, the members of a cohort and the ranks of a distributed run see the same episodes as
one process with one model would.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from contexture.protocols import Episodes, Pairs, Task, Tokens, Trajectories
from contexture.randomness import generator


def draw(
    task: Task, *, seeds: Sequence[int], purpose: str, step: int, blocks: range, block: int, dtype: torch.dtype
) -> Episodes:
    """The episodes of some blocks of a step for every member's seed, folded with members outermost.

    Members of one seed get the same episodes, sampled once.
    """
    by_seed = {
        seed: join([task.sample(block, generator=generator(seed, purpose, step, index)) for index in blocks])
        for seed in dict.fromkeys(seeds)
    }
    episodes = join([by_seed[seed] for seed in seeds])
    return episodes if isinstance(episodes, Tokens) else episodes.to(dtype=dtype)


def join(parts: Sequence[Episodes]) -> Episodes:
    """Several batches of episodes as one, in order; latents and slices are left behind."""
    first = parts[0]
    if isinstance(first, Pairs):
        pairs = [part for part in parts if isinstance(part, Pairs)]
        return Pairs(
            x=torch.cat([part.x for part in pairs]),
            y=torch.cat([part.y for part in pairs]),
            schema=first.schema,
            clean=_optional([part.clean for part in pairs]),
        )
    if isinstance(first, Trajectories):
        return _join_trajectories([part for part in parts if isinstance(part, Trajectories)])
    tokens = [part for part in parts if isinstance(part, Tokens)]
    return Tokens(
        ids=torch.cat([part.ids for part in tokens]),
        targets=torch.cat([part.targets for part in tokens]),
        mask=torch.cat([part.mask for part in tokens]),
        vocabulary=first.vocabulary,
        segments=_optional([part.segments for part in tokens]),
    )


def _join_trajectories(parts: Sequence[Trajectories]) -> Trajectories:
    return Trajectories(
        observations=torch.cat([part.observations for part in parts]),
        actions=torch.cat([part.actions for part in parts]),
        rewards=torch.cat([part.rewards for part in parts]),
        starts=torch.cat([part.starts for part in parts]),
        num_actions=parts[0].num_actions,
        targets=_optional([part.targets for part in parts]),
    )


def _optional(tensors: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if len(present) == len(tensors) else None
