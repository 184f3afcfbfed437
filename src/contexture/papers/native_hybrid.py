r"""Native hybrid attention for efficient sequence modeling (Du et al. 2025): slots and a window under one softmax.

    slots      K_t = e^f_t K_{t-1} + (1 - e^f_t) k_t',  V_t likewise with v_t       a linear recurrent network
    output     softmax over slots and the last `window` tokens at once of their scores, times V_t and the tokens' v

Written out here slot by slot and token by token, and held to the mixer's op. With o_s, o_w the outputs of a softmax
over slots or over tokens alone, one softmax is o = g o_s + (1 - g) o_w, where the share g is that of the slots in the
sum of exponentials: it comes from the scores, and needs no parameter.
Shapes: q, k, v [sequences, time, heads, dim], f [sequences, time, heads, slots].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from contexture.claims.outputs import apart
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.recall import recalled, train_recall
from contexture.claims.run import Run
from contexture.mixers.native_hybrid import NativeHybridAttention
from contexture.mixers.softmax import SoftmaxAttention
from contexture.models.state import state_bytes
from contexture.ops.dispatch import use
from contexture.ops.native_hybrid_attention import native_hybrid_attention
from contexture.ops.softmax_attention import softmax_attention
from contexture.randomness import generator
from contexture.tasks.draws import normal, uniform
from contexture.tasks.mqar import MQAR

PAPER = Paper(
    key="native-hybrid",
    title="Native Hybrid Attention for Efficient Sequence Modeling",
    authors="Jusen Du, Jiaxi Hu, Tao Zhang, Weigao Sun, Yu Cheng",
    year=2025,
    arxiv="2510.07019",
    uses=("native-hybrid", "softmax", "sliding-window", "mqar"),
    left_out={
        "it is ahead of transformers and other hybrids on recall-intensive and commonsense tasks of language": "needs "
        "language models of 340 million parameters and more, trained on billions of tokens",
        "pretrained language models can be turned into it and stay competitive": "needs a pretrained language model "
        "and the tokens to train it further",
    },
)

TIME, HEADS, DIM, SLOTS, WINDOW = 64, 2, 8, 4, 8
SCALE = DIM**-0.5


class Drawn(NamedTuple):
    """Queries, keys, values, and the logarithms of what slots keep."""

    q: Tensor
    k: Tensor
    v: Tensor
    decay: Tensor


def draw(run: Run, seed: int) -> Drawn:
    """Random tokens with values around one; slots keep between 70 and 100 % a token."""
    sequences = run.setting("sequences", smoke=8, cpu=128)
    generator = run.generator(seed, "tokens")
    q, k, v = normal(3, sequences, TIME, HEADS, DIM, generator=generator)
    decay = uniform(sequences, TIME, HEADS, SLOTS, low=0.7, generator=generator).log()
    return Drawn(q, k, 1 + v, decay)


def scores_of_slots(x: Drawn) -> tuple[Tensor, Tensor]:
    """The slots' scores [sequences, time, heads, slots] and values [.., slots, dim], token after token."""
    keys = torch.zeros(*x.decay.shape[:1], HEADS, SLOTS, DIM, dtype=x.k.dtype)
    values, scores, held = keys, [], []
    for q, k, v, decay in zip(*(part.unbind(1) for part in x), strict=True):
        keep = decay.exp().unsqueeze(-1)
        keys = keep * keys + (1 - keep) * k.unsqueeze(-2)
        values = keep * values + (1 - keep) * v.unsqueeze(-2)
        scores.append(SCALE * (keys @ q.unsqueeze(-1)).squeeze(-1))
        held.append(values)
    return torch.stack(scores, 1), torch.stack(held, 1)


def scores_of_tokens(x: Drawn, window: int) -> Tensor:
    """The tokens' scores, [sequences, time, heads, time], hidden outside the window."""
    steps = torch.arange(TIME)
    lag = (steps.unsqueeze(1) - steps).unsqueeze(1)
    scores: Tensor = SCALE * torch.einsum("bthd,bshd->bths", x.q, x.k)
    return scores.masked_fill((lag < 0) | (lag >= window), -torch.inf)


def mixed(x: Drawn, *, window: int, shares: str = "scores") -> Tensor:
    """Attention to slots and window: `shares` of the two by their scores, or half and half."""
    of_slots, values = scores_of_slots(x)
    if window == 0:
        return torch.einsum("bthm,bthme->bthe", of_slots.softmax(-1), values)
    of_tokens = scores_of_tokens(x, window)
    slots = torch.einsum("bthm,bthme->bthe", of_slots.softmax(-1), values)
    tokens = torch.einsum("bths,bshe->bthe", of_tokens.softmax(-1), x.v)
    share = torch.sigmoid(of_slots.logsumexp(-1) - of_tokens.logsumexp(-1)).unsqueeze(-1)
    if shares == "halves":
        share = torch.full_like(share, 0.5)
    return share * slots + (1 - share) * tokens


def by_op(x: Drawn, *, window: int, slots: int = SLOTS, path: str = "chunked") -> Tensor:
    """The mixer's op, with the same queries and keys for slots and window."""
    with use(path):
        return native_hybrid_attention(x.q, x.k, x.v, x.decay[..., :slots], x.q, x.k, window=window)[0]


def held_to(run: Run, wanted: Callable[[Drawn], Tensor], said: Callable[[Drawn], Tensor], name: str) -> Samples:
    """The relative difference of each sequence's outputs."""

    def one(seed: int) -> OneSeed:
        x = draw(run, seed)
        return apart(said(x), wanted(x), name)

    return over_seeds(run, one)


ROUNDING = "double precision leaves about 1e-15 over 64 tokens; another weighting is off by a tenth and more"
FIGURE = Axes(x="position", y="difference, relative", log_y=True, rule=True)


def both(x: Drawn) -> Tensor:
    """What one softmax comes to, from two and the share of each."""
    return mixed(x, window=WINDOW)


@claim(
    "One softmax over slots and window weighs the two token by token and head by head, without a parameter for it.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=FIGURE,
)
def one_softmax(run: Run) -> Samples:
    """The mixer's op against two softmaxes, merged by the sums of their exponentials."""
    return held_to(run, both, lambda x: by_op(x, window=WINDOW), "one softmax")


@one_softmax.reference("the op's definition, one token after another")
def one_softmax_reference(run: Run) -> Samples:
    """A loop over time."""
    return held_to(run, both, lambda x: by_op(x, window=WINDOW, path="reference"), "one token after another")


@one_softmax.control("the same two softmaxes, averaged half and half")
def one_softmax_halves(run: Run) -> Samples:
    """Shares that do not depend on what was asked."""
    return held_to(run, both, lambda x: mixed(x, window=WINDOW, shares="halves"), "half and half")


def attended(x: Drawn) -> Tensor:
    """Softmax attention to all tokens."""
    return softmax_attention(x.q, x.k, x.v)[0]


@claim(
    "With a window over everything and no slots the layer is full softmax attention.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=FIGURE,
)
def full_end(run: Run) -> Samples:
    """One end of the window's size."""
    return held_to(run, attended, lambda x: by_op(x, window=TIME, slots=0), "window of 64")


@full_end.reference("the table of weights")
def full_end_table(run: Run) -> Samples:
    """Attention written out."""

    def table(x: Drawn) -> Tensor:
        return torch.einsum("bths,bshe->bthe", scores_of_tokens(x, TIME).softmax(-1), x.v)

    return held_to(run, attended, table, "table of weights")


@full_end.control("a window of eight tokens")
def full_end_window(run: Run) -> Samples:
    """The same layer with a smaller window."""
    return held_to(run, attended, lambda x: by_op(x, window=WINDOW, slots=0), "window of 8")


def recurrent(x: Drawn) -> Tensor:
    """A linear recurrent network with slots for its state, read by a softmax."""
    return mixed(x, window=0)


@claim(
    "Without a window the layer is a linear recurrent network whose slots are read.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=FIGURE,
)
def linear_end(run: Run) -> Samples:
    """The other end of the window's size."""
    return held_to(run, recurrent, lambda x: by_op(x, window=0), "no window")


@linear_end.reference("the op's definition, one token after another")
def linear_end_reference(run: Run) -> Samples:
    """A loop over time."""
    return held_to(run, recurrent, lambda x: by_op(x, window=0, path="reference"), "one token after another")


@linear_end.control("the same slots beside a window of eight tokens")
def linear_end_window(run: Run) -> Samples:
    """A layer with both."""
    return held_to(run, recurrent, lambda x: by_op(x, window=WINDOW), "window of 8")


WINDOWS = (1, 8, 32, 128, 512)
LENGTH = 512


def kept(run: Run, name: str, *, full: bool = False, chosen: int = 32) -> Samples:
    """Bytes kept after 512 tokens over those of softmax attention, by the window's size."""

    def bytes_of(mixer: Any, x: Tensor) -> int:
        with torch.no_grad():
            return state_bytes(mixer.stream(x, mixer.init_state(1, device="cpu", dtype=torch.float32))[1])

    def one(seed: int) -> OneSeed:
        drawn = torch.randn(1, LENGTH, 32, generator=run.generator(seed, "kept"))
        whole = bytes_of(SoftmaxAttention(32, num_heads=4, generator=generator("native-hybrid")), drawn)
        if full:
            shares = torch.ones(len(WINDOWS), dtype=torch.float64)
        else:
            sizes = [
                bytes_of(
                    NativeHybridAttention(32, num_heads=4, num_slots=8, window=w, generator=generator("native-hybrid")),
                    drawn,
                )
                for w in WINDOWS
            ]
            shares = torch.tensor(sizes, dtype=torch.float64) / whole
        place = WINDOWS.index(chosen)
        return OneSeed(values=shares[place : place + 1], curves={name: (WINDOWS, shares)})

    return over_seeds(run, one)


@claim(
    "The window's size alone sets the cost between the two ends: with one of 32 little is kept of 512 tokens.",
    threshold=0.25,
    direction="below",
    why="bytes of the state are counted: a sixteenth of the tokens, and slots as large as eight tokens more",
    axes=Axes(x="window", y="bytes of state over softmax attention's", log_x=True, log_y=True, rule=True),
    leaves_out="seconds: bytes are counted in their place",
)
def efficient(run: Run) -> Samples:
    """A window of 32."""
    return kept(run, "slots and window")


@efficient.reference("no window but the present token")
def efficient_slots(run: Run) -> Samples:
    """The linear end."""
    return kept(run, "slots and window", chosen=1)


@efficient.control("softmax attention keeps every token", incompetent="bytes are counted, nothing is predicted")
def efficient_full(run: Run) -> Samples:
    """The full end."""
    return kept(run, "softmax attention", full=True)


TASK = MQAR(vocabulary=32, length=32, num_pairs=4)
NARROW = 4


def trained(run: Run, settings: dict[str, Any], name: str) -> Samples:
    """Recall after 300 steps, behind a first layer that sees one token back."""
    chosen = {"sliding-window": {"window": 2}, "native-hybrid": settings}
    models = train_recall(run, "sliding-window+none native-hybrid+none", task=TASK, num_steps=300, settings=chosen)
    return recalled(run, models, TASK, name)


@claim(
    "Trained to recall, slots beside a short window bring back what has left the window.",
    threshold=0.5,
    direction="above",
    why="half of the values right, eight times chance; few values lie within four tokens of their query",
    kind="trained",
    spread="seeds",
    axes=Axes(x="tokens between key and query, at most", y="share of values recalled", rule=True),
    leaves_out="language, and more than 300 steps at one rate: the layers may not have learned to the end",
)
def recall(run: Run) -> Samples:
    """A window of 4 and 16 slots, four pairs in 32 tokens."""
    return trained(run, {"window": NARROW, "num_slots": 16}, "slots and window of 4")


@recall.reference("looking the key up")
def recall_lookup(run: Run) -> Samples:
    """The task's oracle."""
    return recalled(run, TASK.oracle(), TASK, "lookup")


@recall.control("the same layer without slots: sliding-window attention")
def recall_window(run: Run) -> Samples:
    """The window alone."""
    return trained(run, {"window": NARROW, "num_slots": 0}, "window of 4 alone")
