r"""An attention free transformer (Zhai et al. 2021): position biases and keys weigh values, a gate of the query reads.

    y_t = sigmoid(q_t) * sum_{s <= t} exp(k_s + w_ts) v_s / sum_{s <= t} exp(k_s + w_ts),     channel by channel

    AFT-full: w_ts for every pair;  AFT-local: w_ts = 0 for t - s >= window;  AFT-conv: w_ts depends on t - s and the
    head alone;  AFT-simple: w = 0

Every channel is softmax attention with a score that no query takes part in; it is written out here as the table of
those weights, and the mixers are held to it.
Shapes: q, k, v [sequences, time, heads, dim], biases w [time, time, heads].
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contexture.claims.outputs import apart
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.mixers.aft import AFTFull, AFTSimple
from contexture.mixers.aft_local import AFTConv, AFTLocal
from contexture.mixers.sliding_window import SlidingWindow
from contexture.mixers.softmax import SoftmaxAttention
from contexture.models.state import state_bytes
from contexture.ops.biased_average import biased_average
from contexture.ops.dispatch import use
from contexture.ops.linear_attention import linear_attention
from contexture.ops.quadratic_attention import quadratic_attention
from contexture.ops.softmax_attention import softmax_attention
from contexture.ops.windowed_average import windowed_average
from contexture.randomness import generator
from contexture.tasks.draws import normal

PAPER = Paper(
    key="aft",
    title="An Attention Free Transformer",
    authors="Shuangfei Zhai, Walter Talbott, Nitish Srivastava, Chen Huang, Hanlin Goh, Ruixiang Zhang, Josh Susskind",
    year=2021,
    arxiv="2105.14103",
    uses=("aft-full", "aft-local", "aft-conv", "aft-simple", "softmax", "sliding-window"),
    left_out={
        "it competes on pixels and bytes one after another, and on the recognition of images": "needs CIFAR-10, enwik8 "
        "and ImageNet, and deep models trained on accelerators",
    },
)

TIME, HEADS, DIM, WINDOW = 64, 2, 8, 8


def draw(run: Run, seed: int) -> tuple[Tensor, Tensor]:
    """Keys, and values around one, so that averages do not vanish."""
    sequences = run.setting("sequences", smoke=8, cpu=128)
    k, v = normal(2, sequences, TIME, HEADS, DIM, generator=run.generator(seed, "tokens"))
    return k, 1 + v


def weighed(k: Tensor, v: Tensor, bias: Tensor, *, window: int | None = None) -> Tensor:
    """The table of weights, channel by channel; with a window, what is further back is hidden."""
    steps = torch.arange(k.shape[1])
    lag = steps.unsqueeze(1) - steps
    hidden = (lag < 0) | (lag >= (k.shape[1] if window is None else window))
    logits = k.unsqueeze(1) + bias[None, :, :, :, None]
    weights = logits.masked_fill(hidden[None, :, :, None, None], -torch.inf).softmax(2)
    return torch.einsum("btshd,bshd->bthd", weights, v)


def biases(run: Run, seed: int, *, kind: str) -> tuple[Tensor, Tensor]:
    """What the op takes, and the table [time, time, heads] that it stands for."""
    generator = run.generator(seed, "biases", kind)
    if kind == "full":
        left, right = normal(2, 1, TIME, 4, generator=generator)
        return torch.stack((left, right)), (left[0] @ right[0].mT).unsqueeze(-1).expand(-1, -1, HEADS)
    rows = TIME if kind == "local" else 1
    near = 2 * normal(1, rows, HEADS if kind == "conv" else 1, WINDOW, generator=generator)
    steps = torch.arange(TIME)
    lag = steps.unsqueeze(1) - steps
    picked = near[0].expand(TIME, HEADS, WINDOW).unsqueeze(1).expand(-1, TIME, -1, -1)
    table = picked.gather(3, lag.clamp(0, WINDOW - 1)[:, :, None, None].expand(-1, -1, HEADS, 1)).squeeze(3)
    return near, table.masked_fill(((lag < 0) | (lag >= WINDOW)).unsqueeze(2), 0.0)


Way = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def against_table(run: Run, kind: str, way: Way, name: str) -> Samples:
    """How far `way`(k, v, what the op takes, the table) is from the table's averages."""

    def one(seed: int) -> OneSeed:
        k, v = draw(run, seed)
        given, table = biases(run, seed, kind=kind)
        return apart(way(k, v, given, table), weighed(k, v, table), name)

    return over_seeds(run, one)


ROUNDING = "double precision leaves about 1e-15; another weighting is off by a tenth and more"


@claim(
    "Keys, biases of positions and a gate make a layer: every channel is attention whose scores need no query.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=Axes(x="position", y="difference from the table of weights, relative", log_y=True, rule=True),
)
def no_products(run: Run) -> Samples:
    """The op of AFT-full against attention written out with one table for each channel."""
    return against_table(run, "full", lambda k, v, given, _: biased_average(k, v, *given)[0], "AFT-full")


@no_products.reference("the op's definition, one query after another")
def no_products_reference(run: Run) -> Samples:
    """A loop over time."""

    def loop(k: Tensor, v: Tensor, given: Tensor, _: Tensor) -> Tensor:
        with use("reference"):
            return biased_average(k, v, *given)[0]

    return against_table(run, "full", loop, "one query after another")


@no_products.control("keys alone, without the biases of positions")
def no_products_keys(run: Run) -> Samples:
    """AFT-simple on the same tokens."""
    return against_table(run, "full", lambda k, v, _, table: weighed(k, v, 0 * table), "without biases")


@claim(
    "With biases near by alone the layer is AFT-full with zeros further back: nothing that is far is left out.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=Axes(x="position", y="difference from the table of weights, relative", log_y=True, rule=True),
)
def local(run: Run) -> Samples:
    """The op of AFT-local with a window of 8 in 64 tokens."""
    return against_table(run, "local", lambda k, v, given, _: windowed_average(k, v, given)[0], "AFT-local")


@local.reference("the op's definition, one token after another")
def local_reference(run: Run) -> Samples:
    """A loop over time."""

    def loop(k: Tensor, v: Tensor, given: Tensor, _: Tensor) -> Tensor:
        with use("reference"):
            return windowed_average(k, v, given)[0]

    return against_table(run, "local", loop, "one token after another")


@local.control("the same biases over a window that hides what is further back")
def local_hidden(run: Run) -> Samples:
    """Local attention without what is global."""
    return against_table(run, "local", lambda k, v, _, table: weighed(k, v, table, window=WINDOW), "window alone")


def shifted(run: Run, kind: str, name: str) -> Samples:
    """How much outputs change, relative, when all tokens move eight places on behind tokens of no weight."""
    moved = 8

    def one(seed: int) -> OneSeed:
        k, v = draw(run, seed)
        given, table = biases(run, seed, kind=kind)
        before = torch.full_like(k[:, :moved], -1e30)
        later = torch.cat((before, k[:, :-moved]), 1), torch.cat((torch.zeros_like(before), v[:, :-moved]), 1)
        if kind == "simple":
            first, second = weighed(k, v, 0 * table), weighed(*later, 0 * table)
        else:
            first, second = windowed_average(k, v, given)[0], windowed_average(*later, given)[0]
        return apart(second[:, moved:], first[:, :-moved], name)

    return over_seeds(run, one)


@claim(
    "With one filter of biases for all positions the layer does not mind where in the sequence its tokens stand.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=Axes(x="position", y="change when tokens move on, relative", log_y=True, rule=True),
)
def weights_shared(run: Run) -> Samples:
    """AFT-conv before and after a shift by eight places."""
    return shifted(run, "conv", "AFT-conv")


@weights_shared.reference("no biases at all, which cannot tell positions")
def weights_shared_simple(run: Run) -> Samples:
    """AFT-simple."""
    return shifted(run, "simple", "AFT-simple")


@weights_shared.control("biases of every position's own")
def weights_not_shared(run: Run) -> Samples:
    """AFT-local with as wide a window."""
    return shifted(run, "local", "AFT-local")


WIDTH = 32


def reach(run: Run, mixers: tuple[tuple[str, Callable[[], nn.Module]], ...]) -> Samples:
    """How much another first token changes one layer's last output of 64, relative; the least of several layers."""
    sequences = run.setting("sequences", smoke=8, cpu=128)

    def one(seed: int) -> OneSeed:
        x = normal(sequences, TIME, WIDTH, generator=run.generator(seed, "tokens"))
        other = torch.cat((normal(sequences, 1, WIDTH, generator=run.generator(seed, "first")), x[:, 1:]), 1)
        found, curves = [], {}
        for name, make in mixers:
            mixer = make().double()
            with torch.no_grad():
                out = mixer(x)
                change = (mixer(other) - out).square().sum(2)
            share = (change / out.square().sum(2).mean(0)).sqrt()
            found.append(share[:, -1])
            curves[name] = (range(1, TIME + 1), share.mean(0).clamp_min(torch.finfo(share.dtype).eps))
        return OneSeed(values=torch.stack(found).amin(0), curves=curves)

    return over_seeds(run, one)


def built(kind: Callable[..., nn.Module], **settings: Any) -> Callable[[], nn.Module]:
    """A layer with weights of its own, always the same."""
    return lambda: kind(WIDTH, num_heads=4, generator=generator("aft", "reach"), **settings)


@claim(
    "Local and convolutional biases keep the layer global: the first token still reaches the last.",
    threshold=1e-3,
    direction="above",
    why="one of 64 tokens of like weight changes an average by a few per cents; without a connection nothing changes",
    axes=Axes(x="position", y="change from another first token, relative", log_y=True, rule=True),
)
def global_reach(run: Run) -> Samples:
    """One layer each of AFT-local and AFT-conv with windows of 8."""
    local_biases = built(AFTLocal, window=WINDOW, max_length=TIME)
    return reach(run, (("AFT-local", local_biases), ("AFT-conv", built(AFTConv, window=WINDOW))))


@global_reach.reference("softmax attention to all tokens")
def global_reach_softmax(run: Run) -> Samples:
    """A layer that sees everything."""
    return reach(run, (("softmax attention", built(SoftmaxAttention)),))


@global_reach.control(
    "softmax attention to a window of as many tokens", incompetent="that nothing arrives is what is measured"
)
def global_reach_window(run: Run) -> Samples:
    """A layer that is local alone."""
    return reach(run, (("sliding window", built(SlidingWindow, window=WINDOW)),))


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The size of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.size = max([self.size, *(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))])
        return out


LENGTHS = (64, 128, 256, 512)


def memory(run: Run, learner: str, name: str, *, over: str) -> Samples:
    """The exponent with which the largest tensor grows with time, or with the features of a head."""
    sizes = LENGTHS if over == "time" else (8, 16, 32, 64)

    def one(seed: int) -> OneSeed:
        generator = run.generator(seed, "memory")
        found = []
        for size in sizes:
            length, dim = (size, 16) if over == "time" else (256, size)
            q, k, v = torch.randn(3, 1, length, 1, dim, generator=generator)
            with _Largest() as counter:
                if learner == "aft":
                    windowed_average(k, v, torch.zeros(1, 1, 1, WINDOW))
                elif learner == "linear":
                    linear_attention(q, k, v)
                elif learner == "pairs":
                    quadratic_attention(q, k, v)
                else:
                    with use("products", op="softmax-attention"):
                        softmax_attention(q, k, v)
            found.append(counter.size)
        grown = torch.tensor(found, dtype=torch.float64)
        exponent = (grown[-1:] / grown[0]).log() / math.log(sizes[-1] / sizes[0])
        return OneSeed(values=exponent, curves={name: (sizes, grown)})

    return over_seeds(run, one)


@claim(
    "Memory grows in proportion to the length of the context.",
    threshold=1.1,
    direction="below",
    why="the numbers of the largest tensor are counted: an exponent of 1 is linear, of 2 quadratic",
    axes=Axes(x="tokens", y="numbers in the largest tensor", log_x=True, log_y=True),
    leaves_out="AFT-full, whose fast form here keeps one table of the biases of all pairs of positions",
)
def linear_in_time(run: Run) -> Samples:
    """AFT-local and AFT-conv's op."""
    return memory(run, "aft", "AFT with a window", over="time")


@linear_in_time.reference("linear attention in chunks")
def linear_in_time_linear(run: Run) -> Samples:
    """A mixer of linear memory."""
    return memory(run, "linear", "linear attention", over="time")


@linear_in_time.control(
    "softmax attention with its table of weights", incompetent="memory is counted, nothing is predicted"
)
def linear_in_time_softmax(run: Run) -> Samples:
    """Every token against every other."""
    return memory(run, "softmax", "softmax attention", over="time")


@claim(
    "Memory grows in proportion to the size of features, too.",
    threshold=1.1,
    direction="below",
    why="the numbers of the largest tensor are counted: an exponent of 1 is linear, of 2 quadratic",
    axes=Axes(x="features of a head", y="numbers in the largest tensor", log_x=True, log_y=True),
)
def linear_in_features(run: Run) -> Samples:
    """AFT-local and AFT-conv's op over 256 tokens."""
    return memory(run, "aft", "AFT with a window", over="features")


@linear_in_features.reference("softmax attention, whose table of weights is as large whatever the features")
def linear_in_features_softmax(run: Run) -> Samples:
    """No growth at all, until queries and keys outgrow the table."""
    return memory(run, "softmax", "softmax attention", over="features")


@linear_in_features.control(
    "another mixer of linear time, whose features are products of pairs", incompetent="memory is counted alone"
)
def linear_in_features_pairs(run: Run) -> Samples:
    """Based's attention."""
    return memory(run, "pairs", "products of pairs", over="features")


def kept(run: Run, kind: Callable[..., nn.Module], name: str, **settings: Any) -> Samples:
    """Bytes of state after 512 tokens over those after 64."""

    def one(seed: int) -> OneSeed:
        mixer = built(kind, **settings)()
        x = torch.randn(1, LENGTHS[-1], WIDTH, generator=run.generator(seed, "kept"))
        found = []
        with torch.no_grad():
            for length in LENGTHS:
                state = mixer.init_state(1, device="cpu", dtype=torch.float32)  # type: ignore[operator]
                found.append(state_bytes(mixer.stream(x[:, :length], state)[1]))  # type: ignore[operator]
        grown = torch.tensor(found, dtype=torch.float64)
        return OneSeed(values=grown[-1:] / grown[0], curves={name: (LENGTHS, grown)})

    return over_seeds(run, one)


@claim(
    "It is efficient one token at a time as well: a window and an average are all that is kept.",
    threshold=1.01,
    direction="below",
    why="bytes of the state are counted: the same whatever the length, or eight times as many",
    axes=Axes(x="tokens seen", y="bytes of state", log_x=True, log_y=True),
    leaves_out="seconds: bytes are counted in their place",
)
def constant_state(run: Run) -> Samples:
    """AFT-conv after 512 tokens."""
    return kept(run, AFTConv, "AFT-conv", window=WINDOW)


@constant_state.reference("AFT-simple, which keeps an average alone")
def constant_state_simple(run: Run) -> Samples:
    """The least that can be kept."""
    return kept(run, AFTSimple, "AFT-simple")


@constant_state.control(
    "AFT-full, whose biases for all pairs of positions need all keys",
    incompetent="bytes are counted, nothing predicted",
)
def constant_state_full(run: Run) -> Samples:
    """The layer without locality."""
    return kept(run, AFTFull, "AFT-full", max_length=LENGTHS[-1])
