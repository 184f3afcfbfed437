"""What training minimises, for each member of a cohort by itself: the mean over episodes and positions of

    squared error          (y_t - m_t)^2                                        a mean
    negative log density   (log v_t + (y_t - m_t)^2 / v_t) / 2                  a mean and a log-variance
    log-loss               -log p_t(y_t)                                        classes, actions, and tokens masked in
    log-loss and squared errors of what the action taken brought               actions with foresight

Each prediction at t has seen x up to t and y before t, so the loss is the mean prequential score.
y, mean: [K * batch, time]; logits: [K * batch, time, classes]; losses: [K, batch, time].
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contexture.models.pairs import PairsModel
from contexture.models.planning import Foresight, PlanningModel, outcomes_of
from contexture.protocols import Episodes, Pairs, Trajectories


def losses(
    model: nn.Module, episodes: Episodes, *, members: int = 1, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "members batch time"], Float[Tensor, "members batch time"]]:
    """The loss at every position and its weight there (one, or a token's mask), members apart.

    With a generator it is the loss of a training step, which a looped model takes after several of its loops.
    """
    if isinstance(episodes, Pairs):
        if generator is not None and isinstance(model, PairsModel):
            values = _lesson(model, episodes, generator)
        else:
            values = _scored(model(episodes.x, episodes.y), episodes)
        weights = torch.ones_like(values)
    elif isinstance(episodes, Trajectories):
        values = _acted(model, episodes)
        weights = torch.ones_like(values)
    else:
        logits = model(episodes.ids, segments=episodes.segments)
        values = F.cross_entropy(logits.flatten(0, 1), episodes.targets.flatten(), reduction="none")
        values = values.view(episodes.ids.shape)
        weights = episodes.mask.to(values.dtype)
    shape = (members, -1, values.shape[1])
    return values.view(shape), weights.view(shape)


def mean_losses(
    values: Float[Tensor, "members batch time"], weights: Float[Tensor, "members batch time"]
) -> Float[Tensor, " members"]:
    """Each member's mean loss over the positions that count."""
    return (values * weights).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1)


def _acted(model: nn.Module, steps: Trajectories) -> Tensor:
    assert steps.targets is not None
    said = model(steps.observations, steps.actions, steps.rewards, steps.starts)
    scores = said.scores if isinstance(said, Foresight) else said
    flat = F.cross_entropy(scores.flatten(0, 1), steps.targets.flatten(), reduction="none")
    values = flat.view(steps.targets.shape)
    if not isinstance(model, PlanningModel):
        return values
    brought, known = outcomes_of(steps, model.config.horizon)
    taken = steps.actions[..., None, None].expand(*steps.actions.shape, 1, brought.shape[-1])
    errors = (said.outcomes.gather(2, taken).squeeze(2) - brought).square() * known
    with_foresight: Tensor = values + model.config.balance * errors.sum(-1)
    return with_foresight


def _lesson(model: PairsModel, episodes: Pairs, generator: torch.Generator) -> Tensor:
    lesson = model.lesson(episodes.x, episodes.y, generator=generator)
    parts = zip(lesson.weights, lesson.said, strict=True)
    total = torch.stack([weight * _scored(said, episodes) for weight, said in parts]).sum(0)
    return total if lesson.penalty is None else total + lesson.penalty


def _scored(said: Any, episodes: Pairs) -> Tensor:
    if said.logits is not None:
        flat = F.cross_entropy(said.logits.flatten(0, 1), episodes.y.flatten(), reduction="none")
        return flat.view(episodes.y.shape)
    # A model that answers queries says something of the last examples alone.
    squared: Tensor = (episodes.y[:, episodes.y.shape[1] - said.mean.shape[1] :] - said.mean).square()
    if said.log_variance is None:
        return squared
    density: Tensor = (said.log_variance + squared * torch.exp(-said.log_variance)) / 2
    return density
