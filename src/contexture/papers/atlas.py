r"""ATLAS: learning to optimally memorize the context at test time (Behrouz et al. 2025).

    memory     M(phi(k)) = M' phi(k);  phi: k itself, or all monomials up to a degree with weights 1 / sqrt(i!)
    Omega      M_t = M_{t-1} + theta sum_{t - window < i <= t} phi_i (v_i - M_{t-1}' phi_i)'
    Muon       M_t = M_{t-1} + eta newton_schulz(S_t),  S_t the momentum of those gradients
    DoT        u_t = beta_t (v_t - sum_{s < t} e(k_t, k_s) u_s),  o_t = sum_{s <= t} e(q_t, k_s) u_s,  e an exponential

What a memory can hold is what least squares makes of it: as many pairs as there are features. Rates are chosen from a
grid on episodes of their own, for what is measured and for its controls alike.
Shapes: k, q [episodes, pairs, dim], v [episodes, pairs, dim], M [episodes, features, dim].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from contexture.claims.outputs import apart
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.ops.kernel_delta_rule import kernel_delta_rule
from contexture.ops.newton_schulz import orthogonalised
from contexture.ops.omega import omega
from contexture.ops.polynomial_features import num_features, quadratic_features
from contexture.tasks.draws import normal

PAPER = Paper(
    key="atlas",
    title="ATLAS: Learning to Optimally Memorize the Context at Test Time",
    authors="Ali Behrouz, Zeman Li, Praneeth Kacham, Majid Daliri, Yuan Deng, Peilin Zhong, Meisam Razaviyayn, Vahab "
    "Mirrokni",
    year=2025,
    arxiv="2505.23735",
    uses=("atlas", "omega", "dot", "softmax", "delta-rule"),
    left_out={
        "it is ahead of transformers and linear recurrent models on language, recall and long texts": "needs "
        "language models of a billion parameters trained on tens of billions of tokens",
        "at ten million tokens of BABILong it gains 80 % over Titans": "needs such a model, BABILong, and contexts of "
        "millions of tokens",
    },
)

DIM = 8
FEATURES = num_features(DIM)


def monomials(x: Tensor) -> Tensor:
    """All of degree at most 2, whose products are 1 + x.y + (x.y)^2 / 2."""
    parts = quadratic_features(x)
    return torch.cat([part * math.factorial(i) ** -0.5 for i, part in enumerate(parts)], -1)


def by_least_squares(features: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """What the best memory of the keys' features recalls."""

    def recall(k: Tensor, v: Tensor) -> Tensor:
        rows = features(k)
        found: Tensor = rows @ (torch.linalg.pinv(rows) @ v)
        return found

    return recall


def by_kernel(k: Tensor, v: Tensor) -> Tensor:
    """The same of degree 2 from products of keys alone, never forming a feature."""
    products = k @ k.mT
    gram = 1 + products + products.square() / 2
    found: Tensor = gram @ (torch.linalg.pinv(gram, hermitian=True) @ v)
    return found


PAIRS = (4, 8, 16, 32, 45, 64)


def held(run: Run, recall: Callable[[Tensor, Tensor], Tensor], name: str, *, count: int) -> Samples:
    """The squared error with which `count` random pairs are recalled, over the values' square.

    Keys are of any length: were all of length one, their squares would add up to the constant, one monomial less.
    """
    episodes = run.setting("episodes", smoke=32, cpu=256)

    def one(seed: int) -> OneSeed:
        curve = []
        for pairs in PAIRS:
            k, v = normal(2, episodes, pairs, DIM, generator=run.generator(seed, "pairs", pairs))
            k = k / DIM**0.5
            curve.append(((recall(k, v) - v).square().mean((1, 2)), v.square().mean((1, 2))))
        errors, zero = curve[PAIRS.index(count)]
        means = torch.stack([error.mean() / size.mean() for error, size in curve])
        return OneSeed(
            values=errors,
            per=zero,
            errors=errors,
            zero_errors=zero,
            curves={name: (PAIRS, means.clamp_min(torch.finfo(means.dtype).eps ** 2))},
        )

    return over_seeds(run, one)


@claim(
    "A matrix memory holds as many pairs as a key has entries, and no more.",
    threshold=1e-10,
    direction="below",
    why="squares of rounding errors in double precision; at twice as many pairs half of the values' square is lost",
    axes=Axes(x="pairs", y="squared error of the best memory, relative", log_x=True, log_y=True, rule=True),
)
def matrix_capacity(run: Run) -> Samples:
    """Eight pairs with keys of eight entries."""
    return held(run, by_least_squares(lambda k: k), "keys, read at eight pairs", count=DIM)


@matrix_capacity.reference("a memory with room to spare, over quadratic features")
def matrix_capacity_spare(run: Run) -> Samples:
    """Forty-five features for eight pairs."""
    return held(run, by_least_squares(monomials), "quadratic features", count=DIM)


@matrix_capacity.control("the same memory, asked for twice as many pairs")
def matrix_capacity_exceeded(run: Run) -> Samples:
    """Sixteen pairs."""
    return held(run, by_least_squares(lambda k: k), "keys, read at sixteen pairs", count=2 * DIM)


@claim(
    "Over all monomials up to the square, the memory holds as many pairs as there are monomials: 45 for keys of 8.",
    threshold=1e-10,
    direction="below",
    why="squares of rounding errors in double precision, times the condition of 45 features of random keys",
    axes=Axes(x="pairs", y="squared error of the best memory, relative", log_x=True, log_y=True, rule=True),
    leaves_out="degrees above two, which the mixers here do not have",
)
def polynomial_capacity(run: Run) -> Samples:
    """Forty-five pairs."""
    return held(run, by_least_squares(monomials), "quadratic features", count=FEATURES)


@polynomial_capacity.reference("interpolation with the kernel of those features")
def polynomial_capacity_kernel(run: Run) -> Samples:
    """1 + z + z^2 / 2 of the keys' products."""
    return held(run, by_kernel, "its kernel", count=FEATURES)


@polynomial_capacity.control("a memory of the keys themselves, for the same pairs")
def polynomial_capacity_keys(run: Run) -> Samples:
    """The best matrix without features."""
    return held(run, by_least_squares(lambda k: k), "keys", count=FEATURES)


TIME, WINDOW, SIZE = 64, 8, 16
RATES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


def alike(run: Run, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Unit keys with cosines of about one half, and values that have nothing to do with each other."""
    episodes = run.setting("episodes", smoke=32, cpu=256)
    generator = run.generator(seed, purpose)
    k = normal(episodes, TIME, SIZE, generator=generator) + normal(episodes, 1, SIZE, generator=generator)
    return normalize(k, dim=-1), normal(episodes, TIME, SIZE, generator=generator)


def after_a_pass(k: Tensor, v: Tensor, *, window: int, rate: float) -> Tensor:
    """The memory after one pass of the rule whose every step covers the last `window` tokens."""
    keys, values = k.unsqueeze(2), v.unsqueeze(2)
    one = torch.ones_like(keys[..., 0])
    state = omega(keys, keys, values, rate * one, one, 0 * one, window=window, chunk=1)[1]
    return state.memory[0].squeeze(1)


def misremembered(k: Tensor, v: Tensor, memory: Tensor) -> Tensor:
    """The squared error on the last eight pairs, [episodes]."""
    return (k[:, -WINDOW:] @ memory - v[:, -WINDOW:]).square().mean((1, 2))


def best_of(found: list[Tensor]) -> int:
    """The index of the rate with the least mean error; one that diverged is never chosen."""
    return int(torch.stack([error.mean() for error in found]).nan_to_num(math.inf, math.inf).argmin())


def window_of(run: Run, window: int | None, name: str) -> Samples:
    """The error on the last eight pairs over that of the delta rule, each at its best rate; None: least squares."""

    def one(seed: int) -> OneSeed:
        tuning, (k, v) = alike(run, seed, "tune"), alike(run, seed, "evaluate")

        def measured(size: int) -> tuple[Tensor, Tensor]:
            tried = [misremembered(*tuning, after_a_pass(*tuning, window=size, rate=rate)) for rate in RATES]
            rate = RATES[best_of(tried)]
            curve = torch.stack([error.mean().nan_to_num(math.inf, math.inf).clamp(max=1.5) for error in tried])
            return misremembered(k, v, after_a_pass(k, v, window=size, rate=rate)), curve

        online, _ = measured(1)
        if window is None:
            memory = torch.linalg.pinv(k[:, -WINDOW:]) @ v[:, -WINDOW:]
            errors = misremembered(k, v, memory)
            curves = {}
        else:
            errors, curve = measured(window)
            curves = {name: (RATES, curve)}
        return OneSeed(
            values=errors,
            per=online,
            errors=errors,
            zero_errors=v[:, -WINDOW:].square().mean((1, 2)),
            curves=curves,
        )

    return over_seeds(run, one)


@claim(
    "A memory that steps on the last tokens together recalls them better than one that steps on the last alone.",
    threshold=0.95,
    direction="below",
    why="the paper names no size, so that a twentieth less of the error counts; the delta rule in its place gives one",
    axes=Axes(x="rate of the inner step", y="squared error on the last eight pairs, at most 1.5", log_x=True),
)
def omega_window(run: Run) -> Samples:
    """A window of eight, over 64 pairs whose keys are alike."""
    return window_of(run, WINDOW, "window of eight")


@omega_window.reference("least squares on the last eight pairs")
def omega_window_solved(run: Run) -> Samples:
    """What endless steps on the window would come to."""
    return window_of(run, None, "least squares")


@omega_window.control("a window of one, which is the delta rule")
def omega_window_online(run: Run) -> Samples:
    """Steps on the last token alone, at their own best rate."""
    return window_of(run, 1, "window of one")


STEPS = 16
MUON_RATES = (0.03, 0.06, 0.12, 0.25, 0.5)
PLAIN_RATES = (0.25, 0.5, 1.0, 1.5, 1.9)


def uneven(run: Run, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Second moments of keys with eigenvalues from 1 to 1/1000 in random directions, and maps to be memorised."""
    episodes = run.setting("episodes", smoke=32, cpu=256)
    generator = run.generator(seed, purpose)
    directions = torch.linalg.qr(normal(episodes, SIZE, SIZE, generator=generator))[0]
    scales = torch.logspace(0, -3, SIZE, dtype=torch.float64)
    return directions @ (scales.unsqueeze(1) * directions.mT), normal(episodes, SIZE, SIZE, generator=generator) / 4


def steps(second: Tensor, wanted: Tensor, *, rate: float, muon: bool) -> Tensor:
    """The squared distance to the map after every inner step, [steps, episodes]."""
    memory, found = torch.zeros_like(wanted), []
    for _ in range(STEPS):
        gradient = second @ (wanted - memory)
        memory = memory + rate * (orthogonalised(gradient) if muon else gradient)
        found.append((memory - wanted).square().mean((1, 2)))
    return torch.stack(found)


def inner(run: Run, *, muon: bool | None, name: str) -> Samples:
    """The error over all directions alike after sixteen inner steps at the best rate; None: least squares."""

    def one(seed: int) -> OneSeed:
        tuning, (second, wanted) = uneven(run, seed, "tune"), uneven(run, seed, "evaluate")
        zero = wanted.square().mean((1, 2))
        if muon is None:
            solved = torch.linalg.solve(second, second @ wanted)
            errors = (solved - wanted).square().mean((1, 2)).unsqueeze(0)
        else:
            rates = MUON_RATES if muon else PLAIN_RATES
            rate = rates[best_of([steps(*tuning, rate=rate, muon=muon)[-1] for rate in rates])]
            errors = steps(second, wanted, rate=rate, muon=muon)
        curves = {} if muon is None else {name: (range(1, STEPS + 1), errors.mean(1) / zero.mean())}
        return OneSeed(values=errors[-1], per=zero, errors=errors[-1], zero_errors=zero, curves=curves)

    return over_seeds(run, one)


@claim(
    "Steps made orthogonal, as Muon does, memorise what few keys point at; plain steps leave it.",
    threshold=0.25,
    direction="below",
    why="a quarter of the map's square; eigenvalues from 1 to 1/1000 leave plain steps about half of it after sixteen",
    axes=Axes(x="inner steps", y="squared error over all directions, relative", log_y=True, rule=True),
    leaves_out="momentum, which both would profit from",
)
def muon(run: Run) -> Samples:
    """Sixteen steps, each orthogonalised by five Newton-Schulz iterations."""
    return inner(run, muon=True, name="orthogonalised steps")


@muon.reference("the map itself, by solving for it")
def muon_solved(run: Run) -> Samples:
    """What a second-order method finds."""
    return inner(run, muon=None, name="solved")


@muon.control("as many plain gradient steps at their best rate")
def muon_plain(run: Run) -> Samples:
    """The same gradients as they are."""
    return inner(run, muon=False, name="plain steps")


DEGREES = (1, 2, 3, 4, 6, 8)


def attending(run: Run, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Unit queries and keys, values around one: [episodes, time, dim] each."""
    episodes = run.setting("episodes", smoke=32, cpu=256)
    q, k, v = normal(3, episodes, TIME, DIM, generator=run.generator(seed, "tokens"))
    return normalize(q, dim=-1), normalize(k, dim=-1), 1 + v


def average(weights: Tensor, v: Tensor) -> Tensor:
    """Averages of every prefix under weights that need not be positive."""
    weights = weights.tril()
    return (weights @ v) / weights.sum(-1, keepdim=True)


def series(run: Run, *, coefficients: Callable[[int], float] | None, name: str) -> Samples:
    """How far a memory over monomials up to degree 8 is from softmax attention; None: all degrees."""

    def one(seed: int) -> OneSeed:
        q, k, v = attending(run, seed=seed)
        products = q @ k.mT
        wanted = average(products.exp(), v)
        parts = []
        for degree in DEGREES:
            if coefficients is None:
                weights = (products - products.amax(-1, keepdim=True)).exp()
            else:
                weights = torch.stack([coefficients(i) * products**i for i in range(degree + 1)]).sum(0)
            parts.append(apart(average(weights, v), wanted, name))
        curve = torch.stack([part.values.mean() for part in parts]).clamp_min(torch.finfo(v.dtype).eps)
        last = parts[-1]
        return OneSeed(
            values=last.values, errors=last.errors, zero_errors=last.zero_errors, curves={name: (DEGREES, curve)}
        )

    return over_seeds(run, one)


@claim(
    "With monomials of ever higher degree, weighted as in the exponential, such a memory becomes softmax attention.",
    threshold=1e-5,
    direction="below",
    why="for |q.k| <= 1 what the series leaves out beyond degree 8 is at most e / 9! = 7e-6",
    axes=Axes(x="highest degree", y="difference from softmax attention, relative", log_y=True, rule=True),
)
def towards_softmax(run: Run) -> Samples:
    """Degree 8, by products of keys in place of features."""
    return series(run, coefficients=lambda i: 1 / math.factorial(i), name="weights 1 / i!")


@towards_softmax.reference("the whole series")
def towards_softmax_all(run: Run) -> Samples:
    """The exponential, less the largest exponent."""
    return series(run, coefficients=None, name="all degrees")


@towards_softmax.control("the same monomials with equal weights")
def towards_softmax_flat(run: Run) -> Samples:
    """Other coefficients."""
    return series(run, coefficients=lambda _: 1.0, name="equal weights")


def small_rates(run: Run, *, rate: float | None, name: str) -> Samples:
    """How far DoT's outputs over the rate are from attention's sums of e(q, k) v; None: the recurrence by hand."""

    def one(seed: int) -> OneSeed:
        q, k, v = attending(run, seed=seed)
        wanted = (q @ k.mT - 1).exp().tril() @ v
        if rate is None:
            within = (1e-7 * (k @ k.mT - 1).exp()).tril(-1)
            written = torch.linalg.solve_triangular(within, 1e-7 * v, upper=False, unitriangular=True)
            return apart((q @ k.mT - 1).exp().tril() @ written / 1e-7, wanted, name)
        read, written, values = (x.unsqueeze(2) for x in (q, k, v))
        beta = torch.full_like(read[..., 0], rate)
        said = kernel_delta_rule(read, written, values, beta, sharpness=1.0)[0].squeeze(2)
        return apart(said / rate, wanted, name)

    return over_seeds(run, one)


@claim(
    "The deep transformers contain attention: at small rates their corrections vanish and its sums are left.",
    threshold=1e-4,
    direction="below",
    why="a rate of 1e-7 leaves corrections of 64 x 1e-7 of a value at most; at rate one they are no small matter",
    axes=Axes(x="position", y="difference from attention's sums, relative", log_y=True, rule=True),
)
def contain_attention(run: Run) -> Samples:
    """DoT at a rate of 1e-7."""
    return small_rates(run, rate=1e-7, name="rate 1e-7")


@contain_attention.reference("the corrections solved for as a triangular system")
def contain_attention_solved(run: Run) -> Samples:
    """Another way of writing the rule."""
    return small_rates(run, rate=None, name="triangular system")


@contain_attention.control(
    "the same rule at rate one: a mechanism of its own, so that the family is larger",
    incompetent="it says what remains of values, which are sums no more",
)
def contain_attention_full(run: Run) -> Samples:
    """DoT as it is used."""
    return small_rates(run, rate=1.0, name="rate 1")
