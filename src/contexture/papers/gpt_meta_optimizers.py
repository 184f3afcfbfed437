r"""Why can GPT learn in context? Attention as the dual form of gradient descent (Dai et al. 2022).

A linear layer W trained by gradient descent has seen inputs x_i whose outputs got gradients g_i; with e_i = -rate g_i

    W q = W_0 q + sum_i e_i <x_i, q>,

which is linear attention with keys x_i and values e_i (Irie et al. 2022). So a layer of linear attention that reads
demonstrations before a query's own text answers like the layer without them whose weights they have changed:

    sum_{i in demonstrations, text} v_i <k_i, q> = (W_text + dW) q,     dW = sum_{i in demonstrations} v_i k_i'

Momentum attention adds to what attention reads a decaying sum of the values, as momentum does to gradients.
Shapes: x [episodes, examples, features]; W [episodes, out, features]; queries [episodes, queries, features].
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.claims.in_context import small_backbone, train_in_context
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.predictors import difference
from contexture.learners.in_context import InContext
from contexture.ops.linear_attention import linear_attention
from contexture.protocols import Pairs
from contexture.tasks.draws import integers, normal
from contexture.tasks.linear_regression import LinearRegression

PAPER = Paper(
    key="gpt-meta-optimizers",
    title="Why Can GPT Learn In-Context? Language Models Implicitly Perform Gradient Descent as Meta-Optimizers",
    authors="Damai Dai, Yutao Sun, Li Dong, Yaru Hao, Shuming Ma, Zhifang Sui, Furu Wei",
    year=2022,
    arxiv="2212.10559",
    uses=("linear-regression", "softmax", "momentum-attention"),
    left_out={
        "on real tasks learning in context and finetuning change what a language model predicts, represents and "
        "attends to in similar ways": "needs language models of billions of parameters and six text data sets",
    },
)

FEATURES, CLASSES, EXAMPLES, QUERIES, STEPS = 16, 8, 32, 8, 8
RATE = 0.5
ROUNDING = "both sides are sums of some hundred products in double precision, which agree to about 1e-15"
SOFTMAX = "softmax attention over the same keys and values, at its best scale, is not"

Read = Callable[[Tensor, Tensor, Tensor], Tensor]


def linear(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What queries read by the workbench's causal linear attention: they come last and write nothing."""
    items = torch.cat((keys, torch.zeros_like(queries)), 1)
    asked = torch.cat((torch.zeros_like(keys), queries), 1)
    written = torch.cat((values, values.new_zeros(*queries.shape[:2], values.shape[2])), 1)
    out, _ = linear_attention(asked.unsqueeze(2), items.unsqueeze(2), written.unsqueeze(2))
    return out[:, keys.shape[1] :, 0]


def products(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The same from the matrix of outer products."""
    return queries @ (keys.mT @ values)


def softmax(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What softmax attention reads."""
    weights: Tensor = (queries @ keys.mT / keys.shape[2] ** 0.5).softmax(-1)
    return weights @ values


def descended(start: Tensor, x: Tensor, labels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """By how much gradient steps of a classifier's cross-entropy have changed its weights after each, and the e_i."""
    weights, changes, sent = start, [], []
    for _ in range(STEPS):
        with torch.enable_grad():
            free = weights.detach().requires_grad_(True)
            outputs = x @ free.mT
            loss = F.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="sum")
            of_weights, of_outputs = torch.autograd.grad(loss, (free, outputs))
        scale = RATE / x.shape[1]
        weights = weights - scale * of_weights
        changes.append(weights - start)
        sent.append(-scale * of_outputs)
    return changes, sent


def dual(run: Run, read: Read, name: str) -> Samples:
    """The relative difference between how training changed a layer's answers and what attention reads, at worst."""
    episodes = run.setting("episodes", smoke=32, cpu=1024)

    def one(seed: int) -> OneSeed:
        generator = run.generator(seed, "layer")
        x = normal(episodes, EXAMPLES, FEATURES, generator=generator)
        queries = normal(episodes, QUERIES, FEATURES, generator=generator)
        labels = integers(episodes * EXAMPLES, below=CLASSES, generator=generator).view(episodes, EXAMPLES)
        start = normal(episodes, CLASSES, FEATURES, generator=generator) / FEATURES**0.5
        changes, sent = descended(start, x, labels)
        pairs = [
            (read(queries, x.repeat(1, step, 1), torch.cat(sent[:step], 1)), queries @ change.mT)
            for step, change in enumerate(changes, 1)
        ]
        return against(pairs, range(1, STEPS + 1), name)

    return over_seeds(run, one)


def against(pairs: list[tuple[Tensor, Tensor]], along: Sequence[int], name: str) -> OneSeed:
    """Relative differences of each episode at the worst of several places, said at the one scale that is best there."""
    gaps, last = [], (torch.empty(0), torch.empty(0))
    for said, wanted in pairs:
        best = (said * wanted).sum() / said.square().sum()
        last = difference((best * said).flatten(1), wanted.flatten(1))
        gaps.append((last[0] / last[1].mean()).sqrt())
    found = torch.stack(gaps)
    return OneSeed(values=found.amax(0), errors=last[0], zero_errors=last[1], curves={name: (along, found.mean(1))})


BY_STEP = Axes(x="gradient steps", y="difference, relative", log_y=True, rule=True)
BY_COUNT = Axes(x="demonstrations", y="difference, relative", log_x=True, log_y=True, rule=True)


@claim(
    "What gradient descent has changed in a linear layer is linear attention over the examples it was trained on.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=BY_STEP,
)
def dual_form(run: Run) -> Samples:
    """Eight steps of a classifier on 32 examples, against the causal linear attention of the workbench."""
    return dual(run, linear, "linear attention")


@dual_form.reference("the sum of the outer products of gradients and inputs")
def dual_form_products(run: Run) -> Samples:
    """The rounding between two ways of adding up."""
    return dual(run, products, "outer products")


@dual_form.control(SOFTMAX)
def dual_form_softmax(run: Run) -> Samples:
    """The same keys and values."""
    return dual(run, softmax, "softmax attention")


def demonstrations(run: Run, read: Read, name: str) -> Samples:
    """Reading demonstrations and text, against reading the text with weights that the demonstrations changed."""
    episodes = run.setting("episodes", smoke=32, cpu=1024)
    text, counts = 16, (2, 4, 8, 16, 32)

    def one(seed: int) -> OneSeed:
        generator = run.generator(seed, "demonstrations")
        tokens = normal(episodes, EXAMPLES + text, FEATURES, generator=generator)
        queries = normal(episodes, QUERIES, FEATURES, generator=generator)
        key, value = (normal(FEATURES, FEATURES, generator=generator) / FEATURES**0.5 for _ in range(2))
        keys, values = tokens @ key, tokens @ value
        zero_shot = read(queries, keys[:, EXAMPLES:], values[:, EXAMPLES:])
        pairs = []
        for count in counts:
            first = EXAMPLES - count
            meta_gradient = keys[:, first:EXAMPLES].mT @ values[:, first:EXAMPLES]
            pairs.append((read(queries, keys[:, first:], values[:, first:]) - zero_shot, queries @ meta_gradient))
        return against(pairs, counts, name)

    return over_seeds(run, one)


@claim(
    "Demonstrations before a query change its answer as a change of the layer's weights would: the sum of their "
    "meta-gradients.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=BY_COUNT,
)
def meta_gradients(run: Run) -> Samples:
    """Up to thirty-two demonstrations before a text of sixteen tokens."""
    return demonstrations(run, linear, "linear attention")


@meta_gradients.reference("the sum of the outer products of keys and values")
def meta_gradients_products(run: Run) -> Samples:
    """The rounding between two ways of adding up."""
    return demonstrations(run, products, "outer products")


@meta_gradients.control("with softmax attention, at its best scale, the change is no fixed change of weights")
def meta_gradients_softmax(run: Run) -> Samples:
    """Its weights share a normaliser with the text."""
    return demonstrations(run, softmax, "softmax attention")


TASK = LinearRegression(num_features=3, num_points=9, noise=0.25)
NUM_STEPS = 600


def trained(run: Run, mixer: str) -> list[InContext]:
    """Transformers of three layers that differ in their attention alone."""
    backbone = small_backbone(TASK.num_points, mixer=mixer)
    settings = {"num_features": TASK.num_features, "num_points": TASK.num_points, "noise": TASK.noise}
    models = train_in_context(
        run, backbone, task=TASK.card.name, settings=settings, num_features=TASK.num_features, num_steps=NUM_STEPS
    )
    return [InContext(model) for model in models]


def beside_vanilla(run: Run, learners: list[Callable[[Pairs], Tensor]], name: str) -> Samples:
    """Squared errors over all numbers of examples, per those of vanilla attention."""
    episodes = run.setting("episodes", smoke=256, cpu=2048)
    vanilla = [predictions(learner) for learner in trained(run, "softmax")]

    def one(seed: int) -> OneSeed:
        index, drawn = run.seeds.index(seed), run.sample(TASK, episodes, seed=seed)
        errors = (learners[index](drawn) - drawn.y).square()
        usual = (vanilla[index](drawn) - drawn.y).square()
        return OneSeed(
            values=errors.mean(1),
            per=usual.mean(1),
            errors=errors.mean(1),
            zero_errors=drawn.y.square().mean(1),
            curves={
                name: (range(TASK.num_points), errors.mean(0)),
                "vanilla attention": (range(TASK.num_points), usual.mean(0)),
            },
        )

    return over_seeds(run, one)


def predictions(learner: InContext) -> Callable[[Pairs], Tensor]:
    """A learner's prequential means."""

    def predict(drawn: Pairs) -> Tensor:
        mean = learner.prequential(drawn).mean
        assert mean is not None
        return mean

    return predict


def optimal(drawn: Pairs) -> Tensor:
    """The task's oracle."""
    mean = TASK.oracle().prequential(drawn).mean
    assert mean is not None
    return mean


@claim(
    "Attention with momentum learns better in context than vanilla attention, trained alike.",
    threshold=0.98,
    direction="below",
    why="2 % of the error counts as better; vanilla attention is at 1 by definition",
    kind="trained",
    axes=Axes(x="examples", y="squared error", log_y=True),
    mechanism="the paper trains language models of 350 million parameters; here tiny transformers learn to regress",
    leaves_out="long training: after 600 steps neither kind of attention has converged",
    tried="a momentum of 0.9 before: 1.28 times vanilla attention's error",
)
def momentum(run: Run) -> Samples:
    """Linear regression in context, with a momentum of 0.5, whose sum of values weighs what attention weighs."""
    return beside_vanilla(run, [predictions(one) for one in trained(run, "momentum-attention")], "momentum attention")


@momentum.reference("Bayesian regression on the same prompts")
def momentum_reference(run: Run) -> Samples:
    """How much better any learner can be."""
    return beside_vanilla(run, [optimal] * len(run.seeds), "Bayesian regression")


@momentum.control("without momentum it is vanilla attention")
def momentum_without(run: Run) -> Samples:
    """The same models without the moving average."""
    return beside_vanilla(run, [predictions(one) for one in trained(run, "softmax")], "vanilla attention")
