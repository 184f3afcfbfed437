r"""On mesa-optimisation in autoregressively trained transformers (Zheng et al. 2024).

Sequences x_{t+1} = W x_t with W diagonal, its entries uniform on the unit circle, and a first token x_1 drawn by a law
that is to be chosen. A layer of linear causal self-attention over tokens e_i = (x_i, x_{i-1}) predicts

    P G_t K e_t,     G_t = 1/(t - 1) sum_{i <= t} e_i e_i*

From a start with P = (a I, 0) and K = (0 0; a I 0) gradient flow on the next-token loss, if all odd moments of x_1
vanish, ends at one step of gradient descent on the least squares of x_i from x_{i-1},

    r W_t x_t,   W_t = 1/(t - 1) sum_{i=2}^t x_i x_{i-1}*,   r = k1 / (k2 + k3 / (T - 2) sum_{t=2}^{T-1} 1/(t - 1))

with k1 = E x_1j^4, k2 = E x_1j^6, k3 = sum_{k != j} E x_1j^2 x_1k^4. As t grows W_t tends to W diag(x_1j^2), so that
the sequence is recovered if and only if every x_1j^2 that is not zero is k2 / k1. The flow is followed here by gradient
descent with real weights, since the imaginary part of the expected gradient is zero.
Shapes: x [episodes, time, features], complex; queries are tokens e_t.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.tasks.draws import integers, normal, uniform
from contexture.training.flow import bilinear_flow

PAPER = Paper(
    key="mesa-ar",
    title="On Mesa-Optimization in Autoregressively Trained Transformers: Emergence and Capability",
    authors="Chenyu Zheng, Wei Huang, Rongzhen Wang, Guoqiang Wu, Jun Zhu, Chongxuan Li",
    year=2024,
    arxiv="2405.16845",
)

Start = Literal["signs", "normal", "one or two", "ones"]
MOMENTS: dict[Start, tuple[float, float]] = {"signs": (1, 1), "normal": (3, 15), "one or two": (8.5, 32.5)}
"""E x^4 and E x^6 of one coordinate of the first token."""
SECOND: dict[Start, float] = {"signs": 1, "normal": 1, "one or two": 2.5}
NUM_FEATURES = 3
LENGTH = 10
BEGIN, FLOW_RATE, FLOW_STEPS = 0.1, 0.2, 600
CHUNK = 1000


def draw(batch: int, *, start: Start, length: int, generator: torch.Generator) -> Tensor:
    """Whole sequences."""
    shape = (batch, 1, NUM_FEATURES)
    signs = 2 * integers(*shape, below=2, generator=generator).double() - 1
    if start == "normal":
        first = normal(*shape, generator=generator)
    elif start == "one or two":
        first = signs * (1 + integers(*shape, below=2, generator=generator))
    else:
        first = signs.abs() if start == "ones" else signs
    angles = uniform(*shape, high=2 * torch.pi, generator=generator)
    return torch.polar(first.abs(), angles * torch.arange(length)[:, None]) * first.sign()


class Seen(NamedTuple):
    """What a layer sees before each prediction: G_t, e_t, and the token that comes, all for t = 2 .. length - 1."""

    moments: Tensor
    queries: Tensor
    targets: Tensor


def seen(x: Tensor) -> Seen:
    """Every prefix of the sequences."""
    tokens = torch.cat((x, x.roll(1, 1)), 2)
    tokens[:, 0, NUM_FEATURES:] = 0
    sums = (tokens[:, :, :, None] * tokens[:, :, None].conj()).cumsum(1)
    before = torch.arange(1, x.shape[1] - 1)
    return Seen(sums[:, 1:-1] / before[:, None, None], tokens[:, 1:-1], x[:, 2:])


def expected(run: Run, seed: int, *, start: Start) -> tuple[Tensor, Tensor]:
    """The moments E[F F*] and E[x_{t+1} F*] of the features F = G_t x e_t, over many sequences."""
    sequences = run.setting("sequences trained on", smoke=3_000, cpu=20_000)
    generator = run.generator(seed, "train", start)
    second, first = torch.zeros(()), torch.zeros(())
    for _ in range(sequences // CHUNK):
        s = seen(draw(CHUNK, start=start, length=LENGTH, generator=generator))
        flat = features(s).flatten(0, 1)
        count = sequences * s.targets.shape[1]
        second = second + (flat.mT @ flat.conj()).real / count
        first = first + (s.targets.flatten(0, 1).mT @ flat.conj()).real / count
    return second, first


def features(s: Seen) -> Tensor:
    """All products that the layer can combine, [episodes, prefixes, features of the layer]."""
    return torch.einsum("ntbc,ntf->ntbcf", s.moments, s.queries).flatten(2)


def trained(run: Run, seed: int, *, start: Start, diagonal: bool = False) -> Tensor:
    """The product of P and K at the end of the flow; diagonal: only the entries that the start fills are trained."""
    left = BEGIN * torch.eye(NUM_FEATURES, 2 * NUM_FEATURES, dtype=torch.float64)
    right = BEGIN * torch.eye(2 * NUM_FEATURES, dtype=torch.float64).roll(NUM_FEATURES, 0)
    right[:, NUM_FEATURES:] = 0
    second, first = expected(run, seed, start=start)
    left, right = bilinear_flow(
        second, first, left=left, right=right, rate=FLOW_RATE, steps=FLOW_STEPS, keep_zeros=diagonal
    )
    return (left[:, :, None, None] * right).flatten(1)


def best(run: Run, seed: int, *, start: Start) -> Tensor:
    """The best combination of the features, with the rank of the weights relaxed away."""
    second, first = expected(run, seed, start=start)
    weights: Tensor = first @ torch.linalg.pinv(second, rtol=1e-6, hermitian=True)
    return weights


def closed_rate(start: Start, length: int) -> float:
    """The r that training on sequences of this length ends at."""
    (fourth, sixth), second = MOMENTS[start], SECOND[start]
    others = (NUM_FEATURES - 1) * second * fourth
    return fourth / (sixth + others / (length - 2) * sum(1 / (t - 1) for t in range(2, length)))


def answer(weights: Tensor, s: Seen) -> Tensor:
    """What a layer predicts after every prefix."""
    return features(s) @ weights.mT.to(s.moments.dtype)


def estimate(s: Seen) -> Tensor:
    """W_t, [episodes, prefixes, features, features]."""
    return s.moments[..., :NUM_FEATURES, NUM_FEATURES:]


def step(s: Seen, rate: float) -> Tensor:
    """One gradient step's map applied to the last token."""
    return rate * (estimate(s) @ s.queries[..., :NUM_FEATURES, None]).squeeze(-1)


def square(z: Tensor) -> Tensor:
    """|z|^2 of each episode's every prefix."""
    return z.abs().square().sum(2)


Layer = Literal["trained", "trained on the diagonal", "best", "step"]


def near_step(run: Run, *, start: Start, layer: Layer = "trained", name: str = "") -> Samples:
    """How far a layer is from the step with the closed form's rate, over the step's own square.

    The layer "step" is the step itself, at the rate for training on sequences one token longer.
    """
    episodes = run.setting("episodes", smoke=512, cpu=4096)
    # For all ones the moments, and so the rate that the diagonal entries alone come to, are those of signs.
    law: Start = "signs" if start == "ones" else start

    def one(seed: int) -> OneSeed:
        s = seen(draw(episodes, start=start, length=LENGTH, generator=run.generator(seed, "evaluate")))
        wanted = step(s, closed_rate(law, LENGTH))
        if layer == "step":
            said = step(s, closed_rate(law, LENGTH + 1))
        elif layer == "best":
            said = answer(best(run, seed, start=start), s)
        else:
            said = answer(trained(run, seed, start=start, diagonal=layer != "trained"), s)
        along = square(said - wanted).mean(0) / square(wanted).mean(0)
        return OneSeed(
            values=square(said - wanted).mean(1),
            per=square(wanted).mean(1),
            errors=square(said - s.targets).mean(1),
            zero_errors=square(s.targets).mean(1),
            curves={name: (range(2, LENGTH), along)},
        )

    return over_seeds(run, one)


BY_POSITION = Axes(x="tokens seen", y="squared difference from the step, per its square", log_y=True, rule=True)
ONE_MORE = "the step at the rate for training on sequences one token longer"


@claim(
    "Trained by gradient descent on next tokens, the layer becomes one step of gradient descent on the least squares "
    "of each token from the one before, if the first token's coordinates have independent signs.",
    threshold=0.03,
    direction="below",
    why="a few thousand sequences fix the loss to about 1 %; where the condition fails the step is 10 % away",
    axes=BY_POSITION,
)
def emergence(run: Run) -> Samples:
    """First tokens of random signs."""
    return near_step(run, start="signs", name="trained, random signs")


@emergence.reference(ONE_MORE)
def emergence_reference(run: Run) -> Samples:
    """How much a token of training matters."""
    return near_step(run, start="signs", layer="step")


@emergence.control("if the first token is always the same, it becomes something else")
def emergence_ones(run: Run) -> Samples:
    """The same training on sequences that begin with ones: odd moments do not vanish."""
    return near_step(run, start="ones", name="trained, all ones")


def applied(run: Run, *, own: bool = True, exact: bool = False) -> Samples:
    """How far the layer's answers to foreign last tokens are from W_t applied to them, over the latter's square.

    Without `own` the layer is shown the context of another sequence.
    """
    episodes = run.setting("episodes", smoke=512, cpu=4096)

    def one(seed: int) -> OneSeed:
        generator = run.generator(seed, "evaluate")
        s = seen(draw(episodes, start="signs", length=LENGTH, generator=generator))
        real, imaginary = normal(2, *s.queries.shape, generator=generator)
        asked = s._replace(queries=torch.complex(real, imaginary))
        wanted = step(asked, closed_rate("signs", LENGTH))
        shown = asked if own else asked._replace(moments=asked.moments.roll(1, 0))
        said = (
            step(shown, closed_rate("signs", LENGTH + 1)) if exact else answer(trained(run, seed, start="signs"), shown)
        )
        truth = s.targets / s.queries[..., :NUM_FEATURES] * asked.queries[..., :NUM_FEATURES]
        return OneSeed(
            values=square(said - wanted).mean(1),
            per=square(wanted).mean(1),
            errors=square(said - truth).mean(1),
            zero_errors=square(truth).mean(1),
        )

    return over_seeds(run, one)


@claim(
    "What the layer learns from its context is the step's estimate of W, and it applies that to whatever comes last.",
    threshold=0.03,
    direction="below",
    why="the same bound as for a sequence's own last token",
)
def application(run: Run) -> Samples:
    """Last tokens drawn anew from a complex normal law."""
    return applied(run)


@application.reference(ONE_MORE)
def application_reference(run: Run) -> Samples:
    """No training."""
    return applied(run, exact=True)


@application.control(
    "after the context of another sequence it applies another map",
    incompetent="that nothing but the context tells of W is what the claim says",
)
def application_elsewhere(run: Run) -> Samples:
    """The same layer and last tokens."""
    return applied(run, own=False)


LONG = 1000
LENGTHS = (3, 10, 30, 100, 300, 1000)


def recovered(run: Run, *, start: Start, predictor: str = "step", name: str = "") -> Samples:
    """The squared error on the token after a thousand, over its own square, for the step at the closed form's rate.

    predictor: "least squares" solves for W instead; "endless" is what the step tends to, W diag(rate x_1j^2) x_t.
    """
    episodes = run.setting("episodes", smoke=128, cpu=1024)

    def one(seed: int) -> OneSeed:
        x = draw(episodes, start=start, length=LONG + 1, generator=run.generator(seed, "evaluate"))

        def said(time: int) -> Tensor:
            before, after, last = x[:, : time - 1], x[:, 1:time], x[:, time - 1]
            if predictor == "endless":
                return closed_rate(start, 10**6) * x[:, 0].abs().square() * x[:, time]
            if predictor == "least squares":
                solution: Tensor = torch.linalg.lstsq(before, after).solution
                return (last.unsqueeze(1) @ solution).squeeze(1)
            weights = torch.einsum("nta,ntb,nb->na", after, before.conj(), last)
            return closed_rate(start, LONG) / (time - 1) * weights

        errors = {time: (said(time) - x[:, time]).abs().square().sum(1) for time in (LENGTHS if name else (LONG,))}
        zero = x[:, LONG].abs().square().sum(1)
        curve = torch.stack([error.mean() for error in errors.values()]) / zero.mean()
        curves = {name: (LENGTHS, curve)} if name else {}
        return OneSeed(values=errors[LONG], per=zero, errors=errors[LONG], zero_errors=zero, curves=curves)

    return over_seeds(run, one)


BY_LENGTH = Axes(x="tokens seen", y="squared error over zero's", log_x=True, log_y=True, rule=True)
SIGNS, NORMAL = "random signs", "normal"


@claim(
    "If the squares of the first token's coordinates are all the same, the step that was learnt recovers the sequence.",
    threshold=0.02,
    direction="below",
    why="what other coordinates add falls like 1/t, to two thousandths after a thousand tokens",
    axes=BY_LENGTH,
)
def sufficient(run: Run) -> Samples:
    """First tokens of random signs: k2 / k1 is one."""
    return recovered(run, start="signs", name=SIGNS)


@sufficient.reference("least squares solved on the sequence")
def sufficient_reference(run: Run) -> Samples:
    """Exact as soon as there are as many tokens as features."""
    return recovered(run, start="signs", predictor="least squares")


@sufficient.control("with normal coordinates, under which the same step is learnt, it does not")
def sufficient_normal(run: Run) -> Samples:
    """The first condition holds, the second does not."""
    return recovered(run, start="normal", name=NORMAL)


@claim(
    "If those squares take but two values, no length of the sequence is enough.",
    threshold=0.05,
    direction="above",
    why="sizes of one and two leave 11 % for ever; one size leaves two thousandths after a thousand tokens",
    axes=BY_LENGTH,
)
def necessary(run: Run) -> Samples:
    """First tokens whose coordinates have the size one or two."""
    return recovered(run, start="one or two", name="sizes of one and two")


@necessary.reference("what the step tends to over endless sequences")
def necessary_endless(run: Run) -> Samples:
    """Every coordinate times the rate and its own square."""
    return recovered(run, start="one or two", predictor="endless")


@necessary.control("with coordinates of a single size it is")
def necessary_signs(run: Run) -> Samples:
    """The same step at its own rate."""
    return recovered(run, start="signs", name=SIGNS)


@claim(
    "Beyond the first condition, training does not end at a plain step of gradient descent.",
    threshold=0.06,
    direction="above",
    why="six hundredths of the step's square are five times what a small sample of sequences leaves",
    axes=BY_POSITION,
)
def beyond(run: Run) -> Samples:
    """Sequences that begin with ones."""
    return near_step(run, start="ones", name="trained, all ones")


@beyond.reference("the best of all layers, found by least squares, is no plain step either")
def beyond_best(run: Run) -> Samples:
    """The same sequences without a descent."""
    return near_step(run, start="ones", layer="best", name="best of all layers")


@beyond.control("with the weights off the diagonal held at zero it does")
def beyond_diagonal(run: Run) -> Samples:
    """The same sequences; only the entries that the start fills are trained."""
    return near_step(run, start="ones", layer="trained on the diagonal", name="trained on the diagonal alone")
