r"""General-purpose in-context learning by meta-learning transformers (Kirsch, Harrison, Sohl-Dickstein, Metz 2022).

Tasks are made of handwritten digits by random projections of the pixels and permutations of the labels
(`contexture.tasks.projected_digits`): three digits, eight dimensions, sixteen images in a row. A model reads every
image together with the label of the one before it, and is asked for the labels of new tasks, with images that it was
not trained on.

    accessible state   what a model's streaming state holds before the last image, in numbers
    parameters         counted

Attention to all images and to the last few (a sliding window) differ in state alone. Models have two layers of width
32, far fewer tasks and steps than the paper's. Shapes: x [episodes, 16, 8], y [episodes, 16].
"""

from dataclasses import replace

import torch
from torch import Tensor

from contexture.claims.classification import answered, configurations
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.claims.watched import Watched, watch
from contexture.learners.classical.nearest_neighbour import NearestNeighbour
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.randomness import generator
from contexture.tasks.projected_digits import ProjectedDigits

PAPER = Paper(
    key="gpicl",
    title="General-Purpose In-Context Learning by Meta-Learning Transformers",
    authors="Louis Kirsch, James Harrison, Jascha Sohl-Dickstein, Luke Metz",
    year=2022,
    arxiv="2212.04458",
    uses=("projected-digits", "sliding-window", "nearest-neighbour"),
    left_out={
        "models that are not transformers can be trained so as well": "needs recurrent networks trained for many times "
        "as many steps",
        "how they are optimised moves the transitions": "needs a grid of batches and rates, each trained to its end",
    },
)

ENDLESS = ProjectedDigits(num_features=8, num_points=16, num_classes=3)
ONE = replace(ENDLESS, num_tasks=1)
BIASED = replace(ENDLESS, bias=0.9)
NEW = replace(ENDLESS, held_out=True)
STEPS, EVERY = 700, 35
ALL, LAST_FEW = ENDLESS.num_points, 4
LOOKED_AT = 400


def shape(*, window: int = ALL, width: int = 32, expansion: float = 2.0) -> PairsModelConfig:
    """Two layers of attention to the last `window` images; every image carries the label of the one before it."""
    backbone = BackboneConfig(
        pattern="sliding-window*2",
        width=width,
        num_heads=4 if width > 4 else 1,
        feed_forward="relu",
        expansion=expansion,
        positions="learned",
        max_length=ENDLESS.num_points,
        settings={"sliding-window": {"window": window, "positions": "none"}},
    )
    classes = ENDLESS.num_classes
    return PairsModelConfig(num_features=ENDLESS.num_features, num_classes=classes, form="shifted", backbone=backbone)


def looking(models: list[PairsModel]) -> dict[str, Tensor]:
    """Accuracy at the last four images of new tasks, on the same episodes at every mark."""
    drawn = NEW.sample(LOOKED_AT, generator=generator("look", "digits"))
    with torch.no_grad():
        hits = [(model(drawn.x.float(), drawn.y).logits.argmax(2) == drawn.y).double() for model in models]
    return {"last": torch.stack([one[:, -4:].mean() for one in hits])}


def trained(run: Run, task: ProjectedDigits = ENDLESS, model: PairsModelConfig | None = None) -> Watched[PairsModel]:
    """A model for each seed, watched."""
    every = run.setting("steps between marks", smoke=3, cpu=EVERY)
    made = configurations(run, task, model or shape(), num_steps=STEPS, rate=2e-3, matrix_rate=0.02)
    return watch(run, made, kind=PairsModel, every=every, look=looking)


def of_new(run: Run, found: Watched[PairsModel], shown: ProjectedDigits, name: str) -> Samples:
    """How often the last of sixteen images is given its label, in new tasks made of images held out."""

    def one(seed: int) -> OneSeed:
        errors = 1 - answered(run, found.models, seed, shown)
        return OneSeed(
            values=answered(run, found.models, seed, NEW),
            errors=errors,
            zero_errors=torch.full_like(errors, 1 - float(shown.shares.max())),
            curves={name: (found.steps, found.seen["last"][run.seeds.index(seed)])},
        )

    return over_seeds(run, one)


def nearest(run: Run) -> Samples:
    """The label of the earlier image that is nearest."""
    return over_seeds(run, lambda seed: OneSeed(values=answered(run, NearestNeighbour(), seed, NEW)))


OVER_STEPS = Axes(x="training steps", y="accuracy at the last images of new tasks")
HALF_WAY = "half of the way from guessing among three labels to being right"


@claim(
    "A transformer trained on ever new tasks becomes a learning algorithm: it learns tasks and images never seen.",
    threshold=0.67,
    direction="above",
    kind="trained",
    spread="seeds",
    why=HALF_WAY,
    axes=OVER_STEPS,
    leaves_out="other data sets, and algorithms that go on learning for a hundred images",
)
def general(run: Run) -> Samples:
    """A new projection and permutation for every episode."""
    return of_new(run, trained(run), ENDLESS, "ever new tasks")


@general.reference("the label of the nearest earlier image")
def general_nearest(run: Run) -> Samples:
    """A learning algorithm that needs no training."""
    return nearest(run)


@general.control("trained on a single task it does not")
def general_one_task(run: Run) -> Samples:
    """The same images and steps."""
    return of_new(run, trained(run, ONE), ONE, "one task")


def at_first(run: Run, found: Watched[PairsModel] | None, shown: ProjectedDigits) -> Samples:
    """How often the very first image is given its label, in tasks of the training; without models, by the nearest."""
    asked = replace(shown, held_out=True)

    def one(seed: int) -> OneSeed:
        drawn = run.sample(asked, run.setting("episodes", smoke=512, cpu=1024), seed=seed)
        if found is None:
            many = ONE.sample(128, generator=run.generator(seed, "known"))
            x, y = many.x.flatten(0, 1), many.y.flatten()
            return OneSeed(values=(y[torch.cdist(drawn.x[:, 0], x).argmin(1)] == drawn.y[:, 0]).double())
        with torch.no_grad():
            said = found.models[run.seeds.index(seed)](drawn.x.float(), drawn.y).logits[:, 0].argmax(1)
        errors = 1 - answered(run, found.models, seed, shown)
        chance = torch.full_like(errors, 1 - float(shown.shares.max()))
        return OneSeed(values=(said == drawn.y[:, 0]).double(), errors=errors, zero_errors=chance)

    return over_seeds(run, one)


@claim(
    "With a single task it is memorised: the model names images before it has seen any label.",
    threshold=0.67,
    direction="above",
    kind="trained",
    spread="seeds",
    why=HALF_WAY,
)
def memorises(run: Run) -> Samples:
    """The first image of an episode, held out, in the one task."""
    return at_first(run, trained(run, ONE), ONE)


@memorises.reference("the label of the nearest image of the training")
def memorises_nearest(run: Run) -> Samples:
    """A memory of two thousand images."""
    return at_first(run, None, ONE)


@memorises.control("trained on ever new tasks it does not know the label of a first image")
def memorises_endless(run: Run) -> Samples:
    """The same images and steps."""
    return at_first(run, trained(run), ENDLESS)


@claim(
    "A model has to be large enough for it: one that is too small stays where it begins.",
    threshold=0.67,
    direction="above",
    kind="trained",
    spread="seeds",
    why=HALF_WAY,
    axes=OVER_STEPS,
)
def size(run: Run) -> Samples:
    """Width 32."""
    return of_new(run, trained(run), ENDLESS, "width 32")


@size.reference("the label of the nearest earlier image")
def size_nearest(run: Run) -> Samples:
    """A learning algorithm that needs no training."""
    return nearest(run)


@size.control("with width 4 it does not become one", incompetent="failing to be trained at all is the point")
def size_small(run: Run) -> Samples:
    """The same tasks and steps."""
    return of_new(run, trained(run, model=shape(width=4)), ENDLESS, "width 4")


WIDE = shape(window=LAST_FEW, expansion=8.0)


def beside_wide(run: Run, found: Watched[PairsModel] | None, name: str) -> Samples:
    """Errors at the last image of new tasks, per those of a model of small state and more than twice the parameters."""
    wide = trained(run, model=WIDE)

    def one(seed: int) -> OneSeed:
        say = NearestNeighbour() if found is None else found.models
        errors = 1 - answered(run, say, seed, NEW)
        beside = 1 - answered(run, wide.models, seed, NEW)
        lines = {name: found, "last 4 images, more parameters": wide} if found else {}
        return OneSeed(
            values=errors,
            per=beside,
            errors=errors,
            zero_errors=torch.full_like(errors, 2 / 3),
            curves={label: (of.steps, of.seen["last"][run.seeds.index(seed)]) for label, of in lines.items()},
        )

    return over_seeds(run, one)


@claim(
    "The state that a model can read is the bottleneck: with more of it, errors are fewer than with more parameters.",
    threshold=0.8,
    direction="below",
    kind="trained",
    spread="seeds",
    why="a fifth fewer errors than the model with a quarter of the state and more than twice the parameters",
    expected="undecided",
    tried="700 steps of three seeds, in each of which errors are fewer by three to four tenths; the interval of so few "
    "just reaches the threshold",
    axes=OVER_STEPS,
)
def state(run: Run) -> Samples:
    """Attention to all sixteen images."""
    return beside_wide(run, trained(run), "all 16 images")


@state.reference("the nearest of all earlier images")
def state_nearest(run: Run) -> Samples:
    """All of the context and no parameters."""
    return beside_wide(run, None, "")


@state.control("with the small state, fewer parameters are no better")
def state_small(run: Run) -> Samples:
    """Attention to the last four images in both layers."""
    return beside_wide(run, trained(run, model=shape(window=LAST_FEW)), "last 4 images")


def sooner(run: Run, task: ProjectedDigits | None, name: str) -> Samples:
    """When half of the last images of new tasks are given their labels, per when they are without a bias."""
    plain = trained(run)
    found = plain if task is None else trained(run, task)
    own, other = found.first("last", 0.5), plain.first("last", 0.5).clamp(max=plain.steps[-1])

    def one(seed: int) -> OneSeed:
        index = run.seeds.index(seed)
        errors = 1 - answered(run, found.models, seed, NEW)
        return OneSeed(
            values=own[index].expand(len(errors)),
            per=other[index].expand(len(errors)),
            errors=errors,
            zero_errors=torch.full_like(errors, 2 / 3),
            curves={name: (found.steps, found.seen["last"][index])},
        )

    return over_seeds(run, one)


@claim(
    "Training that keeps most tasks' labels as they are leaves its plateau sooner, and learns new labels as well.",
    threshold=0.9,
    direction="below",
    kind="trained",
    spread="seeds",
    why="a tenth of the time until half of the labels are right, of permutations drawn evenly",
    expected="undecided",
    tried="700 steps of three seeds, of which two leave the plateau later with the bias; at this size the plateau "
    "lasts some 150 to 250 steps without it",
    axes=OVER_STEPS,
)
def bias(run: Run) -> Samples:
    """Nine tenths of the tasks keep the digits' own labels."""
    return sooner(run, BIASED, "nine tenths keep their labels")


@bias.reference("a learning algorithm that is there from the start")
def bias_nearest(run: Run) -> Samples:
    """The nearest earlier image, at step zero."""
    return over_seeds(run, lambda seed: OneSeed(values=torch.zeros_like(answered(run, NearestNeighbour(), seed, NEW))))


@bias.control("permutations drawn evenly are what it is compared with")
def bias_none(run: Run) -> Samples:
    """The ratio is one."""
    return sooner(run, None, "labels permuted evenly")
