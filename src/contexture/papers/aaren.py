r"""Attention as an RNN (Feng et al. 2024): softmax attention as a recurrence, and as a scan of all prefixes.

    state (m, u, w):  m = max_s c_s,  u = sum_s exp(c_s - m),  w = sum_s exp(c_s - m) v_s;    attention = w / u
    (m, u, w) + (m', u', w') = (M, u exp(m - M) + u' exp(m' - M), w exp(m - M) + w' exp(m' - M)),  M = max(m, m')

One token after another this is a recurrent network whose last output is attention; the sum is associative, so that
log2(n) rounds of a prefix scan give attention to every prefix. Aaren's query does not depend on the token: one state
serves all later tokens. The recurrence, the scan and the table of weights are written out here, and the mixer's op is
held to them.
Shapes: scores c [sequences, time, heads], values v [sequences, time, heads, dim].
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from contexture.claims.outputs import apart
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.mixers.aaren import Aaren
from contexture.mixers.linear_attention import LinearAttention
from contexture.mixers.softmax import SoftmaxAttention
from contexture.models.state import state_bytes
from contexture.ops.flops import count_flops
from contexture.ops.prefix_softmax import prefix_softmax
from contexture.ops.softmax_parts import SoftmaxPart, join_parts
from contexture.randomness import generator
from contexture.tasks.draws import normal

PAPER = Paper(
    key="aaren",
    title="Attention as an RNN",
    authors="Leo Feng, Frederick Tung, Hossein Hajimirsadeghi, Mohamed Osama Ahmed, Yoshua Bengio, Greg Mori",
    year=2024,
    arxiv="2405.13956",
    uses=("aaren", "softmax", "linear-attention"),
    left_out={
        "layers of this kind do about as well as transformers on 38 data sets": "needs the data sets of reinforcement "
        "learning, event forecasting, time-series classification and forecasting that were averaged over",
    },
)

TIME, HEADS, DIM = 256, 2, 8
Mixed = Callable[[Tensor, Tensor], Tensor]


def draw(run: Run, seed: int) -> tuple[Tensor, Tensor]:
    """Scores of standard deviation 2, and values around one, so that nothing averages out to zero."""
    sequences = run.setting("sequences", smoke=8, cpu=256)
    generator = run.generator(seed, "tokens")
    scores = 2 * normal(sequences, TIME, HEADS, generator=generator)
    return scores, 1 + normal(sequences, TIME, HEADS, DIM, generator=generator)


def table(scores: Tensor, v: Tensor) -> Tensor:
    """Attention to every prefix from the whole table of weights, [sequences, heads, time, time]."""
    logits = scores.transpose(1, 2).unsqueeze(2).expand(-1, -1, scores.shape[1], -1)
    hidden = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
    weights = logits.masked_fill(hidden, -torch.inf).softmax(-1)
    return torch.einsum("bhts,bshe->bthe", weights, v)


def recurrence(scores: Tensor, v: Tensor, *, rescales: bool = True) -> Tensor:
    """Token after token; `rescales`: what was summed is brought to the new largest score."""
    largest, total, summed = scores[:, 0], torch.ones_like(scores[:, 0]), v[:, 0]
    out = [summed]
    for score, value in zip(scores.unbind(1)[1:], v.unbind(1)[1:], strict=True):
        top = torch.maximum(largest, score)
        kept = (largest - top).exp() if rescales else torch.ones_like(top)
        added = (score - top).exp()
        total = total * kept + added
        summed = summed * kept.unsqueeze(-1) + value * added.unsqueeze(-1)
        largest = top
        out.append(summed / total.unsqueeze(-1))
    return torch.stack(out, 1)


def scan(scores: Tensor, v: Tensor, *, weighs: bool = True) -> Tensor:
    """log2(time) rounds in which every position joins the part that ends where its own begins.

    Without weights two averages are joined to the point half-way between them.
    """
    part = SoftmaxPart(scores, torch.ones_like(scores), v)
    reach = 1
    while reach < scores.shape[1]:
        earlier = SoftmaxPart(*(x[:, :-reach] for x in part))
        later = SoftmaxPart(*(x[:, reach:] for x in part))
        if weighs:
            joined = join_parts(earlier, later)
        else:
            joined = SoftmaxPart(later.largest, later.total, (earlier.summed + later.summed) / 2)
        part = SoftmaxPart(*(torch.cat((x[:, :reach], y), 1) for x, y in zip(part, joined, strict=True)))
        reach *= 2
    return part.summed / part.total.unsqueeze(-1)


def chunked(scores: Tensor, v: Tensor) -> Tensor:
    """The mixer's own op."""
    return prefix_softmax(scores, v)[0]


def beside_the_table(run: Run, mixed: Mixed, name: str, *, last: bool = False) -> Samples:
    """How far a way of computing attention is from the table of weights, relative to what the table gives."""

    def one(seed: int) -> OneSeed:
        scores, v = draw(run, seed)
        said, wanted = mixed(scores, v), table(scores, v)
        whole = apart(said, wanted, name)
        if not last:
            return whole
        end = apart(said[:, -1:], wanted[:, -1:], name)
        return OneSeed(values=end.values, errors=end.errors, zero_errors=end.zero_errors, curves=whole.curves)

    return over_seeds(run, one)


ROUNDING = "double precision leaves about 1e-15 over 256 tokens; what is no attention is off by per cents at least"


@claim(
    "A recurrent network that keeps a maximum and two sums ends with softmax attention to all its tokens.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=Axes(x="tokens seen", y="difference from attention, relative", log_x=True, log_y=True, rule=True),
)
def many_to_one(run: Run) -> Samples:
    """The last output of 256 steps."""
    return beside_the_table(run, recurrence, "recurrence", last=True)


@many_to_one.reference("the op of the mixer, which works in chunks")
def many_to_one_chunked(run: Run) -> Samples:
    """The same sums in another order."""
    return beside_the_table(run, chunked, "in chunks", last=True)


@many_to_one.control("the same network, whose sums stay as they are when the maximum rises")
def many_to_one_unscaled(run: Run) -> Samples:
    """Without the factor that makes the state a softmax's."""
    return beside_the_table(run, partial(recurrence, rescales=False), "sums not rescaled", last=True)


@claim(
    "A parallel prefix scan of eight rounds gives attention to every one of 256 prefixes at once.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=Axes(x="position", y="difference from attention, relative", log_x=True, log_y=True, rule=True),
)
def many_to_many(run: Run) -> Samples:
    """All outputs of the scan."""
    return beside_the_table(run, scan, "scan")


@many_to_many.reference("the recurrence, one token after another")
def many_to_many_recurrent(run: Run) -> Samples:
    """The definition."""
    return beside_the_table(run, recurrence, "recurrence")


@many_to_many.control("a scan that joins averages without their weights")
def many_to_many_unweighted(run: Run) -> Samples:
    """The same rounds with another way of joining two parts."""
    return beside_the_table(run, partial(scan, weighs=False), "averages joined unweighted")


def training(run: Run, mixed: Mixed, name: str) -> Samples:
    """How far the gradient of the values' squares in all tokens is from the recurrence's."""

    def gradient(way: Mixed, scores: Tensor, v: Tensor) -> Tensor:
        inputs = [x.clone().requires_grad_(True) for x in (scores, v)]
        with torch.enable_grad():
            parts = torch.autograd.grad(way(*inputs).square().sum(), inputs)
        return torch.cat((parts[0].unsqueeze(-1), parts[1]), -1)

    def one(seed: int) -> OneSeed:
        scores, v = (x[: run.setting("sequences trained", smoke=4, cpu=32)] for x in draw(run, seed))
        return apart(gradient(mixed, scores, v), gradient(recurrence, scores, v), name)

    return over_seeds(run, one)


def cut_short(scores: Tensor, v: Tensor, *, length: int = 64) -> Tensor:
    """The recurrence whose gradient stops at every 64th token, as in truncated backpropagation through time."""
    out, state = [], None
    for c, x in zip(torch.split(scores, length, 1), torch.split(v, length, 1), strict=True):
        said, state = prefix_softmax(c, x, initial_state=state)
        state = SoftmaxPart(*(part.detach() for part in state))
        out.append(said)
    return torch.cat(out, 1)


@claim(
    "It can be trained in parallel: the scan's gradients are those of the recurrence, over all 256 tokens.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=Axes(x="position", y="difference of gradients, relative", log_x=True, log_y=True, rule=True),
)
def parallel_training(run: Run) -> Samples:
    """The gradient in every score and value."""
    return training(run, scan, "scan")


@parallel_training.reference("the op of the mixer, which works in chunks")
def parallel_training_chunked(run: Run) -> Samples:
    """Another parallel form."""
    return training(run, chunked, "in chunks")


@parallel_training.control("a recurrence trained as such networks are, with gradients that stop every 64 tokens")
def parallel_training_truncated(run: Run) -> Samples:
    """The same outputs, and gradients that leave out what is far."""
    return training(run, cut_short, "gradients cut every 64 tokens")


LENGTHS = (16, 64, 256, 1024)
WIDTH = 32


def growth(run: Run, kind: Callable[..., Any], name: str, *, what: str) -> Samples:
    """By what factor a layer's state, or its work for one more token, grows from 16 tokens to 1,024."""
    mixer = kind(WIDTH, num_heads=4, generator=generator("aaren", "growth"))

    def one(seed: int) -> OneSeed:
        tokens = torch.randn(1, LENGTHS[-1] + 1, WIDTH, generator=run.generator(seed, "long"))
        sizes = []
        with torch.no_grad():
            for length in LENGTHS:
                state = mixer.init_state(1, device="cpu", dtype=torch.float32)
                _, state = mixer.stream(tokens[:, :length], state)
                work = count_flops(partial(mixer.stream, tokens[:, -1:], state))
                sizes.append(state_bytes(state) if what == "state" else work)
        grown = torch.tensor(sizes, dtype=torch.float64) / sizes[0]
        return OneSeed(values=grown[-1:], curves={name: (LENGTHS, grown)})

    return over_seeds(run, one)


@claim(
    "The module takes in new tokens with constant memory, however many it has seen.",
    threshold=1.01,
    direction="below",
    why="bytes of the state are counted: they are the same, or they grow 64-fold as the tokens do",
    axes=Axes(x="tokens seen", y="bytes of state over those at 16 tokens", log_x=True, log_y=True, rule=True),
)
def constant_memory(run: Run) -> Samples:
    """What is kept after 1,024 tokens over what is kept after 16."""
    return growth(run, Aaren, "Aaren", what="state")


@constant_memory.reference("linear attention, a recurrent network with a matrix for its state")
def constant_memory_linear(run: Run) -> Samples:
    """A state of fixed size."""
    return growth(run, LinearAttention, "linear attention", what="state")


@constant_memory.control(
    "a transformer's attention, whose queries come from the tokens, has to keep them all",
    incompetent="what is counted are bytes, and there is nothing to predict",
)
def constant_memory_softmax(run: Run) -> Samples:
    """Keys and values of every token."""
    return growth(run, SoftmaxAttention, "softmax attention", what="state")


@claim(
    "A further token costs the same work after 1,024 tokens as after 16.",
    threshold=1.01,
    direction="below",
    why="operations are counted: products of matrices and scores; a transformer's count grows with the tokens seen",
    axes=Axes(x="tokens seen", y="work for one more token over that at 16", log_x=True, log_y=True, rule=True),
    leaves_out="seconds: operations are counted in their place, exponentials and sums aside",
)
def constant_work(run: Run) -> Samples:
    """The operations for one more token."""
    return growth(run, Aaren, "Aaren", what="work")


@constant_work.reference("linear attention, a recurrent network with a matrix for its state")
def constant_work_linear(run: Run) -> Samples:
    """The work of a state of fixed size."""
    return growth(run, LinearAttention, "linear attention", what="work")


@constant_work.control(
    "a transformer's attention asks all tokens again", incompetent="operations are counted, nothing is predicted"
)
def constant_work_softmax(run: Run) -> Samples:
    """Scores against every earlier key."""
    return growth(run, SoftmaxAttention, "softmax attention", what="work")
