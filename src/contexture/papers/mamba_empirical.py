r"""An empirical study of Mamba-based language models (Waleffe et al. 2024): state spaces, attention, a hybrid.

    transformer    (softmax, MLP) x 4            pure      (Mamba-2, MLP) x 4
    hybrid         (Mamba-2, MLP) x 3, softmax, MLP: what `contexture.models.hybrids.mamba_empirical(8)` gives

Models of about 50,000 parameters in place of eight billion, trained on tasks over tokens in place of text: phone books,
copying, and naming a string by one number. A table of positions is added to the embeddings of all of them.
What generation costs is counted on the paper's own 56 layers, at a small width.
Shapes: shares of right answers [sequences].
"""

import torch

from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.claims.stacks import Learners, accuracy, ahead, backbone, book, kept, oracles, stack, trained
from contexture.models.hybrids import mamba_empirical
from contexture.models.pattern import layers
from contexture.tasks.compression import Compression
from contexture.tasks.copying import Copying

PAPER = Paper(
    key="mamba-empirical",
    title="An Empirical Study of Mamba-based Language Models",
    authors="Roger Waleffe, Wonmin Byeon, Duncan Riach, Brandon Norick, Vijay Korthikanti, Tri Dao, Albert Gu, "
    "Ali Hatamizadeh, Sudhakar Singh, Deepak Narayanan, Garvit Kulshreshtha, Vartika Singh, Jared Casper, Jan Kautz, "
    "Mohammad Shoeybi, Bryan Catanzaro",
    year=2024,
    arxiv="2406.07887",
    uses=("mamba-2", "softmax", "phonebook", "copying", "compression"),
    left_out={
        "the hybrid exceeds the transformer on all twelve standard tasks": "needs language models of eight billion "
        "parameters trained on trillions of tokens",
        "extended to 128K tokens it stays level on 23 tasks with long contexts": "needs such models, trained "
        "further on long texts, and those tasks",
    },
)

COPYING = Copying(vocabulary=16, num_tokens=16)
NAMING = Compression(base=2, num_digits=6)
HYBRID = " ".join(layers(mamba_empirical(8).pattern))
PURE, ATTENTION = stack([]), stack([1, 2, 3, 4])
BOOK_STEPS, COPY_STEPS, NAME_STEPS = 300, 150, 100
BY_ENTRIES = Axes(x="entries of the phone book; eight in training", y="share of right digits")


def pure(run: Run) -> Learners:
    """Mamba-2 alone, on phone books."""
    return trained(run, PURE, width=32, num_steps=BOOK_STEPS)


def transformer(run: Run) -> Learners:
    """Attention alone, on phone books."""
    return trained(run, ATTENTION, width=40, num_steps=BOOK_STEPS)


def hybrid(run: Run) -> Learners:
    """One layer of attention among four mixers, on phone books."""
    return trained(run, HYBRID, width=34, num_steps=BOOK_STEPS)


@claim(
    "A pure state-space model lags behind a transformer of its size at looking numbers up in a phone book.",
    threshold=0.1,
    direction="above",
    expected="undecided",
    tried="300 steps, after which seeds differ by more than the models do",
    why="a tenth of the digits more are right; one constant digit is right in an eighth",
    kind="trained",
    spread="seeds",
    axes=BY_ENTRIES,
    leaves_out="more than 300 steps at one rate: neither may have learned to the end",
)
def phone_book(run: Run) -> Samples:
    """The transformer's share less the pure model's."""
    return ahead(run, transformer(run), pure(run), name="transformer", other="Mamba-2")


@phone_book.reference("looking the name up in the transformer's place")
def phone_book_lookup(run: Run) -> Samples:
    """The task's oracle."""
    return ahead(run, oracles(run, book(8)), pure(run), name="lookup")


@phone_book.control("with attention in place of one of its four mixers the model does not lag")
def phone_book_hybrid(run: Run) -> Samples:
    """The transformer's share less the hybrid's."""
    return ahead(run, transformer(run), hybrid(run), name="transformer", other="hybrid")


BY_PLACE = Axes(x="token of the copy", y="share that is right")


def copies(run: Run, pattern: str, width: int) -> Learners:
    """Models trained to copy."""
    return trained(run, pattern, width=width, num_steps=COPY_STEPS, task=COPYING)


def copied(run: Run, ours: Learners, theirs: Learners, *, name: str, other: str = "") -> Samples:
    """Our share of copied tokens less theirs."""
    return ahead(run, ours, theirs, name=name, other=other, task=COPYING)


@claim(
    "It lags at copying a string of tokens as well.",
    threshold=0.1,
    direction="above",
    expected="undecided",
    tried="150 steps: the model with one layer of attention lags a little too",
    why="a tenth of the tokens more are right; one constant token is right in a fifteenth",
    kind="trained",
    spread="seeds",
    axes=BY_PLACE,
    leaves_out="more than 150 steps at one rate, and larger states: sixteen tokens do fit into this one",
)
def copying(run: Run) -> Samples:
    """The transformer's share less the pure model's."""
    ours, theirs = copies(run, ATTENTION, 40), copies(run, PURE, 32)
    return copied(run, ours, theirs, name="transformer", other="Mamba-2")


@copying.reference("the token of sixteen places ago in the transformer's place")
def copying_shift(run: Run) -> Samples:
    """The task's oracle."""
    return copied(run, oracles(run, COPYING), copies(run, PURE, 32), name="shift")


@copying.control("with attention in place of one of its four mixers the model does not lag")
def copying_hybrid(run: Run) -> Samples:
    """The transformer's share less the hybrid's."""
    return copied(run, copies(run, ATTENTION, 40), copies(run, HYBRID, 34), name="transformer", other="hybrid")


def names(run: Run, pattern: str, width: int) -> Learners:
    """Models trained to name strings."""
    return trained(run, pattern, width=width, num_steps=NAME_STEPS, task=NAMING)


@claim(
    "Where nothing has to be looked up, the pure model matches the transformer.",
    threshold=0.95,
    direction="above",
    expected="undecided",
    tried="100 steps; without mixers nothing is learned, so that the control is no better than a guess",
    why="nineteen of twenty strings get their number, of sixty-four",
    kind="trained",
    spread="seeds",
    leaves_out="the many tasks over text on which the paper compares them",
)
def matches(run: Run) -> Samples:
    """Naming a string of six digits at its end."""
    return accuracy(run, names(run, PURE, 32), task=NAMING)


@matches.reference("spelling the number")
def matches_oracle(run: Run) -> Samples:
    """The task's oracle."""
    return accuracy(run, oracles(run, NAMING), task=NAMING)


@matches.control("the same model without mixers sees the last digit alone")
def matches_alone(run: Run) -> Samples:
    """MLPs in a row."""
    return accuracy(run, names(run, "mlp*8", 32), task=NAMING)


@claim(
    "The hybrid exceeds the transformer at looking numbers up, with one layer of attention for its four.",
    threshold=0.1,
    direction="above",
    expected="undecided",
    tried="300 steps, after which seeds differ by more than the models; 500 steps of one seed gave .996 and .53",
    why="a tenth of the digits more are right",
    kind="trained",
    spread="seeds",
    axes=BY_ENTRIES,
    leaves_out="the standard tasks over text, where the paper finds 2.65 points",
)
def exceeds(run: Run) -> Samples:
    """The hybrid's share less the transformer's."""
    return ahead(run, hybrid(run), transformer(run), name="hybrid", other="transformer")


@exceeds.reference("looking the name up in the hybrid's place")
def exceeds_lookup(run: Run) -> Samples:
    """The task's oracle."""
    return ahead(run, oracles(run, book(8)), transformer(run), name="lookup")


@exceeds.control("without its layer of attention it falls behind")
def exceeds_pure(run: Run) -> Samples:
    """The pure model's share less the transformer's."""
    return ahead(run, pure(run), transformer(run), name="Mamba-2")


DEEP, NARROW = 56, 16


def deep(kind: str) -> str:
    """Fifty-six layers: the paper's hybrid, attention in place of every mixer, of every second one, or of none."""
    if kind == "hybrid":
        return " ".join(layers(mamba_empirical(DEEP).pattern))
    places = {"transformer": range(1, DEEP), "half": range(1, DEEP, 2), "pure": ()}[kind]
    return stack(places, num_mixers=DEEP // 2)


def smaller(run: Run, kind: str, name: str) -> Samples:
    """The bytes that a transformer of 56 layers keeps per those of another stack."""
    length = run.setting("tokens", smoke=256, cpu=2048)

    def one(seed: int) -> OneSeed:
        x = torch.randn(1, length, NARROW, generator=run.generator(seed, "vectors"))
        stretches = x.tensor_split(8, 1)
        whole, ours = (kept(backbone(deep(which), width=NARROW), stretches) for which in ("transformer", kind))
        ratio = torch.tensor(whole, dtype=torch.float64) / torch.tensor(ours)
        return OneSeed(values=ratio[-1:], curves={name: ([length * part // 8 for part in range(1, 9)], ratio)})

    return over_seeds(run, one)


@claim(
    "Generating after a long context, the hybrid has several times less to read for a token than a transformer.",
    threshold=4.0,
    direction="above",
    why="four of 28 mixers keep every token, so that the ratio goes to seven; the paper's transformer has eight times "
    "as many layers of attention as its hybrid, which is its prediction of eight times the speed",
    axes=Axes(x="tokens before", y="bytes of state, transformer's over the stack's", log_x=True, log_y=True, rule=True),
    leaves_out="seconds: bytes of state are counted, which decide them when many long contexts are served at once",
)
def generation(run: Run) -> Samples:
    """Fifty-six layers of width 16."""
    return smaller(run, "hybrid", "43 % Mamba-2, 7 % attention, 50 % MLP")


@generation.reference("no attention at all")
def generation_pure(run: Run) -> Samples:
    """A state of constant size."""
    return smaller(run, "pure", "no attention")


@generation.control(
    "attention in every second mixer's place halves it at best", incompetent="bytes are counted, nothing is predicted"
)
def generation_half(run: Run) -> Samples:
    """Fourteen layers of attention."""
    return smaller(run, "half", "25 % attention")
