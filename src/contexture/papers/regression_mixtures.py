r"""Transformers can optimally learn regression mixture models (Pathak, Sen, Kong, Das 2023).

A prompt's y come from one of m weight vectors, which one is hidden, and noise of deviation s. With the vectors known
the best prediction is that of exponential weights,

    w = sum_j softmax_j(-|Y - X w_j|^2 / (2 s^2)) w_j,

which transformers are held against: one set by hand (`contexture.models.exponential_weights`), and trained ones of
three layers, which have to find the five vectors in their training prompts. Six features, twelve examples: sizes are
ours.
Shapes: x [episodes, time, features], y [episodes, time]; weights [episodes, features].
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from contexture.claims.beside import Draw, each, excess, gap
from contexture.claims.in_context import Predict, said_by, small_backbone, train_in_context
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.predictors import Predictor, induced_weights, linear_predictor
from contexture.learners.classical.discrete_posterior import DiscretePosterior
from contexture.learners.classical.ridge import Ridge
from contexture.learners.in_context import InContext
from contexture.learners.oracles.regression_mixture_em import fit_components, log_likelihoods
from contexture.models.exponential_weights import ExponentialWeights
from contexture.models.pairs import PairsModel
from contexture.protocols import Pairs
from contexture.tasks.draws import normal, numeric_schema
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.linear_regression_mixture import LinearRegressionMixture
from contexture.tasks.replay import Replay

PAPER = Paper(
    key="regression-mixtures",
    title="Transformers can optimally learn regression mixture models",
    authors="Reese Pathak, Rajat Sen, Weihao Kong, Abhimanyu Das",
    year=2023,
    arxiv="2311.08362",
    uses=("linear-regression-mixture", "discrete-posterior", "replay", "softmax"),
)

TASK = LinearRegressionMixture(num_features=6, num_points=12, noise=1.0, num_components=5)
VARIANCE = TASK.noise**2
EXAMPLES = range(1, TASK.num_points)
FEW, MANY = 256, 4096
"""Prompts that are seen again and again."""
OPTIMUM = said_by(TASK.oracle())
RIDGE = said_by(Ridge(penalty=VARIANCE))


def prompts(run: Run) -> Draw:
    """Fresh prompts of the mixture."""
    episodes = run.setting("episodes", smoke=256, cpu=4096)
    return lambda seed: run.sample(TASK, episodes, seed=seed)


def products(drawn: Pairs) -> Tensor:
    """The average from the product of every density, example by example."""
    left = drawn.y.unsqueeze(-1) - drawn.x @ TASK.weights.mT
    density = (-left.square() / (2 * VARIANCE)).exp()
    before = torch.cat((torch.ones_like(density[:, :1]), density[:, :-1].cumprod(1)), 1)
    shares = before / before.sum(-1, keepdim=True)
    return (drawn.x * (shares @ TASK.weights)).sum(-1)


def by_hand(*, counted: bool = True) -> Predict:
    """The constructed transformer."""
    model = ExponentialWeights(components=TASK.weights, noise_variance=VARIANCE, counted=counted)
    return lambda drawn: model.prequential(drawn.x, drawn.y)


@claim(
    "The optimal rule is within a transformer's reach: six layers set by hand compute exponential weights.",
    threshold=1e-12,
    direction="below",
    why="products made of four GELU units err by about 1e-10 each, of which this is the square times a hundred million",
    axes=Axes(x="examples seen", y="squared difference from the optimum, relative", log_y=True, rule=True),
)
def construction(run: Run) -> Samples:
    """Three attentions and three feed-forward layers, all causal."""
    return gap(run, prompts(run), [by_hand()], OPTIMUM, name="set by hand")


@construction.reference("the average from the product of all densities")
def construction_products(run: Run) -> Samples:
    """Bayes' rule as it stands."""
    return gap(run, prompts(run), [products], OPTIMUM, name="product of densities")


@construction.control("the same layers do not if they take the mean of squared residuals for the sum")
def construction_means(run: Run) -> Samples:
    """Attention averages; without the number of examples the weights do not sharpen."""
    return gap(run, prompts(run), [by_hand(counted=False)], OPTIMUM, name="without the number of examples")


SHAPE = {"num_features": TASK.num_features, "num_points": TASK.num_points, "noise": TASK.noise}
MIXED = SHAPE | {"num_components": TASK.num_components}


def trained(run: Run, task: str = TASK.card.name, settings: Mapping[str, Any] = MIXED) -> list[PairsModel]:
    """A transformer for each seed, trained on prompts of the mixture or of another task of the same shape."""
    backbone = small_backbone(TASK.num_points)
    return train_in_context(run, backbone, task=task, settings=settings, num_features=TASK.num_features, num_steps=1000)


def trained_on_new(run: Run) -> list[PairsModel]:
    """The same transformer and budget, with weights of their own for every prompt."""
    return trained(run, LinearRegression.card.name, SHAPE)


def trained_again(run: Run, num_prompts: int) -> list[PairsModel]:
    """The same transformer and budget, with so many prompts of the mixture that are seen again and again."""
    again = {"task": {"name": TASK.card.name, "settings": MIXED}, "num_episodes": num_prompts}
    return trained(run, Replay.card.name, again)


BY_EXAMPLES = Axes(x="examples seen", y="squared error over the optimum's", rule=True)


@claim(
    "Trained on prompts of a mixture, a transformer reaches nearly the least squared error there is.",
    threshold=1.4,
    direction="below",
    why="half of what ridge regression has, which is right for new functions: 2.8 times the least",
    kind="trained",
    spread="seeds",
    axes=BY_EXAMPLES,
    leaves_out="twenty features, sixty examples and up to twenty components, and models of ten million parameters",
)
def low_error(run: Run) -> Samples:
    """From the first example to the eleventh."""
    return excess(run, prompts(run), each(trained(run)), OPTIMUM, name="trained on the mixture")


@low_error.reference("the average from the product of all densities")
def low_error_products(run: Run) -> Samples:
    """The optimum, computed otherwise."""
    return excess(run, prompts(run), [products], OPTIMUM)


@low_error.control("the same transformer, trained on ever new functions, does not")
def low_error_fresh(run: Run) -> Samples:
    """The same budget, with weights of their own for every prompt."""
    return excess(run, prompts(run), each(trained_on_new(run)), OPTIMUM, name="trained on new functions")


ASKED = 24
"""Fresh inputs to which a predictor's answers say what its weights are."""
AFTER = 3


def of_model(model: PairsModel) -> Predictor:
    """A trained transformer that is asked several queries after a context."""

    def predict(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
        return InContext(model).predict(Pairs(x=x, y=y, schema=numeric_schema(x.shape[2])), queries).value

    return predict


def implied(run: Run, predictors: Sequence[Predictor], name: str) -> Samples:
    """The squared distance of the weights that predictions amount to from the optimum's, over the latter's square."""
    episodes = run.setting("episodes asked", smoke=64, cpu=512)
    after = run.setting("examples", smoke=(AFTER,), cpu=(1, 2, AFTER, 4, 6, 8, 11))
    best = DiscretePosterior(TASK.weights, noise_variance=VARIANCE)

    def one(seed: int) -> OneSeed:
        drawn = run.sample(TASK, episodes, seed=seed)
        asked = normal(episodes, ASKED, TASK.num_features, generator=run.generator(seed, "asked"))
        predictor = predictors[run.seeds.index(seed) % len(predictors)]
        far, size, found = {}, {}, {}
        for n in after:
            x, y = drawn.x[:, :n], drawn.y[:, :n]
            wanted, found[n] = best.weights(x, y), induced_weights(predictor, x, y, asked).weights
            far[n], size[n] = (found[n] - wanted).square().sum(1), wanted.square().sum(1)
        true = drawn.latents["weights"]
        line = torch.stack([far[n].mean() / size[n].mean() for n in after])
        return OneSeed(
            values=far[AFTER],
            per=size[AFTER],
            errors=(found[AFTER] - true).square().sum(1),
            zero_errors=true.square().sum(1),
            curves={name: (after, line)},
        )

    return over_seeds(run, one)


@claim(
    "What it predicts are the optimum's predictions: the weights that its answers amount to are the averaged ones.",
    threshold=0.15,
    direction="below",
    why="after three examples of six features, where ridge regression's weights are half of the square away",
    kind="trained",
    spread="seeds",
    axes=Axes(x="examples seen", y="squared distance of weights, relative", log_y=True, rule=True),
)
def near_optimum(run: Run) -> Samples:
    """Twenty-four fresh queries after three examples."""
    return implied(run, [of_model(model) for model in trained(run)], "trained on the mixture")


@near_optimum.reference("exponential weights over components that expectation maximisation fits to other prompts")
def near_optimum_fitted(run: Run) -> Samples:
    """The likeliest of five starts."""
    fitted = DiscretePosterior(
        fit(run, run.seeds[0], run.setting("prompts fitted", smoke=FEW, cpu=MANY)), noise_variance=VARIANCE
    )
    return implied(run, [linear_predictor(fitted)], "fitted components")


@near_optimum.control("those of the same transformer, trained on ever new functions, are elsewhere")
def near_optimum_fresh(run: Run) -> Samples:
    """The same budget, with weights of their own for every prompt."""
    return implied(run, [of_model(model) for model in trained_on_new(run)], "trained on new functions")


STARTS = 5


def fit(run: Run, seed: int, num_prompts: int) -> Tensor:
    """The likeliest of the components that expectation maximisation finds from several starts, told their number."""
    shown = run.sample(TASK, num_prompts, seed=seed, purpose="fit")
    found = [
        fit_components(
            shown,
            num_components=TASK.num_components,
            noise_variance=VARIANCE,
            generator=run.generator(seed, "start", start),
        )
        for start in range(STARTS)
    ]
    return max(found, key=lambda w: float(log_likelihoods(shown, w, noise_variance=VARIANCE).logsumexp(1).sum()))


def by_prompts(run: Run, counts: Sequence[int], *, fitted: bool = False) -> Samples:
    """Squared errors after training on the last of these numbers of prompts, over those of the optimum."""
    draw, endless = prompts(run), each(trained(run))

    def learned(count: int) -> list[Predict]:
        if not fitted:
            return each(trained_again(run, count))
        return [said_by(DiscretePosterior(fit(run, seed, count), noise_variance=VARIANCE)) for seed in run.seeds]

    said = {count: learned(count) for count in counts}

    def one(seed: int) -> OneSeed:
        drawn, index = draw(seed), run.seeds.index(seed)

        def errors(predict: Predict) -> Tensor:
            return (predict(drawn) - drawn.y).square()[:, 1:].mean(1)

        least = errors(OPTIMUM)
        found = {count: errors(learners[index]) for count, learners in said.items()}
        line = torch.stack([found[count].mean() / least.mean() for count in counts])
        curves = {"expectation maximisation" if fitted else "transformer": (counts, line)}
        if not fitted:
            fresh = errors(endless[index]).mean() / least.mean()
            curves["transformer, fresh prompts"] = (counts, fresh.expand(len(counts)))
        return OneSeed(
            values=found[counts[-1]],
            per=least,
            errors=found[counts[-1]],
            zero_errors=drawn.y.square()[:, 1:].mean(1),
            curves=curves,
        )

    return over_seeds(run, one)


@claim(
    "It learns from few data: with 4,096 prompts, seen again and again, it comes as near to the least error.",
    threshold=1.4,
    direction="below",
    why="the same as for fresh prompts, of which it sees 64,000: half of ridge regression's error",
    kind="trained",
    spread="seeds",
    axes=Axes(x="prompts in training", y="squared error over the optimum's", log_x=True, log_y=True, rule=True),
    expected="not-held",
    tried="as many steps with fresh prompts come to 1.26 times the least error: the rest is the price of no more "
    "than 4,096, and with 256 it is 5.3 times the least error",
    leaves_out="methods made for mixtures need fewer still: expectation maximisation, told how many components there "
    "are and how much noise, is drawn beside it",
)
def few_data(run: Run) -> Samples:
    """Sixteen passes."""
    return by_prompts(run, (FEW, MANY))


@few_data.reference("exponential weights over components that expectation maximisation fits to as many prompts")
def few_data_fitted(run: Run) -> Samples:
    """The likeliest of five starts."""
    return by_prompts(run, run.setting("prompts", smoke=(64, FEW), cpu=(16, 64, FEW, MANY)), fitted=True)


@few_data.control("256 prompts, seen as often as it takes, do not")
def few_data_fewer(run: Run) -> Samples:
    """The same steps."""
    return by_prompts(run, (FEW,))


def shifted(run: Run, said: Sequence[Predict], *, scale: float = 1.0, moved: float = 0.0, name: str = "") -> Samples:
    """Squared errors where inputs are scaled, or components moved along every axis, over those of ridge regression."""
    episodes = run.setting("episodes", smoke=256, cpu=4096)
    scales = run.setting("shifts drawn", smoke=1, cpu=6)
    along = (scale, 0.5, 1.0, 1.5, 2.0, 3.0)[:scales] if not moved else (moved, 0.0, 0.25, 0.5, 0.75, 1.0)[:scales]

    def draw(seed: int, shift: float) -> Pairs:
        drawn = run.sample(TASK, episodes, seed=seed)
        assert drawn.clean is not None
        if moved:
            step = normal(episodes, 1, TASK.num_features, generator=run.generator(seed, "move"))
            return replace(drawn, y=drawn.y + shift * (drawn.x * step).sum(-1))
        return replace(drawn, x=shift * drawn.x, y=drawn.y + (shift - 1) * drawn.clean)

    def one(seed: int) -> OneSeed:
        predict = said[run.seeds.index(seed) % len(said)]

        def errors(shift: float) -> tuple[Tensor, Tensor, Tensor]:
            drawn = draw(seed, shift)
            parts = (predict(drawn), RIDGE(drawn), torch.zeros_like(drawn.y))
            ours, ridge, zero = ((part - drawn.y).square()[:, 1:].mean(1) for part in parts)
            return ours, ridge, zero

        ours, ridge, zero = errors(along[0])
        ratios = {shift: a.mean() / b.mean() for shift, (a, b, _) in ((s, errors(s)) for s in sorted(set(along)))}
        curves = {name: (tuple(ratios), torch.stack(list(ratios.values())))}
        return OneSeed(values=ours, per=ridge, errors=ours, zero_errors=zero, curves=curves)

    return over_seeds(run, one)


BETTER = "a quarter less error than ridge regression, which knows of no components and minds no shift"


@claim(
    "It is somewhat robust to shifted inputs: half as large again as in training, it still does better than ridge.",
    threshold=0.75,
    direction="below",
    why=BETTER,
    kind="trained",
    spread="seeds",
    axes=Axes(x="scale of the inputs", y="squared error over that of ridge", rule=True),
)
def scaled_inputs(run: Run) -> Samples:
    """Inputs times 1.5."""
    return shifted(run, each(trained(run)), scale=1.5, name="transformer")


@scaled_inputs.reference("exponential weights, which remain optimal")
def scaled_inputs_optimum(run: Run) -> Samples:
    """The same rule on the same prompts."""
    return shifted(run, [OPTIMUM], scale=1.5, name="exponential weights")


@scaled_inputs.control("three times as large, it does not")
def scaled_inputs_far(run: Run) -> Samples:
    """The same transformer further away."""
    return shifted(run, each(trained(run)), scale=3.0)


@claim(
    "It is somewhat robust to other weights: around the known components, it still does better than ridge.",
    threshold=0.75,
    direction="below",
    why=BETTER,
    kind="trained",
    spread="seeds",
    axes=Axes(x="how far components move along every axis", y="squared error over that of ridge", rule=True),
)
def moved_components(run: Run) -> Samples:
    """Moved by a quarter of a weight's deviation along each axis."""
    return shifted(run, each(trained(run)), moved=0.25, name="transformer")


@moved_components.reference("exponential weights of the components in training")
def moved_components_optimum(run: Run) -> Samples:
    """What the transformer imitates."""
    return shifted(run, [OPTIMUM], moved=0.25, name="exponential weights")


@moved_components.control(
    "moved as far as new components would be, it does not", incompetent="what it knows is then of no use"
)
def moved_components_far(run: Run) -> Samples:
    """A whole deviation along each axis."""
    return shifted(run, each(trained(run)), moved=1.0)
