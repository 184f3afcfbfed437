r"""Why do transformers fail to forecast time series in-context? (Zhou, Wang, Goel, Zhang 2025)

A stationary AR(p) process with fixed coefficients, z_t = sum_i a_i z_{t-i} + noise. A prompt's tokens are the windows
of its history, (z_{j-p}, .., z_{j-1}, z_j), and the last window, whose next value is asked for. Whatever its weights, a
layer of linear self-attention predicts a combination of the cubic features

    (1/n) sum_j e_ja e_jb q_c,     e_j = (window_j, z_j),  q the last window

(with the rank of the weights relaxed away), and the linear predictor one of q itself. Both are fitted by least squares
over many prompts: nothing is trained.
Shapes: series [episodes, time]; windows [episodes, n, p + 1]; queries [episodes, p].
"""

import torch
from torch import Tensor

from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.tasks.draws import normal

PAPER = Paper(
    key="tsf-icl-fails",
    title="Why Do Transformers Fail to Forecast Time Series In-Context?",
    authors="Yufa Zhou, Yixiao Wang, Surbhi Goel, Anru R. Zhang",
    year=2025,
    arxiv="2510.09776",
)

COEFFICIENTS = (0.5, -0.3, 0.4)
"""A stationary AR(3): the largest root of its characteristic polynomial is about 0.78."""
ORDER = len(COEFFICIENTS)
NOISE = 0.05
BURN_IN = 60
LENGTHS = (10, 20, 40, 80, 160)


def draw(batch: int, examples: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Windows with their next values, the last window, and the value that follows it."""
    length = examples + 2 * ORDER + 1
    noise = NOISE * normal(batch, BURN_IN + length, generator=generator)
    values = [noise.new_zeros(batch)] * ORDER
    for t in range(BURN_IN + length):
        values.append(noise[:, t] + sum(a * values[-i] for i, a in enumerate(COEFFICIENTS, start=1)))
    series = torch.stack(values[-(examples + ORDER + 1) :], 1)
    windows = series.unfold(1, ORDER + 1, 1)
    return windows[:, :-1], windows[:, -1, :-1], windows[:, -1, -1]


def cubic(windows: Tensor, queries: Tensor) -> Tensor:
    """All products that a layer can combine."""
    second = windows.mT @ windows / windows.shape[1]
    rows, columns = torch.triu_indices(ORDER + 1, ORDER + 1)
    # In units of the noise, so that the products are of the size of the window.
    products: Tensor = second[:, rows, columns].unsqueeze(-1) / NOISE**2 * queries.unsqueeze(1)
    return products.flatten(1)


def fit(features: Tensor, targets: Tensor) -> Tensor:
    """The coefficients of the best combination."""
    solution: Tensor = torch.linalg.lstsq(features, targets.unsqueeze(1)).solution
    return solution.squeeze(1)


def predictions(run: Run, seed: int, *, examples: int, reader: str) -> tuple[Tensor, Tensor, Tensor]:
    """What the reader says of fresh prompts, what the true coefficients say, and what came."""
    fitted = run.setting("prompts fitted", smoke=4_000, cpu=50_000)
    episodes = run.setting("episodes", smoke=4_000, cpu=20_000)
    truth = torch.tensor(COEFFICIENTS[::-1], dtype=torch.float64)
    windows, queries, targets = draw(fitted, examples, generator=run.generator(seed, "fit", examples))
    new_windows, new_queries, new_targets = draw(episodes, examples, generator=run.generator(seed, "new", examples))
    if reader == "attention":
        said = cubic(new_windows, new_queries) @ fit(cubic(windows, queries), targets)
    elif reader == "linear":
        said = new_queries @ fit(queries, targets)
    else:
        said = new_queries @ truth
    return said, new_queries @ truth, new_targets


def excess(run: Run, *, examples: int, reader: str, curve: bool = False) -> Samples:
    """The squared difference from the best predictor, per the noise that nobody can predict."""
    lengths = run.setting("lengths drawn", smoke=(10, 40), cpu=LENGTHS) if curve else ()

    def one(seed: int) -> OneSeed:
        said, best, targets = predictions(run, seed, examples=examples, reader=reader)
        along = []
        for n in lengths:
            there, wanted, _ = predictions(run, seed, examples=n, reader=reader)
            along.append((there - wanted).square().mean() / NOISE**2)
        return OneSeed(
            values=(said - best).square(),
            per=torch.full_like(said, NOISE**2),
            errors=(said - targets).square(),
            zero_errors=targets.square(),
            curves={reader: (lengths, torch.stack(along))} if along else {},
        )

    return over_seeds(run, one)


@claim(
    "No layer of linear self-attention forecasts as well as the linear predictor of the last window.",
    threshold=0.02,
    direction="above",
    why="fitting 30 coefficients to 4,000 prompts costs .75 % of the noise by itself; 2 % is beyond that",
    axes=Axes(x="windows in the prompt", y="excess error over the noise", log_x=True, log_y=True, rule=True),
)
def never_better(run: Run) -> Samples:
    """The best of all layers with ten windows."""
    return excess(run, examples=10, reader="attention", curve=True)


@never_better.reference("the best of all layers with five windows")
def never_better_reference(run: Run) -> Samples:
    """Even less to average over."""
    return excess(run, examples=5, reader="attention")


@never_better.control("a linear predictor fitted to as many prompts has no such gap")
def never_better_control(run: Run) -> Samples:
    """The same fit over the window itself."""
    return excess(run, examples=10, reader="linear", curve=True)


@claim(
    "As the context grows, the best layer comes arbitrarily close to the best linear predictor.",
    threshold=0.02,
    direction="below",
    why="the same fiftieth of the noise, which ten windows exceed",
)
def in_the_limit(run: Run) -> Samples:
    """The best of all layers with 320 windows."""
    return excess(run, examples=320, reader="attention")


@in_the_limit.reference("the true coefficients")
def in_the_limit_reference(run: Run) -> Samples:
    """Nothing is fitted."""
    return excess(run, examples=320, reader="truth")


@in_the_limit.control("with ten windows it is not there")
def in_the_limit_control(run: Run) -> Samples:
    """The same fit on short prompts."""
    return excess(run, examples=10, reader="attention")


HORIZON = 50
EXAMPLES = 100


def roll_out(run: Run, *, reader: str, told: bool = False) -> Samples:
    """The variance of the forecast after fifty steps appended to the prompt, over the process's own variance.

    told: the true values go into the prompt instead of the forecasts. A layer is cubic in its prompt, so that now and
    then a forecast runs away instead; it counts as one, as any that is larger than the process.
    """
    fitted = run.setting("prompts fitted", smoke=4_000, cpu=50_000)
    episodes = run.setting("episodes", smoke=512, cpu=4096)

    def one(seed: int) -> OneSeed:
        windows, queries, targets = draw(fitted, EXAMPLES, generator=run.generator(seed, "fit"))
        weights = fit(cubic(windows, queries) if reader == "attention" else queries, targets)
        path, _, _ = draw(episodes, EXAMPLES + HORIZON, generator=run.generator(seed, "new"))
        variance, along = targets.square().mean(), []
        context, last = path[:, :EXAMPLES], path[:, EXAMPLES, :-1]
        for t in range(HORIZON):
            said = (cubic(context, last) if reader == "attention" else last) @ weights
            along.append(said)
            after = path[:, EXAMPLES + t, -1] if told else said
            window = torch.cat((last, after.unsqueeze(1)), 1)
            context, last = torch.cat((context, window.unsqueeze(1)), 1), window[:, 1:]
        first = path[:, EXAMPLES, -1]
        shares = torch.stack(along).square() / variance
        name = f"{reader}, told the truth" if told else reader
        return OneSeed(
            values=shares[-1].nan_to_num(nan=1.0).clamp(max=1.0),
            errors=(along[0] - first).square(),
            zero_errors=first.square(),
            curves={name: (range(1, HORIZON + 1), shares.nanmedian(1).values)},
        )

    return over_seeds(run, one)


@claim(
    "Fed its own forecasts, the layer's predictions collapse exponentially to the mean.",
    leaves_out="a few prompts in some thousand run away instead, as a cubic map can; each counts as the variance",
    threshold=0.01,
    direction="below",
    why="an exponential with the process's largest root, .78^100, leaves 1e-11; a told forecast keeps about a quarter",
    axes=Axes(x="steps ahead", y="square of the forecast over the variance, median", log_y=True),
)
def collapse(run: Run) -> Samples:
    """The best layer, rolled out for fifty steps."""
    return roll_out(run, reader="attention")


@collapse.reference("the linear predictor, rolled out, which has to forget as well")
def collapse_reference(run: Run) -> Samples:
    """The fitted coefficients applied to their own forecasts."""
    return roll_out(run, reader="linear")


@collapse.control("told what really came instead, its forecasts keep their variance")
def collapse_control(run: Run) -> Samples:
    """The same layer over the same fifty steps, without feeding its forecasts back."""
    return roll_out(run, reader="attention", told=True)
