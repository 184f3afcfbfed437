r"""How many pretraining tasks are needed for in-context learning of linear regression? (Wu et al. 2023)

One layer of linear attention with a single free matrix, x ~ N(0, H), w ~ N(0, I), noise of variance s^2:

    prediction = q' G h,   h = (1/n) sum_j y_j x_j,   q the query

Over all tasks the best matrix for prompts of n examples is

    G* = ((1 + 1/n) H + (tr H + s^2) / n I)^-1,    and the risk above its own is  tr(H (G - G*) E[h h'] (G - G*)')

with E[h h'] = (1 + 1/n) H^2 + (tr H + s^2) / n H. Pretraining is stochastic gradient descent from zero: every step
draws a new task with one prompt, and the rate is halved log2 T times over the T steps. Settings are ours.
Shapes: x [episodes, n, features], y [episodes, n], queries [episodes, 1, features]; G [runs, features, features].
"""

import math
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from contexture.claims.asked import compared
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.predictors import Asked, Predictor, linear_predictor
from contexture.learners.classical.ridge import Ridge
from contexture.tasks.draws import normal

PAPER = Paper(
    key="how-many-tasks",
    title="How Many Pretraining Tasks Are Needed for In-Context Learning of Linear Regression?",
    authors="Jingfeng Wu, Difan Zou, Zixiang Chen, Vladimir Braverman, Quanquan Gu, Peter L. Bartlett",
    year=2023,
    arxiv="2310.08391",
    uses=("fixed-ridge", "preconditioned-gd"),
)

RATE = 0.1
"""In units of 1 / (tr H tr E[h h']), where a step could no longer be trusted to shrink the error."""
TASKS = (16, 64, 256, 1024)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompts:
    """Prompts of `examples` examples, whose inputs have eigenvalues 1/i^2, or all the same with the same sum."""

    num_features: int
    examples: int = 20
    flat: bool = False
    noise: float = 1.0

    @property
    def eigenvalues(self) -> Tensor:
        """The diagonal of H."""
        decaying = torch.arange(1, self.num_features + 1, dtype=torch.float64) ** -2
        return decaying.mean().expand(self.num_features) if self.flat else decaying

    @property
    def level(self) -> Tensor:
        """(tr H + s^2) / n."""
        return (self.eigenvalues.sum() + self.noise**2) / self.examples

    @property
    def best(self) -> Tensor:
        """The diagonal of G*."""
        return 1 / ((1 + 1 / self.examples) * self.eigenvalues + self.level)

    @property
    def second(self) -> Tensor:
        """The diagonal of E[h h']."""
        return (1 + 1 / self.examples) * self.eigenvalues**2 + self.level * self.eigenvalues

    def draw(self, batch: int, *, generator: torch.Generator, clean: bool = False) -> Asked:
        """New tasks, each with one prompt and one query, whose target has noise as well unless it is to be clean."""
        x = normal(batch, self.examples + 1, self.num_features, generator=generator) * self.eigenvalues.sqrt()
        w = normal(batch, self.num_features, 1, generator=generator)
        without = (x @ w).squeeze(-1)
        y = without + self.noise * normal(batch, self.examples + 1, generator=generator)
        return Asked(x[:, :-1], y[:, :-1], x[:, -1:], (without if clean else y)[:, -1:])

    def excess(self, matrices: Tensor) -> Tensor:
        """The risk of each matrix above that of G*."""
        return (self.eigenvalues[:, None] * (matrices - self.best.diag()).square() * self.second).sum((-2, -1))


def moment(x: Tensor, y: Tensor) -> Tensor:
    """h, [episodes, features]."""
    return (x.mT @ y.unsqueeze(-1)).squeeze(-1) / x.shape[1]


def layer(matrix: Tensor) -> Predictor:
    """The layer with this matrix."""
    return lambda x, y, queries: (queries @ (matrix @ moment(x, y).unsqueeze(-1))).squeeze(-1)


def pretrained(prompts: Prompts, *, num_tasks: int, runs: int, generator: torch.Generator) -> Tensor:
    """The matrices of independent pretraining runs, each over so many tasks of its own."""
    rate = RATE / float(prompts.eigenvalues.sum() * prompts.second.sum())
    span = num_tasks // round(math.log2(num_tasks))
    matrices = torch.zeros(runs, prompts.num_features, prompts.num_features, dtype=torch.float64)
    for step in range(num_tasks):
        p = prompts.draw(runs, generator=generator)
        h, query = moment(p.x, p.y), p.queries.squeeze(1)
        left = p.targets.squeeze(1) - torch.einsum("ra,rab,rb->r", query, matrices, h)
        matrices += torch.einsum("r,ra,rb->rab", rate / 2 ** (step // span) * left, query, h)
    return matrices


def near_best(run: Run, *, which: str) -> Samples:
    """The squared difference from the closed form's predictions, over their own square."""
    fitted = run.setting("prompts fitted", smoke=20_000, cpu=100_000)
    episodes = run.setting("episodes", smoke=1024, cpu=8192)
    prompts = Prompts(num_features=6)

    def one(seed: int) -> OneSeed:
        p = prompts.draw(episodes, generator=run.generator(seed, "evaluate"))
        if which == "fitted":
            fit = prompts.draw(fitted, generator=run.generator(seed, "fit"))
            products = (fit.queries.mT @ moment(fit.x, fit.y).unsqueeze(1)).flatten(1)
            matrix = torch.linalg.lstsq(products, fit.targets).solution.view(6, 6)
        else:
            matrix = replace(prompts, examples=21 if which == "one more" else 10**6).best.diag()
        said = layer(matrix)(p.x, p.y, p.queries)
        return compared(p, said, layer(prompts.best.diag())(p.x, p.y, p.queries), errors=False)

    return over_seeds(run, one)


@claim(
    "Over tasks with a Gaussian prior the best layer is known in closed form, which depends on the length of prompts.",
    threshold=0.03,
    direction="below",
    why="fitting 36 numbers to 20,000 prompts leaves about 1 %; the form for endless prompts is a multiple of it away",
)
def closed_form(run: Run) -> Samples:
    """The best matrix for many prompts, by least squares, against the closed form."""
    return near_best(run, which="fitted")


@closed_form.reference("the closed form for one example more")
def closed_form_reference(run: Run) -> Samples:
    """How much a single example in the closed form matters."""
    return near_best(run, which="one more")


@closed_form.control(
    "the closed form for endless prompts, which is H^-1, is elsewhere", incompetent="it takes noise in"
)
def closed_form_endless(run: Run) -> Samples:
    """The same form at a million examples."""
    return near_best(run, which="endless")


def left_over(run: Run, *, flat: bool = False, times: int = 1, name: str) -> Samples:
    """The excess risk that pretraining leaves, over that of the untrained layer; 32 features have 1,024 weights."""
    num_tasks = run.setting("tasks", smoke=256, cpu=512)
    runs = run.setting("runs of pretraining", smoke=8, cpu=32)
    along = run.setting("tasks drawn", smoke=(16, 64), cpu=TASKS) if times == 1 else ()
    prompts = Prompts(num_features=32, flat=flat)

    def one(seed: int) -> OneSeed:
        start = prompts.excess(torch.zeros(runs, 32, 32, dtype=torch.float64))

        def left(count: int) -> Tensor:
            generator = run.generator(seed, "pretrain", count)
            return prompts.excess(pretrained(prompts, num_tasks=count, runs=runs, generator=generator))

        values = left(times * num_tasks)
        curve = torch.stack([left(count).mean() / start.mean() for count in along]) if along else None
        curves = {} if curve is None else {name: (along, curve)}
        return OneSeed(values=values, per=start, errors=values, zero_errors=start, curves=curves)

    return over_seeds(run, one)


@claim(
    "Half as many tasks as the layer has weights are enough to pretrain it, with one prompt each.",
    threshold=0.3,
    direction="below",
    why="seven tenths of what pretraining can gain; where no direction of the inputs is small, hardly any is gained",
    axes=Axes(x="pretraining tasks", y="excess risk, per the untrained layer's", log_x=True, log_y=True, rule=True),
)
def few_tasks(run: Run) -> Samples:
    """Inputs whose eigenvalues fall like 1/i^2."""
    return left_over(run, name="eigenvalues 1/i^2")


@few_tasks.reference("four times as many tasks")
def few_tasks_more(run: Run) -> Samples:
    """The same pretraining for longer."""
    return left_over(run, times=4, name="more")


@few_tasks.control("with equal eigenvalues, where every weight counts, they are not")
def few_tasks_flat(run: Run) -> Samples:
    """The same budget and the same sum of eigenvalues."""
    return left_over(run, flat=True, name="equal eigenvalues")


DIMENSIONS = (16, 64)


def learned(run: Run, *, flat: bool = False, exact: bool = False) -> Samples:
    """The share of the possible gain that the same tasks bring at 64 features, per that at 16."""
    num_tasks = run.setting("tasks", smoke=256, cpu=1024)
    runs = run.setting("runs of pretraining", smoke=8, cpu=16)

    def one(seed: int) -> OneSeed:
        gained, left, starts = [], [], []
        for num_features in DIMENSIONS:
            prompts = Prompts(num_features=num_features, flat=flat)
            start = prompts.excess(torch.zeros(runs, num_features, num_features, dtype=torch.float64))
            generator = run.generator(seed, "pretrain", num_features)
            matrices = (
                prompts.best.diag().expand(runs, -1, -1)
                if exact
                else pretrained(prompts, num_tasks=num_tasks, runs=runs, generator=generator)
            )
            left.append(prompts.excess(matrices))
            gained.append(1 - left[-1] / start)
            starts.append(start)
        return OneSeed(values=gained[1], per=gained[0], errors=left[1], zero_errors=starts[1])

    return over_seeds(run, one)


@claim(
    "How many tasks are needed does not depend on the dimension, where the inputs' eigenvalues fall fast.",
    threshold=0.8,
    direction="above",
    why="sixteen times as many weights cost at most a fifth of the gain; with equal eigenvalues they cost nearly all",
)
def dimension_free(run: Run) -> Samples:
    """The gain at 64 features per that at 16, for as many tasks."""
    return learned(run)


@dimension_free.reference("the best layer in closed form, which gains all there is in both")
def dimension_free_reference(run: Run) -> Samples:
    """No pretraining: G* itself."""
    return learned(run, exact=True)


@dimension_free.control("with equal eigenvalues it does")
def dimension_free_flat(run: Run) -> Samples:
    """The same tasks for inputs without small directions."""
    return learned(run, flat=True)


LENGTHS = (5, 10, 20, 50, 100, 200)
PRETRAINED_ON = Prompts(num_features=32)


def pretrained_layer(run: Run, seed: int) -> Predictor:
    """One long pretraining run for each seed, kept."""
    num_tasks = run.setting("tasks", smoke=4096, cpu=32768)

    def make() -> dict[str, Tensor]:
        generator = run.generator(seed, "pretrain")
        return {"matrix": pretrained(PRETRAINED_ON, num_tasks=num_tasks, runs=1, generator=generator)[0]}

    about = {"paper": PAPER.key, "prompts": asdict(PRETRAINED_ON), "tasks": num_tasks, "rate": RATE, "seed": seed}
    return layer(run.kept(about, make)["matrix"])


def beside_ridge(run: Run, *, examples: int = 20, pretrain: bool = True, name: str = "") -> Samples:
    """The squared error on clean targets of unseen tasks, per that of ridge regression at its best penalty."""
    episodes = run.setting("episodes", smoke=2048, cpu=4096)
    lengths = run.setting("lengths drawn", smoke=(10, 20), cpu=LENGTHS) if name else ()
    ridge = linear_predictor(Ridge(PRETRAINED_ON.noise**2))

    def one(seed: int) -> OneSeed:
        ours = pretrained_layer(run, seed) if pretrain else ridge

        def errors(count: int) -> tuple[Tensor, Tensor, Tensor]:
            prompts = replace(PRETRAINED_ON, examples=count)
            p = prompts.draw(episodes, generator=run.generator(seed, "evaluate", count), clean=True)
            said, best = ours(p.x, p.y, p.queries), ridge(p.x, p.y, p.queries)
            return (
                (said - p.targets).square().mean(1),
                (best - p.targets).square().mean(1),
                p.targets.square().mean(1),
            )

        values, per, zero = errors(examples)
        ratios = [top.mean() / bottom.mean() for top, bottom, _ in map(errors, lengths)]
        curves = {name: (lengths, torch.stack(ratios))} if ratios else {}
        return OneSeed(values=values, per=per, errors=values, zero_errors=zero, curves=curves)

    return over_seeds(run, one)


@claim(
    "On unseen tasks, at the context length it was pretrained on, the layer is nearly as good as the best ridge "
    "regression, which nothing can beat.",
    threshold=2.0,
    direction="below",
    why="a factor of two, where predicting zero has four times ridge's error",
    axes=Axes(x="examples in the context", y="error over that of the best ridge", log_x=True, rule=True),
)
def nearly_bayes(run: Run) -> Samples:
    """Pretrained on and asked after twenty examples."""
    return beside_ridge(run, name="pretrained on 20 examples")


@nearly_bayes.reference("ridge regression itself")
def nearly_bayes_ridge(run: Run) -> Samples:
    """The ratio is one."""
    return beside_ridge(run, pretrain=False)


@nearly_bayes.control("after ten times as many examples as it was pretrained on it is not")
def nearly_bayes_longer(run: Run) -> Samples:
    """The same layer at another context length."""
    return beside_ridge(run, examples=200)
