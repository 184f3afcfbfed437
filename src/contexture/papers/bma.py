r"""In-context learning as Bayesian model averaging (Y. Zhang, F. Zhang, Yang, Wang 2023).

A prompt comes from a hidden concept; the ideal answer averages the concepts' answers by their posterior. Three forms of
attention do so, exactly or nearly:

    over M known concepts w_m    softmax_m(<s, k_m>),  s = (X'y, X'X) / s^2,  k_m = (w_m, -w_m w_m' / 2),  values w_m q
    over w ~ N(0, I), kernel     k(q, X) (k(X, X) + s^2 I)^-1 y       k(a, b) = <f(a), f(b)>, f the concepts' features
    over w ~ N(0, I), softmax    sum_j softmax_j(c <q, x_j>) y_j      for long prompts, up to a factor

Over M concepts of equal prior the log-loss of the average exceeds that of the best concept by at most log M in all, so
that per example the regret is at most (log M) / T. Settings are ours.
Shapes: x [episodes, T, features], y [episodes, T], queries [episodes, queries, features]; concepts [M, features].
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.claims.asked import apart
from contexture.claims.beside import each, gap
from contexture.claims.in_context import Predict, said_by
from contexture.claims.pretraining import pretraining_error
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.regret import regret
from contexture.claims.run import Run
from contexture.evaluation.predictors import Asked, Predictor, ask, difference, linear_predictor
from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.learners.classical.discrete_posterior import DiscretePosterior
from contexture.models.backbone import BackboneConfig
from contexture.models.concept_attention import over_concepts, over_examples, quadratic
from contexture.models.constructed import descent
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.models.self_attention import SelfAttentionModel, softmax_weights
from contexture.tasks.draws import normal
from contexture.tasks.finite_linear_regression import FiniteLinearRegression
from contexture.tasks.linear_regression import LinearRegression
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.schedule import ScheduleConfig

PAPER = Paper(
    key="bma",
    title="What and How does In-Context Learning Learn? Bayesian Model Averaging, Parameterization, and Generalization",
    authors="Yufeng Zhang, Fengzhuo Zhang, Zhuoran Yang, Zhaoran Wang",
    year=2023,
    arxiv="2305.19420",
    uses=("finite-linear-regression", "linear-regression", "discrete-posterior", "bayes-ridge"),
    left_out={
        "the error of a pretrained language model is at most the sum of the two terms": "needs a pretrained language "
        "model whose token distributions are known, and constants that the bound leaves open",
    },
)

NUM_FEATURES, NOISE = 4, 0.5
CONCEPTS = FiniteLinearRegression(num_features=NUM_FEATURES, num_points=9, noise=NOISE, num_tasks=16)
MANY_EXAMPLES = replace(CONCEPTS, num_points=256)
ROUNDING = "both sides are sums of some hundred products in double precision, which agree to about 1e-14"

by_attention = partial(over_concepts, concepts=CONCEPTS.weights, noise=NOISE)


def posterior(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """The concepts' average by their posterior."""
    return linear_predictor(DiscretePosterior(CONCEPTS.weights, noise_variance=NOISE**2))(x, y, queries)


def by_products(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """The same average from the product of every example's densities."""
    said = x @ CONCEPTS.weights.mT
    densities = torch.exp(-(said - y.unsqueeze(2)).square() / (2 * NOISE**2)).prod(1)
    shares = densities / densities.sum(1, keepdim=True)
    return (shares.unsqueeze(1) @ (CONCEPTS.weights @ queries.mT)).squeeze(1)


def follows(run: Run, said: Predictor, wanted: Predictor, asked: list[Asked]) -> Samples:
    """Relative differences between two predictors."""

    def one(seed: int) -> OneSeed:
        p = asked[run.seeds.index(seed)]
        return apart(p, [said(p.x, p.y, p.queries)], [wanted(p.x, p.y, p.queries)])

    return over_seeds(run, one)


def concept_prompts(run: Run) -> list[Asked]:
    """Eight examples of one of the concepts and a query, for each seed."""
    episodes = run.setting("episodes", smoke=256, cpu=8192)
    return [ask(run.sample(CONCEPTS, episodes, seed=seed)) for seed in run.seeds]


@claim(
    "Averaging finitely many concepts by their posterior is one softmax attention, from the prompt to the concepts.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
)
def averaging(run: Run) -> Samples:
    """Keys and values of sixteen concepts, set by hand."""
    return follows(run, by_attention, posterior, concept_prompts(run))


@averaging.reference("the average from the product of all densities")
def averaging_by_products(run: Run) -> Samples:
    """Bayes' rule as it stands."""
    return follows(run, by_products, posterior, concept_prompts(run))


@averaging.control("with keys that leave out how large a concept's answers are, it is not")
def averaging_without_lengths(run: Run) -> Samples:
    """The same attention with keys w_m."""
    return follows(run, partial(by_attention, lengths=False), posterior, concept_prompts(run))


def by_weights(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """The posterior mean over the weights of the features."""
    ridge = BayesRidge(prior_variance=1.0, noise_variance=NOISE**2)
    return linear_predictor(ridge)(quadratic(x), y, quadratic(queries))


def by_normal_equations(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """The same mean from the normal equations."""
    shown = quadratic(x)
    second = shown.mT @ shown + NOISE**2 * torch.eye(shown.shape[2], dtype=x.dtype)
    weights: Tensor = torch.linalg.solve(second, shown.mT @ y.unsqueeze(2))
    return (quadratic(queries) @ weights).squeeze(2)


def curved_prompts(run: Run) -> list[Asked]:
    """Thirty-two examples of a random quadratic function with noise."""
    episodes = run.setting("episodes", smoke=128, cpu=4096)

    def draw(seed: int) -> Asked:
        generator = run.generator(seed, "evaluate")
        x = normal(episodes, 33, NUM_FEATURES, generator=generator)
        weights = normal(episodes, (NUM_FEATURES + 1) ** 2, 1, generator=generator)
        y = (quadratic(x) @ weights).squeeze(2) + NOISE * normal(episodes, 33, generator=generator)
        return Asked(x[:, :-1], y[:, :-1], x[:, -1:], y[:, -1:])

    return [draw(seed) for seed in run.seeds]


@claim(
    "Averaging concepts with normal weights is attention with the features' kernel, corrected by the keys' own kernel.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
)
def kernel(run: Run) -> Samples:
    """Quadratic functions in four dimensions."""
    return follows(run, partial(over_examples, noise=NOISE), by_weights, curved_prompts(run))


@kernel.reference("the posterior mean from the normal equations")
def kernel_by_equations(run: Run) -> Samples:
    """No kernel."""
    return follows(run, by_normal_equations, by_weights, curved_prompts(run))


@kernel.control("with weights that are only made to sum to one it is not")
def kernel_normalised(run: Run) -> Samples:
    """The same kernel without the keys' own."""
    return follows(run, partial(over_examples, noise=NOISE, normalised=True), by_weights, curved_prompts(run))


SHARPNESS, SHARP = 2.0, 200.0
LONG = 1024
LENGTHS = (16, 64, 256, 1024)


def turned(run: Run, *, sharpness: float, name: str = "") -> Samples:
    """One minus the squared cosine, over 64 queries, between softmax attention and the posterior mean.

    Inputs lie on the unit sphere. A sharpness of zero puts least squares in attention's place.
    """
    episodes = run.setting("episodes", smoke=64, cpu=1024)
    lengths = run.setting("lengths drawn", smoke=(16, LONG), cpu=LENGTHS) if name else (LONG,)

    def one(seed: int) -> OneSeed:
        def at(length: int) -> tuple[Tensor, Tensor, Tensor]:
            generator = run.generator(seed, "evaluate", length)
            x = F.normalize(normal(episodes, length + 64, NUM_FEATURES, generator=generator), dim=2)
            w = normal(episodes, NUM_FEATURES, 1, generator=generator)
            clean = (x @ w).squeeze(2)
            y = clean + NOISE * normal(*clean.shape, generator=generator)
            shown, queries, y = x[:, :length], x[:, length:], y[:, :length]
            wanted = linear_predictor(BayesRidge(noise_variance=NOISE**2))(shown, y, queries)
            if sharpness:
                said = (softmax_weights(sharpness * queries @ shown.mT) @ y.unsqueeze(2)).squeeze(2)
            else:
                said = (queries @ torch.linalg.lstsq(shown, y.unsqueeze(2)).solution).squeeze(2)
            off = 1 - F.cosine_similarity(said, wanted, dim=1).square()
            return off, (said - clean[:, length:]).square().mean(1), clean[:, length:].square().mean(1)

        found = [at(length) for length in lengths]
        curves = {name: (lengths, torch.stack([off.mean() for off, _, _ in found]))} if name else {}
        off, errors, zero = found[-1]
        return OneSeed(values=off, errors=errors, zero_errors=zero, curves=curves)

    return over_seeds(run, one)


@claim(
    "Plain softmax attention over a long prompt says what the average says, up to one factor.",
    threshold=0.03,
    direction="below",
    why="noise leaves about seven thousandths after 1,024 examples; an angle of 10 degrees is three hundredths",
    leaves_out="concepts that are not linear on the sphere, for which the factor would differ from part to part",
    axes=Axes(x="examples in the prompt", y="one minus squared cosine", log_x=True, log_y=True, rule=True),
)
def softmax_limit(run: Run) -> Samples:
    """Scores of twice the inner product, 1,024 examples."""
    return turned(run, sharpness=SHARPNESS, name="softmax attention")


@softmax_limit.reference("least squares on the same examples")
def softmax_limit_least_squares(run: Run) -> Samples:
    """What the average comes to without its prior."""
    return turned(run, sharpness=0.0)


@softmax_limit.control("attention that is sharp enough to look at one example does not")
def softmax_limit_sharp(run: Run) -> Samples:
    """The same attention at a hundred times the sharpness."""
    return turned(run, sharpness=SHARP, name="one hundred times as sharp")


@claim(
    "The regret of the average per example falls like one over the number of examples.",
    threshold=0.1,
    direction="below",
    why="sixteen times as many examples make a sixteenth, .0625, of 1/T; a tenth is T^-.83",
    axes=Axes(x="examples", y="mean regret, nats per example", log_x=True, log_y=True),
)
def vanishing_regret(run: Run) -> Samples:
    """The posterior over sixteen concepts."""
    return regret(run, MANY_EXAMPLES, name="average over all examples")


@vanishing_regret.reference("the bound itself, (log M) / T")
def vanishing_regret_bound(run: Run) -> Samples:
    """Nothing is learned."""
    return regret(run, MANY_EXAMPLES, bound=True, name="(log M) / T")


@vanishing_regret.control("an average by the posterior of the last four examples has regret for ever")
def vanishing_regret_forgetful(run: Run) -> Samples:
    """The same concepts and examples, most of them forgotten."""
    return regret(run, MANY_EXAMPLES, window=4, name="average by the last four examples")


DEPTH, HALF = 32, 16
STEP = 0.5


def built(rates: list[float]) -> SelfAttentionModel:
    """Layers of linear self-attention, each one gradient step at its own rate."""
    return descent(NUM_FEATURES, num_steps=len(rates), rate=rates)


def filtered(x: Tensor, y: Tensor, queries: Tensor) -> list[Tensor]:
    """The same steps as a filter of the spectrum."""
    values, vectors = torch.linalg.eigh(x.mT @ x / x.shape[1])
    moment = vectors.mT @ (x.mT @ y.unsqueeze(2)) / x.shape[1]
    said = []
    for count in range(1, DEPTH + 1):
        gain = (1 - (1 - STEP * values) ** count) / values
        said.append((queries @ (vectors @ (gain.unsqueeze(2) * moment))).squeeze(2))
    return said


def approach(run: Run, *, rates: list[float] | None, name: str) -> Samples:
    """The logarithm of the distance from the posterior mean after 32 layers, per that after 16; both per its square.

    The prior is told to the layers as d further examples, of value zero at the noise's size along every axis.
    """
    episodes = run.setting("episodes", smoke=128, cpu=4096)
    task = LinearRegression(num_features=NUM_FEATURES, num_points=16 + 64, noise=NOISE)

    def one(seed: int) -> OneSeed:
        p = ask(run.sample(task, episodes, seed=seed), num_queries=64)
        wanted = linear_predictor(BayesRidge(noise_variance=NOISE**2))(p.x, p.y, p.queries)
        prior = NOISE * torch.eye(NUM_FEATURES, dtype=p.x.dtype).expand(episodes, -1, -1)
        x, y = torch.cat((p.x, prior), 1), F.pad(p.y, (0, NUM_FEATURES))
        said = filtered(x, y, p.queries) if rates is None else built(rates).read_outs(x, y, p.queries)
        shares = torch.stack([torch.divide(*difference(ours, wanted)) for ours in said])
        return OneSeed(
            values=shares[DEPTH - 1].log(),
            per=shares[HALF - 1].log(),
            errors=(said[-1] - p.targets).square().mean(1),
            zero_errors=p.targets.square().mean(1),
            curves={name: (range(1, DEPTH + 1), shares.log().mean(1).exp())},
        )

    return over_seeds(run, one)


@claim(
    "Attention comes to the average exponentially fast as layers are added.",
    threshold=1.5,
    direction="above",
    why="twice the layers square what an exponential leaves, so that its logarithm doubles; a power of depth gives 1.2",
    leaves_out="the paper's bound holds for other posteriors than that of a linear function",
    axes=Axes(x="layers", y="squared distance from the average, relative", log_y=True),
)
def exponential_depth(run: Run) -> Samples:
    """Layers of linear self-attention with weights set by hand to gradient steps."""
    return approach(run, rates=[STEP] * DEPTH, name="equal layers")


@exponential_depth.reference("gradient descent as a filter of the spectrum")
def exponential_depth_filter(run: Run) -> Samples:
    """The steps in closed form."""
    return approach(run, rates=None, name="gradient descent")


@exponential_depth.control("layers whose steps shrink like 1/l come to it by a power of depth")
def exponential_depth_shrinking(run: Run) -> Samples:
    """The same first layer, and ever weaker ones."""
    return approach(run, rates=[STEP / layer for layer in range(1, DEPTH + 1)], name="steps like 1/l")


@claim(
    "The error of pretraining falls with the number of pretraining tokens, about like one over its root.",
    threshold=0.35,
    direction="below",
    why="sixteen times as many tokens leave a quarter under the root; what does not fall leaves all",
    leaves_out="the layer and its training are the simplest there are: one matrix, fitted by least squares",
    axes=Axes(x="pretraining prompts", y="total variation from the best layer", log_x=True, log_y=True),
)
def pretraining_tokens(run: Run) -> Samples:
    """Every prompt of a task of its own."""
    return pretraining_error(run, num_features=NUM_FEATURES, noise=NOISE, name="new tasks")


@pretraining_tokens.reference("the law of one over the root itself")
def pretraining_tokens_law(run: Run) -> Samples:
    """An error of normal entries that shrinks by the law."""
    return pretraining_error(run, num_features=NUM_FEATURES, noise=NOISE, exact=True, name="one over the root")


@pretraining_tokens.control("as many tokens of the same eight tasks do not help")
def pretraining_tokens_pool(run: Run) -> Samples:
    """The same pretraining, but for where the prompts come from."""
    return pretraining_error(run, num_features=NUM_FEATURES, noise=NOISE, pool=8, name="the same eight tasks")


KNOWN = FiniteLinearRegression(num_features=NUM_FEATURES, num_points=8, noise=NOISE, num_tasks=4)
FRESH = LinearRegression(num_features=NUM_FEATURES, num_points=8, noise=NOISE)
AVERAGE = said_by(KNOWN.oracle())


def transformer(run: Run, task: FiniteLinearRegression | LinearRegression) -> list[Predict]:
    """A small transformer for each seed, trained to answer every example of fresh prompts."""
    steps = run.setting("training steps", smoke=10, cpu=1500)
    settings = {"num_features": NUM_FEATURES, "num_points": task.num_points, "noise": NOISE}
    if isinstance(task, FiniteLinearRegression):
        settings["num_tasks"] = task.num_tasks
    backbone = BackboneConfig(
        pattern="softmax*2", width=32, num_heads=2, feed_forward="relu", positions="learned", max_length=16
    )
    configs = [
        TrainingConfig(
            task=TaskChoice(name=task.card.name, settings=settings),
            model=PairsModelConfig(num_features=NUM_FEATURES, backbone=backbone),
            optimiser=OptimiserConfig(name="muon", rate=2e-3, matrix_rate=0.02),
            schedule=ScheduleConfig(warm_up=min(100, steps)),
            steps=steps,
            batch=64,
            block=64,
            seed=seed,
            evaluate_every=steps,
            checkpoint_every=steps,
        )
        for seed in run.seeds
    ]
    return each([model for model in run.train(configs) if isinstance(model, PairsModel)])


def beside_average(run: Run, said: Sequence[Predict], name: str) -> Samples:
    """The squared difference from the average over the known concepts, over its own square, at every example."""
    episodes = run.setting("episodes", smoke=256, cpu=8192)
    return gap(run, lambda seed: run.sample(KNOWN, episodes, seed=seed), said, AVERAGE, name=name, first=0)


@claim(
    "Trained to answer prompts of a few concepts, a transformer averages them by their posterior in its forward pass.",
    threshold=0.15,
    direction="below",
    why="training leaves about a tenth; ridge regression, right for new concepts, is a third of the square away",
    kind="trained",
    spread="seeds",
    leaves_out="language models, whose concepts are not known",
    axes=Axes(x="examples seen", y="squared difference from the average, relative"),
)
def implicit(run: Run) -> Samples:
    """Two layers of width 32, four concepts in four dimensions."""
    return beside_average(run, transformer(run, KNOWN), "trained on the concepts")


@implicit.reference("the average itself")
def implicit_average(run: Run) -> Samples:
    """No model."""
    return beside_average(run, [AVERAGE], "the average")


@implicit.control("the same transformer trained on ever new concepts does not average these")
def implicit_fresh(run: Run) -> Samples:
    """The same budget, with a concept of its own for every prompt."""
    return beside_average(run, transformer(run, FRESH), "trained on new concepts")
