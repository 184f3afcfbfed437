"""The laws of tasks.

| law | what it holds |
|---|---|
| episodes | shapes, dtypes, schema and codes are what the protocol says, for any batch size |
| same state | the same generator state gives the same episodes, bit by bit |
| own generator | sampling neither reads nor moves a global generator |
| fresh draws | another state gives other episodes, and so does the next draw |
| independence | the episodes of one batch are no more alike than those of different batches |
| batch size | one batch of 2n and two of n have the same statistics |
| noise | y - clean has mean zero, the stated standard deviation, and nothing to do with clean |
| chance | the best constant answer costs what `chance` says, within 5 standard errors |
| calibration | the oracle's squared errors are as large as the variance that it states |
| oracle | no other learner beats the oracle, and mixing any into it makes it no better |

The last five are statistical: they draw from generators of their own, so that a run is repeatable, and allow 5 standard
errors, or for the oracle a one-sided paired test at 0.1 %, corrected for the number of comparisons (Bonferroni).
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from contexture.discovery import build, registered
from contexture.errors import InputError
from contexture.evaluation.metrics import Truth, find
from contexture.protocols import Episodes, Learner, Pairs, Prediction, SequenceLearner, Task, Tokens, Trajectories
from contexture.randomness import generator
from contexture.testing.errors import LawError
from contexture.testing.laws import run_laws

STANDARD_ERRORS = 5.0
LEVEL = 0.001
ENOUGH = 0.006
"""The standard error of the measured chance level, as a share of it: an error of 5 % is then seen for certain."""
MOST_EPISODES = 1 << 16
NUMBERS_AT_ONCE = 1 << 22
STEP = 0.1
"""How much of another learner's answer is mixed into the oracle's, and how far the oracle's is shrunk or stretched."""

ITERATIVE = frozenset({"gaussian-process", "lasso"})
"""Registered learners that take seconds for a batch; they are held against an oracle where a task names them."""


@runtime_checkable
class StatesNoise(Protocol):
    """A task whose setting `noise` is the standard deviation of y around clean."""

    noise: float


@dataclass(frozen=True, kw_only=True)
class TaskCase:
    """A task to hold to the laws, the learners that must not beat its oracle, and how many episodes they are shown."""

    task: Task
    rivals: Mapping[str, Learner] = field(default_factory=dict)
    num_episodes: int = 512

    def draw(self, batch: int, *address: int | str) -> Episodes:
        """Episodes that depend on the address alone."""
        return self.task.sample(batch, generator=generator("law", self.task.card.name, *address))


def check_task(
    task: Task | type[Any],
    *,
    rivals: Mapping[str, Learner] | None = None,
    num_episodes: int = 512,
    laws: tuple[str, ...] = (),
) -> None:
    """Hold a task, or a class with its default settings, to every law or to the named ones.

    `rivals` are learners that must not beat the oracle, beside the task's baselines; by default every registered
    classical learner with a closed form for all prefixes. Raises LawError at the first law that is broken. A law on the
    card's `waivers` has to be broken.
    """
    built: Task = build(task) if isinstance(task, type) else task
    case = TaskCase(task=built, rivals=registered_rivals() if rivals is None else rivals, num_episodes=num_episodes)
    run_laws(LAWS, case, waivers=built.card.waivers, only=laws)


@cache
def registered_rivals() -> Mapping[str, Learner]:
    """The registered classical learners that cover every prefix in one call and need no settings."""
    found: dict[str, Learner] = {}
    for name, cls in registered("learners").items():
        card = cls.card
        if name in ITERATIVE or card.kind != "classical" or card.prequential != "exact" or not card.targets:
            continue
        try:
            found[name] = cls()
        except TypeError:
            continue
    return found


KINDS: dict[str, tuple[type[Episodes], tuple[str, ...]]] = {
    "pairs": (Pairs, ("x", "y", "clean")),
    "tokens": (Tokens, ("ids", "targets", "mask", "segments")),
    "trajectories": (Trajectories, ("rewards", "actions", "observations", "starts", "targets", "regret")),
}
"""The kinds of episodes, and what each holds; the first has an entry for everything that a learner is shown."""


def _tensors(episodes: Episodes) -> dict[str, Tensor]:
    names = next(names for kind, names in KINDS.values() if isinstance(episodes, kind))
    found = {name: getattr(episodes, name) for name in names}
    found |= dict(episodes.slices if isinstance(episodes, Tokens) else episodes.latents)
    return {name: value for name, value in found.items() if value is not None}


def _same(law: str, first: Episodes, second: Episodes, message: str) -> None:
    """LawError naming the first entry at which two draws differ."""
    ones, others = _tensors(first), _tensors(second)
    if ones.keys() != others.keys():
        raise LawError(law, f"{message}: {sorted(ones)} and {sorted(others)}")
    for name, one in ones.items():
        other = others[name]
        if one.shape != other.shape or one.dtype != other.dtype:
            raise LawError(law, f"{message}: {name} is {tuple(one.shape)} and {tuple(other.shape)}")
        differs = one != other
        if one.is_floating_point():
            differs &= ~(one.isnan() & other.isnan())
        if differs.any():
            raise LawError(law, f"{message}: {name}", position=tuple(int(i) for i in differs.nonzero()[0]))


def episodes_law(case: TaskCase) -> None:
    """Shapes, dtypes, schema and codes."""
    kind = case.task.card.episodes
    for batch in (1, 3):
        episodes = case.draw(batch, "episodes", batch)
        if not isinstance(episodes, KINDS[kind][0]):
            raise LawError("episodes", f"the card says {kind}, but sample gives {type(episodes).__name__}")
        if episodes.batch != batch:
            raise LawError("episodes", f"{batch} were asked for, {episodes.batch} came")
        for name, value in _tensors(episodes).items():
            if value.shape[:1] != (batch,):
                raise LawError("episodes", f"{name} is {tuple(value.shape)}, but the batch is {batch} and comes first")
        if isinstance(episodes, Pairs):
            _check_pairs(episodes)
        elif isinstance(episodes, Tokens):
            _check_tokens(episodes)
        else:
            _check_trajectories(episodes)


def _check_pairs(episodes: Pairs) -> None:
    plain, y = episodes.schema.is_plain, episodes.y
    if not episodes.x.is_floating_point() or bool(episodes.x.isinf().any()):
        raise LawError("episodes", "x must hold finite floating-point numbers (NaN where a cell is missing)")
    if episodes.schema.task == "classification":
        if y.dtype != torch.int64 or int(y.min()) < 0 or int(y.max()) >= episodes.schema.num_classes:
            raise LawError("episodes", f"y must hold int64 codes below {episodes.schema.num_classes}")
    elif not y.is_floating_point() or not bool(y.isfinite().all()):
        raise LawError("episodes", "y must hold finite floating-point numbers")
    if episodes.clean is not None and episodes.clean.shape != y.shape:
        raise LawError("episodes", f"clean is {tuple(episodes.clean.shape)}, but y is {tuple(y.shape)}")
    for index, column in enumerate(() if plain else episodes.schema.features):
        codes = episodes.x[..., index][~episodes.x[..., index].isnan()]
        wrong = (codes != codes.round()) | (codes < 0) | (codes >= len(column.categories))
        if column.kind == "categorical" and bool(wrong.any()):
            raise LawError("episodes", f"column {column.name!r} holds codes outside its categories")


def _check_tokens(episodes: Tokens) -> None:
    for name in ("ids", "targets"):
        value = getattr(episodes, name)
        if value.dtype != torch.int64 or int(value.min()) < 0 or int(value.max()) >= episodes.vocabulary:
            raise LawError("episodes", f"{name} must hold int64 tokens below {episodes.vocabulary}")
    if episodes.mask.dtype != torch.bool or not bool(episodes.mask.any(1).all()):
        raise LawError("episodes", "the mask must be bool and name at least one scored position in each sequence")


def _check_trajectories(episodes: Trajectories) -> None:
    for name in ("actions", "targets"):
        value = getattr(episodes, name)
        if (
            value is None
            or value.dtype != torch.int64
            or int(value.min()) < 0
            or int(value.max()) >= episodes.num_actions
        ):
            raise LawError("episodes", f"{name} must hold int64 actions below {episodes.num_actions}")
    if not bool(episodes.rewards.isfinite().all()) or not bool(episodes.observations.isfinite().all()):
        raise LawError("episodes", "rewards and observations must be finite")
    if episodes.starts.dtype != torch.bool or not bool(episodes.starts[:, 0].all()):
        raise LawError("episodes", "starts must be bool, and every history begins with the start of an episode")


def same_state_law(case: TaskCase) -> None:
    """The same generator state gives the same bits."""
    _same("same state", case.draw(4, "same"), case.draw(4, "same"), "one generator state gave two draws that differ")


def own_generator_law(case: TaskCase) -> None:
    """Sampling neither reads nor moves a global generator."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
        before = _global_states()
        first = case.draw(4, "own")
        if _global_states() != before:
            raise LawError("own generator", "sampling moves a global generator: draw from the one that is passed in")
        torch.manual_seed(2)
        np.random.seed(2)  # noqa: NPY002
        random.seed(2)
        _same("own generator", first, case.draw(4, "own"), "episodes change with a global generator's seed")
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])


def _global_states() -> tuple[bytes, str, object]:
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), random.getstate()  # noqa: NPY002


def fresh_draws_law(case: TaskCase) -> None:
    """Another state gives other episodes, and so does the next draw from one generator."""
    source = generator("law", case.task.card.name, "fresh", 0)
    first, second = (case.task.sample(4, generator=source) for _ in range(2))
    third = case.draw(4, "fresh", 1)
    for other, why in ((second, "the next draw repeats the first"), (third, "another state gives the same episodes")):
        ones, others = _shown(first), _shown(other)
        if any(torch.equal(one, another) for one in ones for another in others):
            raise LawError("fresh draws", why)
    if any(torch.equal(one, another) for i, one in enumerate(_shown(first)) for another in _shown(first)[:i]):
        raise LawError("fresh draws", "two episodes of one batch are the same")


def _shown(episodes: Episodes) -> list[Tensor]:
    """What a learner sees of each episode, as one row of numbers."""
    if isinstance(episodes, Pairs):
        rows = torch.cat([episodes.x.double().nan_to_num(), episodes.y.double().unsqueeze(-1)], -1)
        return list(rows.unbind(0))
    if isinstance(episodes, Trajectories):
        return list(torch.stack([episodes.actions.double(), episodes.rewards.double()], -1).unbind(0))
    return list(episodes.ids.unbind(0))


def _features(episodes: Episodes) -> Tensor:
    """A few numbers that describe each episode, [batch, numbers]."""
    if isinstance(episodes, Tokens):
        asked = (episodes.targets * episodes.mask).sum(1) / episodes.mask.sum(1)
        return torch.stack([episodes.ids.double().mean(1), asked, episodes.mask.double().mean(1)], -1)
    if isinstance(episodes, Trajectories):
        rewards, actions = episodes.rewards.double(), episodes.actions.double()
        return torch.stack([rewards.mean(1), rewards.square().mean(1), actions.mean(1), actions.var(1)], -1)
    x, y = episodes.x.double().nan_to_num(), episodes.y.double()
    half = y.shape[1] // 2 + 1
    parts = [y.mean(1), y.square().mean(1), y[:, :half].square().mean(1), x.mean((1, 2)), x.square().mean((1, 2))]
    return torch.stack(parts, -1)


def independence_law(case: TaskCase) -> None:
    """Ranks of episodes vary as much between batches as within (one-way analysis of variance)."""
    size, count = 8, 64
    numbers = torch.cat([_features(case.draw(size, "independent", i)) for i in range(count)])
    jitter = torch.rand(numbers.shape, generator=generator("law", "ties"), dtype=torch.float64)
    order = torch.argsort(torch.argsort(numbers + 1e-9 * jitter * numbers.abs().amax(0), dim=0), dim=0).double()
    groups = order.view(count, size, -1)
    between = size * groups.mean(1).var(0)
    within = groups.var(1).mean(0)
    most = 1 + STANDARD_ERRORS * math.sqrt(2 / (count - 1))
    ratio = float((between / within).max())
    if ratio > most:
        raise LawError("independence", f"batches differ {ratio:.2f} times as much as chance allows ({most:.2f})")


def batch_size_law(case: TaskCase) -> None:
    """The statistics of episodes do not depend on how many are drawn at once."""
    half = 256
    one = _features(case.draw(2 * half, "batch size", "one"))
    two = torch.cat([_features(case.draw(half, "batch size", "two", i)) for i in range(2)])
    error = ((one.var(0) + two.var(0)) / (2 * half)).sqrt()
    apart = (one.mean(0) - two.mean(0)).abs() > STANDARD_ERRORS * error + 1e-12
    if apart.any():
        index = int(apart.nonzero()[0])
        raise LawError(
            "batch size",
            f"one batch of {2 * half} and two of {half} differ in a mean: "
            f"{float(one.mean(0)[index]):.4g} against {float(two.mean(0)[index]):.4g}",
        )


def _chunk(case: TaskCase) -> int:
    """How many episodes are drawn at once where many are needed."""
    shape = _tensors(case.draw(1, "shape"))[KINDS[case.task.card.episodes][1][0]].shape
    return max(1, min(4096, NUMBERS_AT_ONCE // math.prod(shape)))


def noise_law(case: TaskCase) -> None:
    """What `clean` leaves out is noise: of mean zero, of the stated size, unrelated to clean and to its neighbour."""
    chunk = _chunk(case)
    parts = [case.draw(chunk, "noise", i) for i in range(max(1, 4096 // chunk))]
    pairs = [part for part in parts if isinstance(part, Pairs) and part.clean is not None]
    if not pairs:
        return
    clean = torch.cat([part.clean.double() for part in pairs if part.clean is not None])
    noise = torch.cat([part.y.double() for part in pairs]) - clean
    size = clean.square().mean().sqrt()
    numbers = {"mean": noise.mean(1), "product with clean": (noise * clean).mean(1) / size}
    if noise.shape[1] > 1:
        numbers["product with the next"] = (noise[:, 1:] * noise[:, :-1]).mean(1)
    if isinstance(case.task, StatesNoise):
        numbers["variance less noise^2"] = noise.square().mean(1) - case.task.noise**2
    for name, values in numbers.items():
        error = float(values.std()) / math.sqrt(len(values))
        if abs(float(values.mean())) > STANDARD_ERRORS * error + 1e-12 * float(size) ** 2:
            raise LawError("noise", f"y - clean has {name} {float(values.mean()):.4g} +- {error:.2g}, not 0")


def chance_law(case: TaskCase) -> None:
    """The constant answer that does best on other episodes costs what the task says."""
    chunk = _chunk(case)
    fitted = [case.draw(chunk, "chance", "fit", i) for i in range(max(1, 4096 // chunk))]
    cost = _constant(fitted, case.task.card.metric)
    losses: list[Tensor] = []
    while True:
        losses.append(cost(case.draw(chunk, "chance", "test", len(losses))))
        values = torch.cat(losses)
        mean, error = float(values.mean()), float(values.std()) / math.sqrt(len(values))
        if len(values) >= min(4096, MOST_EPISODES) and (error <= ENOUGH * mean or len(values) >= MOST_EPISODES):
            break
    if not abs(mean - case.task.chance) <= STANDARD_ERRORS * error + 1e-9 * abs(mean):
        raise LawError(
            "chance", f"stated {case.task.chance:.6g}, but the best constant costs {mean:.6g} +- {error:.2g}"
        )


def _constant(fitted: list[Episodes], metric: str) -> Callable[[Episodes], Tensor]:
    """The mean cost, for each episode, of the constant answer that is best for the fitted episodes."""
    if isinstance(fitted[0], Tokens):
        asked = torch.cat([part.targets[part.mask] for part in fitted if isinstance(part, Tokens)])
        answer = int(asked.bincount().argmax())
        return lambda e: _token_errors(e, torch.full_like(_tensors(e)["ids"], answer))
    if isinstance(fitted[0], Trajectories):
        taken = torch.cat([_targets(part).flatten() for part in fitted])
        costs = -(taken.bincount(minlength=fitted[0].num_actions).double() / len(taken)).log()
        return lambda e: costs[_targets(e)].mean(1)
    y = torch.cat([part.y.flatten() for part in fitted if isinstance(part, Pairs)])
    classes = fitted[0].schema.num_classes
    shares = y.long().bincount(minlength=classes).double() / len(y) if classes else None
    scale = y.double().var(correction=0).view(1, 1)

    def cost(episodes: Episodes) -> Tensor:
        assert isinstance(episodes, Pairs)
        if shares is None:
            answer = Prediction(mean=y.double().mean().expand(episodes.y.shape))
        else:
            answer = Prediction(probabilities=shares.expand(*episodes.y.shape, classes))
        return find(metric)(answer, Truth(y=episodes.y, scale=scale)).mean(1)

    return cost


def _targets(episodes: Episodes) -> Tensor:
    assert isinstance(episodes, Trajectories)
    assert episodes.targets is not None
    return episodes.targets


def _token_errors(episodes: Episodes, answers: Tensor) -> Tensor:
    """The share of scored positions that an answer gets wrong, for each sequence."""
    assert isinstance(episodes, Tokens)
    wrong = (answers != episodes.targets) & episodes.mask
    return wrong.sum(1).double() / episodes.mask.sum(1)


def calibration_law(case: TaskCase) -> None:
    """E[(y - mean)^2 / variance] = 1 for an oracle that states its variance."""
    oracle = case.task.oracle()
    if not isinstance(oracle, Learner):
        return
    episodes = case.draw(case.num_episodes, "calibration")
    assert isinstance(episodes, Pairs)
    answer = oracle.prequential(episodes)
    if answer.variance is None or answer.mean is None:
        return
    ratio = ((episodes.y.double() - answer.mean).square() / answer.variance).mean(1)
    error = float(ratio.std()) / math.sqrt(len(ratio))
    if abs(float(ratio.mean()) - 1) > STANDARD_ERRORS * error:
        found = f"{float(ratio.mean()):.4f} +- {error:.2g}"
        raise LawError("calibration", f"the oracle's squared errors are {found} times the variance that it states")


def oracle_law(case: TaskCase) -> None:
    """No learner beats the oracle, and none improves it: at no position, and not on average over them."""
    oracle = case.task.oracle()
    if oracle is None:
        return
    episodes = case.draw(case.num_episodes, "oracle")
    if isinstance(episodes, Tokens):
        gains = _gains_on_tokens(case, oracle, episodes)
    else:
        assert isinstance(episodes, Pairs)
        gains = _gains(case, oracle, episodes)
    comparisons = sum(gain.shape[1] + 1 for gain in gains.values())
    most = float(torch.special.ndtri(torch.tensor(1 - LEVEL / max(1, comparisons), dtype=torch.float64)))
    for name, gain in gains.items():
        for values, where in ((gain.mean(1, keepdim=True), False), (gain, True)):
            mean, error = values.mean(0), values.std(0) / math.sqrt(len(values))
            beaten = (mean > most * error + 1e-12).nonzero().flatten().tolist()
            if beaten:
                found = f"{float(mean[beaten[0]]):.4g} +- {float(error[beaten[0]]):.2g}"
                message = f"{name} costs {found} less than the oracle, and chance allows {most:.1f} standard errors"
                raise LawError("oracle", message, position=(beaten[0],) if where else None)


def _gains_on_tokens(case: TaskCase, oracle: object, episodes: Tokens) -> dict[str, Tensor]:
    """How much less than the oracle each baseline costs, [batch, 1]."""

    rows, segments = [slice(b, b + 1) for b in range(episodes.batch)], episodes.segments

    def cost(learner: object) -> Tensor:
        """Sequence by sequence: logits of all of them at once would fill the memory."""
        assert isinstance(learner, SequenceLearner)
        logits = (learner.logits(episodes.ids[b], None if segments is None else segments[b]) for b in rows)
        return _token_errors(episodes, torch.cat([said.argmax(-1) for said in logits])).unsqueeze(1)

    least = cost(oracle)
    return {name: least - cost(learner) for name, learner in case.task.baselines().items()}


def _gains(case: TaskCase, oracle: object, episodes: Pairs) -> dict[str, Tensor]:
    """How much less than the oracle's answer another's costs, or the oracle's moved a little towards it, [batch, t]."""
    assert isinstance(oracle, Learner)
    metric, truth = find(case.task.card.metric), Truth(y=episodes.y)
    best = oracle.prequential(episodes).value

    def cost(value: Tensor) -> Tensor:
        return metric(Prediction(mean=value) if value.dim() == 2 else Prediction(probabilities=value), truth)

    least = cost(best)
    gains = {}
    for name, learner in {**case.rivals, **case.task.baselines()}.items():
        value = _answer(learner, episodes)
        if value is not None:
            gains[name] = least - cost(value)
            gains[f"the oracle mixed with {name}"] = least - cost(torch.lerp(best, value, STEP))
    if best.dim() == 2:
        gains["the oracle shrunk"] = least - cost((1 - STEP) * best)
        gains["the oracle stretched"] = least - cost((1 + STEP) * best)
    return gains


def _answer(learner: object, episodes: Pairs) -> Tensor | None:
    """A learner's answers, or None where it does not take these episodes."""
    if not isinstance(learner, Learner) or episodes.schema.task not in learner.card.targets:
        return None
    try:
        value = learner.prequential(episodes).value
    except InputError:
        return None
    return value if bool(value.isfinite().all()) else None


LAWS: dict[str, Callable[[TaskCase], None]] = {
    "episodes": episodes_law,
    "same state": same_state_law,
    "own generator": own_generator_law,
    "fresh draws": fresh_draws_law,
    "independence": independence_law,
    "batch size": batch_size_law,
    "noise": noise_law,
    "chance": chance_law,
    "calibration": calibration_law,
    "oracle": oracle_law,
}
