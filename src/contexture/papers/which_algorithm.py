r"""What learning algorithm is in-context learning? Investigations with linear models (Akyurek et al. 2022).

By construction: transformers whose layers, set by hand, take one gradient step or one Sherman-Morrison step of ridge
regression for each example (`contexture.models.updates`). By training: transformers over x_1, y_1, x_2, .. held against

    one gradient step   n / (n + d + 1 + noise^2) x'X'y / n       the best rate after n examples
    ridge(penalty)      x'(X'X + penalty I)^-1 X'y                penalty noise^2 is the Bayesian estimator

by the squared difference of predictions. By probing: what a small network reads from the hidden vectors of layer l.
Trained transformers have three features, eight examples, 32 wide layers: the paper's sizes are out of reach here.
Shapes: x [episodes, examples, features], y [episodes, examples], queries [episodes, queries, features].
"""

import torch
from torch import Tensor

from contexture.claims.asked import ReadOuts, apart
from contexture.claims.beside import each, gap
from contexture.claims.by_layer import holding, inside, probed
from contexture.claims.in_context import Predict, said_by, small_backbone, train_in_context, untrained
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.claims.running_sums import one_step, solved
from contexture.evaluation.predictors import Asked, ask
from contexture.learners.classical.ridge import Ridge
from contexture.models.pairs import PairsModel
from contexture.models.updates import online_descent, online_ridge
from contexture.protocols import Pairs
from contexture.tasks.linear_regression import LinearRegression

PAPER = Paper(
    key="which-algorithm",
    title="What learning algorithm is in-context learning? Investigations with linear models",
    authors="Ekin Akyürek, Dale Schuurmans, Jacob Andreas, Tengyu Ma, Denny Zhou",
    year=2022,
    arxiv="2211.15661",
    uses=("linear-regression", "fixed-ridge", "softmax"),
)

BUILT = LinearRegression(num_features=4, num_points=17, noise=0.5)
EXAMPLES = BUILT.num_points - 1
RATE, PENALTY = 0.05, 0.25
BY_EXAMPLE = Axes(x="examples", y="difference from the algorithm, relative", log_y=True, rule=True)


def stochastic_steps(p: Asked) -> list[Tensor]:
    """Gradient descent with one step for each example in turn."""
    weights, said = p.x.new_zeros(p.x.shape[0], p.x.shape[2]), []
    for x, y in zip(p.x.unbind(1), p.y.unbind(1), strict=True):
        weights = weights - RATE * ((weights * x).sum(1) - y).unsqueeze(1) * x
        said.append((p.queries @ weights.unsqueeze(-1)).squeeze(-1))
    return said


def steps_by_matrices(p: Asked) -> list[Tensor]:
    """The same as w <- (I - rate x x') w + rate y x."""
    weights, said = p.x.new_zeros(p.x.shape[0], p.x.shape[2], 1), []
    for x, y in zip(p.x.unbind(1), p.y.unbind(1), strict=True):
        turn = torch.eye(x.shape[1], dtype=x.dtype) - RATE * x.unsqueeze(2) @ x.unsqueeze(1)
        weights = turn @ weights + RATE * (y.unsqueeze(1) * x).unsqueeze(-1)
        said.append((p.queries @ weights).squeeze(-1))
    return said


def ridge_by_rotations(p: Asked) -> list[Tensor]:
    """Ridge regression after each example, from the workbench's triangle of rotations."""
    weights = Ridge(penalty=PENALTY).prefix_weights(p.x, p.y)[:, 1:]
    return [(p.queries @ w.unsqueeze(-1)).squeeze(-1) for w in weights.unbind(1)]


def ridge_by_normal_equations(p: Asked) -> list[Tensor]:
    """The same by solving (X'X + penalty I) w = X'y for every prefix."""
    said = []
    for n in range(1, p.x.shape[1] + 1):
        x, y = p.x[:, :n], p.y[:, :n].unsqueeze(-1)
        second = x.mT @ x + PENALTY * torch.eye(x.shape[2], dtype=x.dtype)
        said.append((p.queries @ torch.linalg.solve(second, x.mT @ y)).squeeze(-1))
    return said


def descent_layers(p: Asked) -> list[Tensor]:
    """The constructed transformer that takes gradient steps."""
    return online_descent(BUILT.num_features, num_examples=EXAMPLES, rate=RATE).read_outs(*p[:3])


def blind_layers(p: Asked) -> list[Tensor]:
    """The same layers, which do not look at what the weights say already."""
    return online_descent(BUILT.num_features, num_examples=EXAMPLES, rate=RATE, residual=False).read_outs(*p[:3])


def ridge_layers(p: Asked) -> list[Tensor]:
    """The constructed transformer that keeps ridge regression."""
    return online_ridge(BUILT.num_features, num_examples=EXAMPLES, penalty=PENALTY).read_outs(*p[:3])


def follows(run: Run, layers: ReadOuts, algorithm: ReadOuts, name: str) -> Samples:
    """The largest relative difference between read-outs and the algorithm, over examples."""
    episodes = run.setting("episodes", smoke=16, cpu=128)

    def one(seed: int) -> OneSeed:
        p = ask(run.sample(BUILT, episodes, seed=seed))
        return apart(p, layers(p), algorithm(p), name)

    return over_seeds(run, one)


@claim(
    "A transformer with weights set by hand takes a step of gradient descent on each example, two layers to a step.",
    threshold=1e-6,
    direction="below",
    why="products made of four GELU units err by 1e-10 each, and the step is made of a dozen",
    axes=BY_EXAMPLE,
)
def descent(run: Run) -> Samples:
    """Sixteen steps in 33 layers."""
    return follows(run, descent_layers, stochastic_steps, "constructed layers")


@descent.reference("the same steps written with matrices")
def descent_by_matrices(run: Run) -> Samples:
    """The rounding between two ways of writing them."""
    return follows(run, steps_by_matrices, stochastic_steps, "matrices")


@descent.control("layers that add up the examples, without the error that is left, take other steps")
def descent_blind(run: Run) -> Samples:
    """The same layers but for the residual."""
    return follows(run, blind_layers, stochastic_steps, "without the residual")


@claim(
    "A transformer with weights set by hand computes ridge regression in closed form, three layers to an example.",
    threshold=1e-6,
    direction="below",
    why="sixteen rank-one updates of an inverse carry errors of 1e-10 from products and 1e-12 from divisions along",
    axes=BY_EXAMPLE,
)
def ridge(run: Run) -> Samples:
    """Sherman and Morrison's update for sixteen examples, in 50 layers."""
    return follows(run, ridge_layers, ridge_by_rotations, "constructed layers")


@ridge.reference("the normal equations solved after each example")
def ridge_by_solving(run: Run) -> Samples:
    """The rounding between two ways of solving them."""
    return follows(run, ridge_by_normal_equations, ridge_by_rotations, "normal equations")


@ridge.control("the layers that take gradient steps are elsewhere")
def ridge_by_descent(run: Run) -> Samples:
    """The other construction on the same prompts."""
    return follows(run, descent_layers, ridge_by_rotations, "gradient steps")


LOW, HIGH = 0.25, 1.0
"""Standard deviations of the noise; their squares are the penalties of the Bayesian estimators."""
DEPTH = 3
PENALTIES = (0.01, LOW**2, 0.25, HIGH**2, 4.0)


def task(noise: float) -> LinearRegression:
    """Eight examples and a query in three dimensions."""
    return LinearRegression(num_features=3, num_points=9, noise=noise)


def trained(run: Run, *, noise: float = LOW, depth: int = DEPTH) -> list[PairsModel]:
    """A transformer for each seed."""
    shape = task(noise)
    settings = {"num_features": shape.num_features, "num_points": shape.num_points, "noise": noise}
    return train_in_context(
        run,
        small_backbone(shape.num_points, depth=depth),
        task=shape.card.name,
        settings=settings,
        num_features=shape.num_features,
        num_steps=600,
    )


def penalised(penalty: float) -> Predict:
    """Ridge regression, by the workbench's triangle of rotations."""
    return said_by(Ridge(penalty=penalty))


BY_EXAMPLES = Axes(x="examples", y="squared difference of predictions, relative", log_y=True)


def by_depth(run: Run, learners: list[Predict], name: str) -> Samples:
    """Squared differences from ridge regression per those from one gradient step, over one to eight examples."""
    episodes = run.setting("episodes", smoke=256, cpu=2048)

    def one(seed: int) -> OneSeed:
        drawn = run.sample(task(LOW), episodes, seed=seed)
        said, closed = learners[run.seeds.index(seed)](drawn), penalised(LOW**2)(drawn)
        gaps = {"ridge": said - closed, "one step": said - one_step(LOW)(drawn)}
        squares = {algorithm: gap.square()[:, 1:] for algorithm, gap in gaps.items()}
        size = closed.square()[:, 1:].mean(0)
        lines = {f"{name}, from {algorithm}": found.mean(0) / size for algorithm, found in squares.items()}
        return OneSeed(
            values=squares["ridge"].mean(1),
            per=squares["one step"].mean(1),
            errors=(said - drawn.y).square().mean(1),
            zero_errors=drawn.y.square().mean(1),
            curves={line: (range(1, drawn.time), y) for line, y in lines.items()} if name else {},
        )

    return over_seeds(run, one)


@claim(
    "With depth, trained transformers pass from a single gradient step to ridge regression in closed form.",
    threshold=1.0,
    direction="below",
    why="at 1 a transformer is as far from the one as from the other; the shallow one has to be on the other side",
    kind="trained",
    axes=BY_EXAMPLES,
)
def depth(run: Run) -> Samples:
    """Three layers."""
    return by_depth(run, each(trained(run)), "three layers")


@depth.reference("the normal equations on running sums")
def depth_reference(run: Run) -> Samples:
    """Ridge regression in the transformer's place."""
    return by_depth(run, [solved(LOW**2)] * len(run.seeds), "")


@depth.control("a single layer is nearer to the gradient step")
def depth_shallow(run: Run) -> Samples:
    """The same training with one layer."""
    return by_depth(run, each(trained(run, depth=1)), "one layer")


def by_noise(run: Run, learners: list[Predict], name: str) -> Samples:
    """Squared differences from the penalty of low noise per those from that of high noise, on prompts of low noise."""
    episodes = run.setting("episodes", smoke=256, cpu=2048)

    def one(seed: int) -> OneSeed:
        drawn = run.sample(task(LOW), episodes, seed=seed)
        said = learners[run.seeds.index(seed)](drawn)
        gaps = {penalty: (said - penalised(penalty)(drawn)).square()[:, 1:].mean(1) for penalty in PENALTIES}
        size = penalised(LOW**2)(drawn)[:, 1:].var()
        line = torch.stack([gaps[penalty].mean() for penalty in PENALTIES]) / size
        return OneSeed(
            values=gaps[LOW**2],
            per=gaps[HIGH**2],
            errors=(said - drawn.y).square().mean(1),
            zero_errors=drawn.y.square().mean(1),
            curves={name: (PENALTIES, line)},
        )

    return over_seeds(run, one)


@claim(
    "Noise shifts what is learned: trained on little of it, transformers are nearer to a small ridge penalty than to a "
    "large one.",
    threshold=1.0,
    direction="below",
    why="at 1 a transformer is as far from the penalty of noise 0.25 as from that of noise 1",
    kind="trained",
    axes=Axes(x="ridge penalty", y="squared difference of predictions, relative", log_x=True, log_y=True),
    leaves_out="the penalty itself: after 600 steps the nearest of five, 0.25, is four times the Bayesian one",
)
def noise(run: Run) -> Samples:
    """Trained on noise 0.25."""
    return by_noise(run, each(trained(run)), "trained on noise 0.25")


@noise.reference("the normal equations with the penalty of noise 0.25")
def noise_reference(run: Run) -> Samples:
    """Ridge regression in the transformer's place."""
    return by_noise(run, [solved(LOW**2)] * len(run.seeds), "")


@noise.control("trained on noise 1 they are nearer to the larger penalty, on the same prompts")
def noise_high(run: Run) -> Samples:
    """The same transformer, trained on other data."""
    return by_noise(run, each(trained(run, noise=HIGH)), "trained on noise 1")


def from_bayes(run: Run, learners: list[Predict], name: str) -> Samples:
    """Squared differences from the Bayesian estimator, over the variance of its predictions."""
    episodes = run.setting("episodes", smoke=256, cpu=2048)
    best = penalised(LOW**2)
    return gap(run, lambda seed: run.sample(task(LOW), episodes, seed=seed), learners, best, name=name, pooled=False)


@claim(
    "As they grow, transformers converge to the Bayesian estimator: three layers come close to it.",
    threshold=0.1,
    direction="below",
    why="a tenth of the estimator's own square: a correlation of .95",
    kind="trained",
    axes=Axes(x="examples", y="squared difference from Bayes, relative", log_y=True, rule=True),
    leaves_out="how width matters, and how far this goes: the paper's largest transformers have 16 layers 512 wide",
)
def bayes(run: Run) -> Samples:
    """Layers 32 wide."""
    return from_bayes(run, each(trained(run)), "three layers")


@bayes.reference("the normal equations with the penalty of the noise")
def bayes_reference(run: Run) -> Samples:
    """The estimator in the transformer's place."""
    return from_bayes(run, [solved(LOW**2)] * len(run.seeds), "")


@bayes.control("a single layer, trained alike, stays away")
def bayes_shallow(run: Run) -> Samples:
    """The same width at a third of the depth."""
    return from_bayes(run, each(trained(run, depth=1)), "one layer")


def moment(drawn: Pairs) -> Tensor:
    """X'y / n of the examples before the query."""
    return torch.einsum("btd,bt->bd", drawn.x[:, :-1], drawn.y[:, :-1]) / (drawn.time - 1)


def weights(drawn: Pairs) -> Tensor:
    """The Bayesian estimate from the examples before the query."""
    return Ridge(penalty=LOW**2).weights(drawn.x[:, :-1], drawn.y[:, :-1])


def begun(run: Run) -> list[PairsModel]:
    """Transformers of the same shape before training."""
    shape = task(LOW)
    return untrained(run, small_backbone(shape.num_points, depth=DEPTH), num_features=shape.num_features)


MEANT = "a quarter of its variance left is a correlation of .87; what is merely mixed at random leaves more than half"
BY_LAYER = Axes(x="layer", y="share of the variance left", rule=True)


@claim(
    "Late layers of trained transformers hold the moments X'y of the examples: a small network reads them there.",
    threshold=0.25,
    direction="below",
    why=MEANT,
    kind="trained",
    axes=BY_LAYER,
    leaves_out="larger probes on more prompts: this one has 64 hidden units, fitted to 1,024 prompts",
)
def moments(run: Run) -> Samples:
    """After eight examples, at the best layer."""
    return probed(run, task(LOW), inside(trained(run), run), moment, "trained")


@moments.reference("the same probe on vectors that are the moments")
def moments_reference(run: Run) -> Samples:
    """What fitting a probe costs."""
    return probed(run, task(LOW), holding(moment), moment, "")


@moments.control("an untrained transformer does not")
def moments_untrained(run: Run) -> Samples:
    """The same probe on the same shape."""
    return probed(run, task(LOW), inside(begun(run), run), moment, "untrained")


@claim(
    "Late layers of trained transformers hold the weights of the linear model as well.",
    threshold=0.25,
    direction="below",
    why=MEANT,
    kind="trained",
    axes=BY_LAYER,
    leaves_out="larger probes on more prompts: this one has 64 hidden units, fitted to 1,024 prompts",
)
def weight_vectors(run: Run) -> Samples:
    """The Bayesian estimate from eight examples, at the best layer."""
    return probed(run, task(LOW), inside(trained(run), run), weights, "trained")


@weight_vectors.reference("the same probe on vectors that are the weights")
def weight_vectors_reference(run: Run) -> Samples:
    """What fitting a probe costs."""
    return probed(run, task(LOW), holding(weights), weights, "")


@weight_vectors.control("an untrained transformer does not")
def weight_vectors_untrained(run: Run) -> Samples:
    """The same probe on the same shape."""
    return probed(run, task(LOW), inside(begun(run), run), weights, "untrained")
