r"""How do transformers learn in-context beyond simple functions? A case study on learning with representations (Guo,
Hu, Mei, Wang, Xiong, Savarese, Bai 2023).

    y = w . Phi(x) + noise,   Phi a network of two layers that is the same in all prompts, w fresh in each

Optimal is ridge regression on Phi(x). A transformer of four layers over tokens x_1, y_1, x_2, .. is trained on such
prompts; linear probes say what its tokens hold after every layer, and its upper half is pasted behind a linear map of
given vectors. Three seeds, four features, 21 points: a fifth of the paper's features, half of its points.
Shapes: x, Phi(x) [episodes, examples, features], y [episodes, examples]; h [episodes, tokens, width].
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from contexture.claims.in_context import Predict, predicts, said_by, small_backbone, train_in_context, untrained
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.models.pairs import PairsModel
from contexture.probes.hidden import hidden_states
from contexture.probes.linear import LinearProbe, fit_linear
from contexture.probes.pasted import upper_layers
from contexture.protocols import Pairs
from contexture.tasks.draws import normal
from contexture.tasks.representation_regression import RepresentationRegression

PAPER = Paper(
    key="icl-representations",
    title="How Do Transformers Learn In-Context Beyond Simple Functions? A Case Study on Learning with Representations",
    authors="Tianyu Guo, Wei Hu, Song Mei, Huan Wang, Caiming Xiong, Silvio Savarese, Yu Bai",
    year=2023,
    arxiv="2310.10616",
    uses=("representation-regression", "on-features", "bayes-ridge", "softmax"),
    left_out={
        "there are transformers of moderate depth and size that do so": "needs a theorem's construction, weights set "
        "by hand for networks of any depth",
        "among several representations one is selected after regressing on each": "needs larger transformers, trained "
        "on mixtures of representations for hundreds of thousands of steps",
    },
)

SETTINGS: dict[str, Any] = {"num_features": 4, "num_points": 21, "num_layers": 2, "noise": 0.25}
TASK = RepresentationRegression(**SETTINGS)
DEPTH, HALF, STEPS = 4, 2, 1000
LATE = slice(10, 21)
BACKBONE = small_backbone(TASK.num_points, depth=DEPTH)


def trained(run: Run) -> list[PairsModel]:
    """A transformer for each seed."""
    return train_in_context(
        run, BACKBONE, task=TASK.card.name, settings=SETTINGS, num_features=TASK.num_features, num_steps=STEPS
    )


OPTIMAL = said_by(TASK.oracle())
ON_INPUTS = said_by(BayesRidge(prior_variance=1.0, noise_variance=1.0))
"""Ridge regression on x, what is not linear in it taken for noise."""


def lost(run: Run, learners: Sequence[Predict], name: str) -> Samples:
    """The share of what the optimal learner explains that is lost, after ten to twenty examples."""
    episodes = run.setting("episodes", smoke=96, cpu=2048)

    def one(seed: int) -> OneSeed:
        drawn = run.sample(TASK, episodes, seed=seed)
        own, best = ((say(drawn) - drawn.y).square() for say in (learners[run.seeds.index(seed)], OPTIMAL))
        zero, places = drawn.y.square(), range(drawn.time)
        return OneSeed(
            values=(own - best)[:, LATE].mean(1),
            per=(zero - best)[:, LATE].mean(1),
            errors=own[:, LATE].mean(1),
            zero_errors=zero[:, LATE].mean(1),
            curves={
                name: (places, own.mean(0) / zero.mean()),
                "ridge on the representation": (places, best.mean(0) / zero.mean()),
            },
        )

    return over_seeds(run, one)


@claim(
    "A trained transformer does nearly as well as ridge regression on the hidden representation.",
    threshold=0.1,
    direction="below",
    why="a tenth of what the optimal learner explains; ridge regression on the inputs loses most of it",
    kind="trained",
    axes=Axes(x="examples", y="squared error over zero's", log_y=True),
    leaves_out="other depths of the representation and other noise",
)
def near_optimal(run: Run) -> Samples:
    """Four layers, trained on one representation."""
    return lost(run, [predicts(model) for model in trained(run)], "transformer")


@near_optimal.reference("ridge regression on the representation")
def near_optimal_ridge(run: Run) -> Samples:
    """Nothing is lost."""
    return lost(run, [OPTIMAL] * len(run.seeds), "ridge on the representation")


@near_optimal.control("ridge regression on the inputs does not")
def near_optimal_inputs(run: Run) -> Samples:
    """The same algorithm without the representation."""
    return lost(run, [ON_INPUTS] * len(run.seeds), "ridge on the inputs")


Layers = Callable[[int, Pairs], list[Tensor]]
"""The vectors of a seed's model after each layer, at one kind of token: [episodes, examples, width]."""


def at(models: Sequence[PairsModel], run: Run, *, labels: bool) -> Layers:
    """Hidden vectors at the tokens of inputs, or of labels, which the last layer leaves out."""

    def layers(seed: int, drawn: Pairs) -> list[Tensor]:
        found = hidden_states(models[run.seeds.index(seed)], drawn)
        if labels:
            return [h[:, 1::2] for h in found[:-1]]
        return [h[:, ::2] for h in found[:-1]] + found[-1:]

    return layers


def represented(drawn: Pairs) -> Tensor:
    """Phi(x)."""
    return drawn.latents["represented"]


def probed(run: Run, layers: Layers, among: slice, name: str) -> Samples:
    """The share of the representation's variance that linear probes leave, at the best of some layers."""
    sizes = {
        "probe": run.setting("prompts fitted", smoke=64, cpu=512),
        "evaluate": run.setting("prompts", smoke=64, cpu=512),
    }

    def one(seed: int) -> OneSeed:
        fit, new = (run.sample(TASK, size, seed=seed, purpose=purpose) for purpose, size in sizes.items())
        wanted, left = represented(new), []
        for shown, h in zip(layers(seed, fit), layers(seed, new), strict=True):
            probe = fit_linear(shown.flatten(0, 1), represented(fit).flatten(0, 1))
            left.append((probe(h) - wanted).square().sum(-1).mean(1))
        spread = (wanted - wanted.mean((0, 1))).square().sum(-1).mean(1)
        by_layer = torch.stack(left)
        best = by_layer[among][by_layer[among].mean(1).argmin()]
        curves = {name: (range(len(left)), by_layer.mean(1) / spread.mean())}
        return OneSeed(values=best, per=spread, errors=best, zero_errors=spread, curves=curves)

    return over_seeds(run, one)


BY_LAYER = Axes(x="layer", y="share of the variance left", rule=True)
EMBEDDED, LOWER, INNER = slice(0, 1), slice(1, HALF + 1), slice(1, DEPTH)


@claim(
    "Its lower layers compute the representation: a linear probe reads it off the input tokens there.",
    threshold=0.15,
    direction="below",
    why="half of the .31 that is left by the best linear map of the inputs themselves",
    kind="trained",
    axes=BY_LAYER,
)
def lower_layers(run: Run) -> Samples:
    """After the better of the first two layers."""
    return probed(run, at(trained(run), run, labels=False), LOWER, "at inputs")


@lower_layers.reference("the same probe on vectors that are the representation")
def lower_layers_given(run: Run) -> Samples:
    """What fitting a probe costs."""
    return probed(run, lambda _, drawn: [drawn.x, represented(drawn)], slice(1, 2), "")


@lower_layers.control("embedded inputs, before the first layer, do not hold it")
def lower_layers_embedded(run: Run) -> Samples:
    """The same tokens with no layer behind them."""
    return probed(run, at(trained(run), run, labels=False), EMBEDDED, "at inputs")


@claim(
    "It copies the representation of an input on to the token of its label.",
    threshold=0.2,
    direction="below",
    why="four fifths of the variance; the label itself tells almost nothing of it",
    kind="trained",
    axes=BY_LAYER,
    leaves_out="copies of the inputs themselves, which the paper sees with dynamical systems",
)
def copies(run: Run) -> Samples:
    """At the best of the layers between the first and the last."""
    return probed(run, at(trained(run), run, labels=True), INNER, "at labels")


@copies.reference("the same probe on vectors that are the representation")
def copies_given(run: Run) -> Samples:
    """What fitting a probe costs."""
    return probed(run, lambda _, drawn: [drawn.x, represented(drawn)], slice(1, 2), "")


@copies.control(
    "embedded labels, before the first layer, do not hold it",
    incompetent="that nothing is there before anything was copied is the point",
)
def copies_embedded(run: Run) -> Samples:
    """The same tokens with no layer behind them."""
    return probed(run, at(trained(run), run, labels=True), EMBEDDED, "at labels")


def known(vectors: Tensor, y: Tensor | None = None) -> Tensor:
    """What a linear embedding is made of: vectors, the label where it is known, and which example it is."""
    place = torch.eye(vectors.shape[1], dtype=vectors.dtype).expand(vectors.shape[0], -1, -1)
    return torch.cat((vectors, place) if y is None else (vectors, y.unsqueeze(-1), place), -1)


def embedding(model: PairsModel, drawn: Pairs) -> tuple[LinearProbe, LinearProbe]:
    """Affine maps of representation, label and place to what the lower half leaves at input and at label tokens."""
    h = hidden_states(model, drawn)[HALF]
    phi = represented(drawn)
    inputs = fit_linear(known(phi).flatten(0, 1), h[:, ::2].flatten(0, 1))
    return inputs, fit_linear(known(phi, drawn.y).flatten(0, 1), h[:, 1::2].flatten(0, 1))


def linear_prompts(drawn: Pairs, generator: torch.Generator) -> Pairs:
    """Linear regression on fresh Gaussian vectors with the mean and the covariance of the representation."""
    flat = represented(drawn).flatten(0, 1)
    root = torch.linalg.cholesky(torch.cov(flat.mT))
    x = flat.mean(0) + normal(*drawn.x.shape, generator=generator) @ root.mT
    clean = (x @ drawn.latents["weights"].unsqueeze(-1)).squeeze(-1)
    y = clean + TASK.noise * normal(*clean.shape, generator=generator)
    return replace(drawn, x=x, y=y, clean=clean, latents={})


Regress = Callable[[int, Pairs], Tensor]


def pasted(models: Sequence[PairsModel], run: Run) -> Regress:
    """The upper half of each seed's model behind a linear embedding of what it is given."""
    fitted = run.setting("prompts fitted", smoke=64, cpu=512)

    def regress(seed: int, drawn: Pairs) -> Tensor:
        model = models[run.seeds.index(seed)]
        inputs, labels = embedding(model, run.sample(TASK, fitted, seed=seed, purpose="embed"))
        tokens = torch.stack((inputs(known(drawn.x)), labels(known(drawn.x, drawn.y))), 2).flatten(1, 2)
        return upper_layers(model, tokens, layer=HALF)

    return regress


def regresses(run: Run, regress: Regress, name: str) -> Samples:
    """Errors over those of zero on linear regression, after ten to twenty examples."""
    episodes = run.setting("episodes", smoke=96, cpu=2048)

    def one(seed: int) -> OneSeed:
        source = run.generator(seed, "linear prompts")
        drawn = linear_prompts(run.sample(TASK, episodes, seed=seed), source)
        own, zero = (regress(seed, drawn) - drawn.y).square(), drawn.y.square()
        return OneSeed(
            values=own[:, LATE].mean(1),
            per=zero[:, LATE].mean(1),
            errors=own[:, LATE].mean(1),
            zero_errors=zero[:, LATE].mean(1),
            curves={name: (range(drawn.time), own.mean(0) / zero.mean())},
        )

    return over_seeds(run, one)


@claim(
    "Its upper layers alone do linear regression in context, on vectors that no lower layer computed.",
    threshold=0.35,
    direction="below",
    why="two thirds of the square explained, of vectors whose law the layers never saw",
    kind="trained",
    axes=Axes(x="examples", y="squared error over zero's", log_y=True, rule=True),
    leaves_out="embeddings trained for the purpose: these are fitted to what the lower half leaves",
)
def upper_alone(run: Run) -> Samples:
    """Pasted behind a linear map of Gaussian vectors, labels and places."""
    return regresses(run, pasted(trained(run), run), "upper half, pasted")


@upper_alone.reference("ridge regression on the same vectors")
def upper_alone_ridge(run: Run) -> Samples:
    """The optimal learner."""
    exact = said_by(BayesRidge(prior_variance=1.0, noise_variance=TASK.noise**2))
    return regresses(run, lambda _, drawn: exact(drawn), "ridge")


@upper_alone.control(
    "the upper half of an untrained transformer, pasted in the same way, does not",
    incompetent="that it is training that makes the layers regress is the point",
)
def upper_alone_untrained(run: Run) -> Samples:
    """The same shape and the same embedding."""
    return regresses(run, pasted(untrained(run, BACKBONE, num_features=TASK.num_features), run), "untrained, pasted")
