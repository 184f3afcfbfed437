r"""Transformers are deep optimizers: in-context learning that trains a deep network (Wu et al. 2024).

Prompts of sixteen examples of a teacher network with N layers, and eight queries. The transformer's tokens hold a
student of the same shape, and 2N of its layers (with softmax attention 2N + 1) take one step of gradient descent on it;
`contexture.models.network_descent` has the construction, which is not the paper's but no deeper than its 2N + 4 layers
a step. It is held against gradient descent with derivatives taken automatically.
Shapes: x [episodes, examples, features], y [episodes, examples], queries [episodes, queries, features].
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from contexture.claims.asked import relative
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.predictors import Asked, difference
from contexture.models.network_descent import NetworkDescent
from contexture.tasks.draws import normal

PAPER = Paper(
    key="deep-optimizers",
    title="Transformers are Deep Optimizers: Provable In-Context Learning for Deep Model Training",
    authors="Weimin Wu, Maojiang Su, Jerry Yao-Chieh Hu, Zhao Song, Han Liu",
    year=2024,
    arxiv="2411.16549",
)

FEATURES, HIDDEN, EXAMPLES, QUERIES = 4, 6, 16, 8
RATES = {3: 0.1, 4: 0.05, 6: 0.02}
"""By the student's depth; at twice these rates or more, training the last layer alone diverged on other seeds."""
START = 0.3
"""The student's last layer begins at this share of the usual size, so that it begins near the zero predictor."""
RAMPS = (0.3, 0.1, 0.03, 0.01)
SCALES = (0.3, 0.1, 0.03, 0.01)
LAST_ONLY = "without the layers that go backward only the student's last layer learns"


class Problem(NamedTuple):
    """Prompts, and the student that every one of them begins with: matrices [out, in]."""

    asked: Asked
    student: list[Tensor]


def network(matrices: list[Tensor], x: Tensor, act: Callable[[Tensor], Tensor] = torch.relu) -> Tensor:
    """A network without biases; matrices [out, in] or [episodes, out, in]."""
    for matrix in matrices[:-1]:
        x = act(x @ matrix.mT)
    return (x @ matrices[-1].mT).squeeze(-1)


def problem(run: Run, seed: int, depth: int) -> Problem:
    """Every episode has a teacher of its own, scaled to outputs of mean square 1; the seed's student is one for all."""
    episodes = run.setting("episodes", smoke=8, cpu=24)
    generator = run.generator(seed, "network", depth)
    widths = (FEATURES, *(HIDDEN,) * (depth - 1), 1)
    shapes = list(pairwise(widths))
    teacher = [normal(episodes, after, before, generator=generator) * (2 / before) ** 0.5 for before, after in shapes]
    student = [normal(after, before, generator=generator) * (2 / before) ** 0.5 for before, after in shapes]
    student[-1] = START * student[-1]
    x = normal(episodes, EXAMPLES + QUERIES, FEATURES, generator=generator)
    y = network(teacher, x)
    y = y / y.square().mean(1, keepdim=True).sqrt()
    return Problem(Asked(x[:, :EXAMPLES], y[:, :EXAMPLES], x[:, EXAMPLES:], y[:, EXAMPLES:]), student)


@dataclass(frozen=True, kw_only=True)
class Direct:
    """Gradient descent on the student itself; units that are less than `ramp` above their kink do not learn."""

    rate: float
    ramp: float = 0.0
    by_hand: bool = False

    def said(self, problem: Problem, asked: Tensor, *, num_steps: int) -> list[Tensor]:
        """What the student says of `asked` before any step and after each."""
        p, episodes = problem.asked, len(problem.asked.x)
        matrices = [matrix.expand(episodes, -1, -1) for matrix in problem.student]
        said = [network(matrices, asked)]
        for _ in range(num_steps):
            slopes = self._by_hand(matrices, p) if self.by_hand or self.ramp else self._automatic(matrices, p)
            matrices = [matrix - self.rate * slope for matrix, slope in zip(matrices, slopes, strict=True)]
            said.append(network(matrices, asked))
        return said

    def _automatic(self, matrices: list[Tensor], p: Asked) -> list[Tensor]:
        with torch.enable_grad():
            free = [matrix.detach().requires_grad_(True) for matrix in matrices]
            loss = (network(free, p.x) - p.y).square().mean(1).sum() / 2
            return list(torch.autograd.grad(loss, free))

    def _by_hand(self, matrices: list[Tensor], p: Asked) -> list[Tensor]:
        passed = [p.x]
        for matrix in matrices[:-1]:
            passed.append((passed[-1] @ matrix.mT).relu())
        error, slopes = passed[-1] @ matrices[-1].mT - p.y.unsqueeze(-1), []
        for k in reversed(range(len(matrices))):
            slopes.append(error.mT @ passed[k] / p.y.shape[1])
            error = (error @ matrices[k]) * (passed[k] > self.ramp)
        return slopes[::-1]


@dataclass(frozen=True, kw_only=True)
class InContext:
    """The transformer; `settings` are those of `NetworkDescent`."""

    settings: NetworkDescent

    def said(self, problem: Problem, asked: Tensor, *, num_steps: int) -> list[Tensor]:
        """What it says of `asked` before any step and after each."""
        model = replace(self.settings, num_queries=asked.shape[1])
        return model.read_outs(problem.student, problem.asked.x, problem.asked.y, asked, num_steps=num_steps)


Learner = Direct | InContext


def built(depth: int = 3, **settings: Any) -> InContext:
    """The transformer for students of this depth."""
    widths = (FEATURES, *(HIDDEN,) * (depth - 1), 1)
    model = NetworkDescent(widths=widths, num_examples=EXAMPLES, rate=RATES[depth])
    return InContext(settings=replace(model, **settings))


def steps(run: Run) -> int:
    """How many gradient steps are taken."""
    return run.setting("steps", smoke=8, cpu=20)


class Trained(NamedTuple):
    """Of the queries: relative differences to direct training [steps + 1, episodes], squared errors, zero's."""

    gaps: Tensor
    errors: Tensor
    zero: Tensor


def train(learner: Learner, problem: Problem, rate: float, *, num_steps: int) -> Trained:
    """Let a learner train the student and compare what it says with direct training."""
    p = problem.asked
    wanted = Direct(rate=rate).said(problem, p.queries, num_steps=num_steps)
    said = learner.said(problem, p.queries, num_steps=num_steps)
    return Trained(relative(said, wanted), (said[-1] - p.targets).square().mean(1), p.targets.square().mean(1))


def apart(run: Run, learner: Learner, name: str) -> Samples:
    """The largest difference to direct training over all steps, for three layers; without a name no line is drawn."""
    num_steps = steps(run)

    def one(seed: int) -> OneSeed:
        gaps, error, zero = train(learner, problem(run, seed, 3), RATES[3], num_steps=num_steps)
        curves = {name: (range(num_steps + 1), gaps.mean(1))}
        return OneSeed(values=gaps.amax(0), errors=error, zero_errors=zero, curves=curves)

    return over_seeds(run, one)


BY_STEP = Axes(x="gradient steps", y="difference from direct training, relative", log_y=True, rule=True)


@claim(
    "A transformer of fixed weights trains a network of N ReLU layers on its prompt, at 2N layers a gradient step.",
    threshold=1e-6,
    direction="below",
    why="scores of up to 1e4 cost double precision four digits; a unit within 1e-6 of its kink may cost more",
    axes=BY_STEP,
)
def simulation(run: Run) -> Samples:
    """Twenty steps on a student of three layers, by 120 layers of ReLU attention."""
    return apart(run, built(), "ReLU attention")


@simulation.reference("the same steps with derivatives written out by hand")
def simulation_by_hand(run: Run) -> Samples:
    """The rounding between two ways of writing gradient descent."""
    return apart(run, Direct(rate=RATES[3], by_hand=True), "")


@simulation.control(LAST_ONLY)
def simulation_last_layer(run: Run) -> Samples:
    """The same transformer without its backward layers."""
    return apart(run, built(backward=False), "last layer alone")


def grouped(values: Tensor) -> Tensor:
    """Means over four groups of episodes, [..., 4]."""
    return torch.unflatten(values, -1, (4, -1)).mean(-1)


def slopes(along: tuple[float, ...], values: Tensor) -> Tensor:
    """The slopes of the logarithms of values [points, groups] over those of the tolerances."""
    at = torch.tensor(along, dtype=torch.float64).log()
    at = at - at.mean()
    return (at[:, None] * values.clamp_min(1e-16).log()).sum(0) / at.square().sum()


def order(run: Run, along: tuple[float, ...], learner: Callable[[float], Learner], name: str) -> Samples:
    """The slope of the difference after five steps over the tolerance, in logarithms, for groups of prompts."""
    num_steps, along = 5, along[: run.setting("tolerances", smoke=3, cpu=4)]

    def one(seed: int) -> OneSeed:
        drawn = problem(run, seed, 3)
        trained = [train(learner(at), drawn, RATES[3], num_steps=num_steps) for at in along]
        found = torch.stack([one.gaps[-1] for one in trained])
        return OneSeed(
            values=slopes(along, grouped(found)),
            errors=grouped(trained[-1].errors),
            zero_errors=grouped(trained[-1].zero),
            curves={name: (along, found.mean(1))},
        )

    return over_seeds(run, one)


@claim(
    "The construction comes as close to the gradient steps as wanted: its error vanishes with its tolerance.",
    threshold=0.25,
    direction="above",
    why="units in proportion to the tolerance are off, and errors that add up at random still give a slope of 1/2; an "
    "error that stays has a slope of 0",
    axes=Axes(x="how far from its kink a unit must be to learn", y="difference from direct training, relative",
              log_x=True, log_y=True),
)  # fmt: skip
def tolerance(run: Run) -> Samples:
    """After five steps, for tolerances from 0.3 to 0.01."""
    return order(run, RAMPS, lambda ramp: built(ramp=ramp), "ReLU attention")


@tolerance.reference("gradient descent that is off in the same units")
def tolerance_direct(run: Run) -> Samples:
    """The same tolerance without a transformer."""
    return order(run, RAMPS, lambda ramp: Direct(rate=RATES[3], ramp=ramp), "the same units off, by hand")


@tolerance.control(LAST_ONLY)
def tolerance_last_layer(run: Run) -> Samples:
    """The same tolerances without backward layers."""
    return order(run, RAMPS, lambda ramp: built(ramp=ramp, backward=False), "last layer alone")


@claim(
    "With softmax attention the steps can be taken as closely as wanted too, at one more layer a step.",
    threshold=1.5,
    direction="above",
    why="a sigmoid is linear up to cubes, so that errors fall with the square of its argument: a slope of 2",
    axes=Axes(x="scale of the scores", y="difference from direct training, relative", log_x=True, log_y=True),
)
def softmax(run: Run) -> Samples:
    """After five steps, for scores scaled from 0.3 down to 0.01."""
    return order(run, SCALES, lambda small: built(attention="softmax", small=small), "softmax attention")


@softmax.reference("the sigmoid's own distance from its tangent, without a transformer")
def softmax_tangent(run: Run) -> Samples:
    """|4 (sigmoid(e z) - 1/2) / e - z| / |z| for the student's own outputs z."""

    def one(seed: int) -> OneSeed:
        drawn = problem(run, seed, 3)
        z = network(drawn.student, drawn.asked.queries)
        found = torch.stack([
            difference(4 / at * ((at * z).sigmoid() - 0.5), z)[0] / difference(z, z)[1].mean() for at in SCALES
        ]).sqrt()  # fmt: skip
        return OneSeed(
            values=slopes(SCALES, grouped(found)), curves={"sigmoid against its tangent": (SCALES, found.mean(1))}
        )

    return over_seeds(run, one)


@softmax.control(LAST_ONLY)
def softmax_last_layer(run: Run) -> Samples:
    """The same scores without backward layers."""
    return order(run, SCALES, lambda small: built(attention="softmax", small=small, backward=False), "last layer alone")


def convergence(run: Run, learner: Learner, name: str) -> Samples:
    """The loss on the prompt's examples after all steps, per that of direct training."""
    num_steps = steps(run)

    def one(seed: int) -> OneSeed:
        drawn = problem(run, seed, 3)
        p = drawn.asked
        losses = [(part - p.y).square().mean(1) for part in learner.said(drawn, p.x, num_steps=num_steps)]
        direct = (Direct(rate=RATES[3]).said(drawn, p.x, num_steps=num_steps)[-1] - p.y).square().mean(1)
        curves = {name: (range(num_steps + 1), torch.stack(losses).mean(1))}
        return OneSeed(
            values=losses[-1], per=direct, errors=losses[-1], zero_errors=p.y.square().mean(1), curves=curves
        )

    return over_seeds(run, one)


@claim(
    "Steps that are only approximate converge all the same: their loss ends where that of direct training does.",
    threshold=1.02,
    direction="below",
    why="2 % is a tenth of what training the last layer alone loses",
    axes=Axes(x="gradient steps", y="squared error on the examples"),
)
def converges(run: Run) -> Samples:
    """All steps, with units off that are less than 0.03 above their kink."""
    return convergence(run, built(ramp=0.03), "in context, off by the kinks")


@converges.reference("direct training by hand")
def converges_reference(run: Run) -> Samples:
    """The same loss."""
    return convergence(run, Direct(rate=RATES[3], by_hand=True), "direct training")


@converges.control(LAST_ONLY)
def converges_last_layer(run: Run) -> Samples:
    """The same steps without backward layers."""
    return convergence(run, built(ramp=0.03, backward=False), "last layer alone")


def over_depths(run: Run, learner: Callable[[int], Learner], name: str) -> Samples:
    """Relative differences to direct training's predictions after all steps, at the worst of the depths."""
    num_steps, layers = steps(run), run.setting("layers", smoke=(3, 4), cpu=tuple(RATES))

    def one(seed: int) -> OneSeed:
        found = [
            train(learner(depth), problem(run, seed, depth), RATES[depth], num_steps=num_steps) for depth in layers
        ]
        gaps = torch.stack([trained.gaps[-1].mean() for trained in found])
        worst = found[int(gaps.argmax())]
        curves = {name: (layers, gaps)}
        return OneSeed(values=worst.gaps[-1], errors=worst.errors, zero_errors=worst.zero, curves=curves)

    return over_seeds(run, one)


@claim(
    "For networks of three, four and six layers, what is learned in context predicts what direct training predicts.",
    threshold=1e-3,
    direction="below",
    why="a thousandth of what is predicted does not matter for any error",
    axes=Axes(x="layers of the network", y="difference from direct training, relative", log_y=True, rule=True),
    mechanism="the paper trains transformers on such prompts; here the constructed one stands in their place",
)
def depths(run: Run) -> Samples:
    """New inputs after all steps, at the worst of the three depths."""
    return over_depths(run, built, "in context")


@depths.reference("direct training by hand")
def depths_reference(run: Run) -> Samples:
    """The rounding between two ways of writing gradient descent."""
    return over_depths(run, lambda depth: Direct(rate=RATES[depth], by_hand=True), "")


@depths.control(LAST_ONLY)
def depths_last_layer(run: Run) -> Samples:
    """The same depths without backward layers."""
    return over_depths(run, lambda depth: built(depth, backward=False), "last layer alone")
