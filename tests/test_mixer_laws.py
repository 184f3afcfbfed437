"""Every mixer keeps the laws of its kind, and each law catches three planted faults, one of them subtle."""

import dataclasses
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contexture import discovery
from contexture.errors import InputError
from contexture.leaves.gain import Gain
from contexture.mixers.delta_rule import DeltaRule
from contexture.mixers.galerkin import Galerkin
from contexture.mixers.linear_attention import IdentityLinearAttention, LinearAttention, LinearState
from contexture.mixers.row_attention import RowAttention
from contexture.mixers.softmax import SoftmaxAttention, SoftmaxState
from contexture.protocols import MixerCard
from contexture.testing import LawError, check_mixer, check_set_mixer
from contexture.testing.mixers import LAWS, MixerCase, law_compilation
from contexture.testing.set_mixers import LAWS as SET_LAWS

MIXERS = discovery.registered("mixers")
CAUSAL = {name: mixer for name, mixer in MIXERS.items() if mixer.card.causal}
SETS = {name: mixer for name, mixer in MIXERS.items() if not mixer.card.causal}
SETTINGS = {
    "softmax": ({"positions": "none"},),
    "delta-rule": ({"short_convolution": 1},),
    "gated-delta-rule": ({"short_convolution": 1},),
    "native-hybrid": ({"window": 0}, {"num_slots": 0, "window": 24}, {"num_slots": 3, "window": 5}),
    "sse": ({"num_partitions": 5, "num_routes": 2},),
    "sliding-window": ({"window": 7, "positions": "alibi"}, {"window": 1, "positions": "none"}),
    "attention-sinks": ({"window": 6, "num_sinks": 3}, {"window": 33, "num_sinks": 40, "positions": "alibi"}),
    "grouped-query": ({"num_kv_heads": 2, "positions": "none"},),
    "landmark": ({"block": 5, "num_retrieved": 2},),
    "momentum-attention": ({"momentum": 0.5, "positions": "alibi"},),
    "titans": ({"chunk": 16},),
    "omega": ({"chunk": 3, "window": 4},),
    "deep-memory": ({"gated": True, "window": 5},),
    "memory-caching-gated": ({"memory": "linear"},),
    "memory-caching-residual": ({"memory": "linear", "segment_length": 7},),
}
"""Further settings under which a mixer is another mechanism."""


def test_every_mixer_is_found():
    assert sorted(CAUSAL) == [
        "aaren",
        "aft-conv",
        "aft-full",
        "aft-local",
        "aft-simple",
        "alibi",
        "atlas",
        "atlas-per-token",
        "attention-sinks",
        "based",
        "deep-linear-attention",
        "deep-memory",
        "delta-rule",
        "dot",
        "flowformer",
        "gated-delta-rule",
        "gated-linear-attention",
        "grouped-query",
        "hyena",
        "kernelized",
        "landmark",
        "linear-attention",
        "linear-attention-identity",
        "lmu",
        "mamba",
        "mamba-2",
        "masked-mixer",
        "memory-caching-gated",
        "memory-caching-residual",
        "memory-caching-soup",
        "memory-caching-sparse",
        "mesa",
        "momentum-attention",
        "native-hybrid",
        "omega",
        "performer",
        "pooling",
        "rebased",
        "retention",
        "s4d",
        "sliding-window",
        "sliding-window-linear-attention",
        "softmax",
        "sse",
        "titans",
    ]
    assert sorted(SETS) == [
        "feature-attention",
        "flow-attention",
        "fourier-attention",
        "galerkin",
        "induced-set-attention",
        "pooled-attention",
        "row-attention",
    ]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", CAUSAL)
def test_laws(name, law):
    check_mixer(CAUSAL[name], laws=(law,))


@pytest.mark.parametrize(("name", "settings"), [(name, one) for name, several in SETTINGS.items() for one in several])
def test_laws_under_other_settings(name, settings):
    check_mixer(CAUSAL[name], settings=settings, laws=tuple(law for law in LAWS if law != "compilation"))


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("name", ["softmax", "delta-rule", "mamba-2", "landmark"])
def test_inductor_gives_what_the_mixer_gives(name):
    law_compilation(MixerCase(mixer=CAUSAL[name]), backend="inductor")


@pytest.mark.parametrize("law", SET_LAWS)
@pytest.mark.parametrize("name", SETS)
def test_laws_of_sets(name, law):
    check_set_mixer(SETS[name], laws=(law,))


class Scaled(torch.autograd.Function):
    """The identity, with a gradient one per cent too large."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 1.01 * gradient


class SharedState(SoftmaxAttention):
    """Keeps one position for the whole batch."""

    def init_state(self, batch, *, device, dtype):
        keys, values, positions = super().init_state(batch, device=device, dtype=dtype)
        return SoftmaxState(keys, values, positions[:1])


class ListState(SoftmaxAttention):
    """Gives its state as a list."""

    def init_state(self, batch, *, device, dtype):
        return list(super().init_state(batch, device=device, dtype=dtype))


class LeadingRow(LinearAttention):
    """Every row reads the first row's positions: right until rows are reordered."""

    def stream(self, x, state):
        out, after = super().stream(x, state)
        return out + state.positions[:1].view(1, 1, 1), after._replace(positions=after.positions + torch.arange(len(x)))


class ForgetfulStream(LinearAttention):
    """Streams from an empty memory."""

    def stream(self, x, state):
        return super().stream(x, self.init_state(len(x), device=x.device, dtype=x.dtype))


class DroppedBuffer(DeltaRule):
    """Drops the convolution's inputs at a cut."""

    def stream(self, x, state):
        return super().stream(x, state._replace(inputs=torch.zeros_like(state.inputs)))


class LatePositions(IdentityLinearAttention):
    """Counts one token too few at a chunk's edge."""

    def stream(self, x, state):
        out, after = super().stream(x, state)
        return out, after._replace(positions=after.positions - (after.positions == 64).long())


class SeesAll(SoftmaxAttention):
    """Adds the mean over the whole sequence."""

    def forward(self, x, *, segments=None):
        return super().forward(x, segments=segments) + x.mean(1, keepdim=True)


class SeesNext(SoftmaxAttention):
    """Looks one token ahead."""

    def forward(self, x, *, segments=None):
        return super().forward(x.roll(-1, 1), segments=segments)


class SeesTheChunk(LinearAttention):
    """Looks one token ahead at a chunk's edge alone."""

    def forward(self, x, *, segments=None):
        out = super().forward(x, segments=segments)
        ahead = F.pad(x[:, 64:65], (0, 0, 63, max(0, x.shape[1] - 64)))[:, : x.shape[1]]
        return out + 1e-3 * ahead


class Unused(SoftmaxAttention):
    """Holds a parameter that does nothing."""

    def __init__(self, width, *, num_heads, generator, **rest):
        super().__init__(width, num_heads=num_heads, generator=generator, **rest)
        self.unused = Gain(width)


class Infinite(SoftmaxAttention):
    """Has a gradient that is not finite."""

    def forward(self, x, *, segments=None):
        out = super().forward(x, segments=segments)
        return out + (0 * out).sqrt()


class ScaledGate(DeltaRule):
    """One gate's gradient is one per cent too large."""

    def __init__(self, width, *, num_heads, generator, **rest):
        super().__init__(width, num_heads=num_heads, generator=generator, **rest)
        self.rate.register_forward_hook(lambda module, inputs, out: Scaled.apply(out))


class NoSegments(LinearAttention):
    """Ignores segments."""

    def forward(self, x, *, segments=None):
        return super().forward(x)


class RunsOnAcrossEdges(LinearAttention):
    """Misses a change of segment that falls on a chunk's edge."""

    def forward(self, x, *, segments=None):
        if segments is not None and segments.shape[1] > 64:
            segments = segments.clone()
            segments[:, 64] = torch.where(segments[:, 64] >= 0, segments[:, 63], segments[:, 64])
        return super().forward(x, segments=segments)


class ConvolutionRunsOn(DeltaRule):
    """Resets the memory at a change of segment, but not the convolution."""

    def forward(self, x, *, segments=None):
        return self.recall(x, self.heads.split(x), segments=segments)[0]


def with_card(mixer, **changes):
    """The same mixer under another card."""
    return type(mixer.__name__, (mixer,), {"card": dataclasses.replace(mixer.card, **changes)})


class GrowsAtFirst(LinearAttention):
    """Keeps its last inputs, up to forty of them."""

    def init_state(self, batch, *, device, dtype):
        memory, positions = super().init_state(batch, device=device, dtype=dtype)
        return (LinearState(memory, positions), torch.zeros(batch, 0, 16, device=device, dtype=dtype))

    def stream(self, x, state):
        out, after = super().stream(x, state[0])
        return out, (after, torch.cat((state[1], x), 1)[:, -40:])


class HiddenSquare(LinearAttention):
    """Compares all tokens and throws the result away."""

    def forward(self, x, *, segments=None):
        return super().forward(x, segments=segments) + 0 * (x @ x.mT).sum()


class Branches(LinearAttention):
    """Decides by a value, so that no single graph holds it."""

    def forward(self, x, *, segments=None):
        out = super().forward(x, segments=segments)
        return out if float(x.detach().sum()) > -1e9 else -out


class Prints(LinearAttention):
    """Leaves the graph to read a number into Python."""

    def forward(self, x, *, segments=None):
        out = super().forward(x, segments=segments)
        return out * int(x.detach().abs().max().isfinite().item())


class CompiledDiffers(LinearAttention):
    """Takes another branch once compiled."""

    def forward(self, x, *, segments=None):
        out = super().forward(x, segments=segments)
        return out * (1 + 1e-6) if torch.compiler.is_compiling() else out


class PlainParameter(LinearAttention):
    """Holds a parameter outside the leaves."""

    def __init__(self, width, *, num_heads, generator, **rest):
        super().__init__(width, num_heads=num_heads, generator=generator, **rest)
        self.offset = nn.Parameter(torch.zeros(width))

    def forward(self, x, *, segments=None):
        return super().forward(x, segments=segments) + self.offset


class FirstMember(LinearAttention):
    """Reads a leaf's weight by itself, and so the first member's alone."""

    def __init__(self, width, *, num_heads, generator, **rest):
        super().__init__(width, num_heads=num_heads, generator=generator, **rest)
        self.gain = Gain(width)
        nn.init.normal_(self.gain.weight, generator=generator)

    def forward(self, x, *, segments=None):
        return super().forward(x, segments=segments) * self.gain.weight.view(-1, x.shape[-1])[0]


class MixesMembers(LinearAttention):
    """Subtracts a mean over the batch, which holds all members."""

    def forward(self, x, *, segments=None):
        out = super().forward(x, segments=segments)
        return out - 1e-6 * out.mean(0, keepdim=True)


class GivesTwo(LinearAttention):
    """Gives its state beside its output."""

    def forward(self, x, *, segments=None):
        return super().forward(x, segments=segments), None


class Rounds(LinearAttention):
    """Gives fp32 whatever it reads."""

    def forward(self, x, *, segments=None):
        return super().forward(x, segments=segments).float()

    def stream(self, x, state):
        out, after = super().stream(x, state)
        return out.float(), after


class DrawsForItself(LinearAttention):
    """Starts one gain from the global generator."""

    def __init__(self, width, *, num_heads, generator, **rest):
        super().__init__(width, num_heads=num_heads, generator=generator, **rest)
        self.gain = Gain(width)
        nn.init.normal_(self.gain.weight, mean=1.0, std=1e-6)

    def forward(self, x, *, segments=None):
        return self.gain(super().forward(x, segments=segments))


MUTANTS = {
    "interface": (GivesTwo, Rounds, DrawsForItself),
    "causality": (SeesAll, SeesNext, SeesTheChunk),
    "state": (SharedState, ListState, LeadingRow),
    "streaming": (ForgetfulStream, DroppedBuffer, LatePositions),
    "gradients": (Unused, Infinite, ScaledGate),
    "segments": (NoSegments, RunsOnAcrossEdges, ConvolutionRunsOn),
    "state growth": (
        with_card(SoftmaxAttention, state="constant"),
        with_card(LinearAttention, state="grows"),
        GrowsAtFirst,
    ),
    "cost": (with_card(SoftmaxAttention, cost="linear"), with_card(DeltaRule, cost="quadratic"), HiddenSquare),
    "compilation": (Branches, Prints, CompiledDiffers),
    "cohorts": (FirstMember, MixesMembers, PlainParameter),
}


def test_every_law_has_three_mutants():
    assert list(MUTANTS) == list(LAWS)
    assert all(len(mutants) == 3 for mutants in MUTANTS.values())


@pytest.mark.parametrize(("law", "mutant"), [(law, mutant) for law, three in MUTANTS.items() for mutant in three])
def test_mutants_are_caught(law, mutant):
    with pytest.raises(LawError) as caught:
        check_mixer(mutant, laws=(law,))
    assert caught.value.law == law


class NoVerbs(nn.Module):
    """A layer, and no mixer."""

    card = dataclasses.replace(LinearAttention.card, name="no-verbs")


class Infinity(LinearAttention):
    """Gives no number from the fortieth token on."""

    def forward(self, x, *, segments=None):
        out = super().forward(x, segments=segments)
        return torch.cat((out[:, :40], out[:, 40:] / 0), 1)


class Falls(LinearAttention):
    """Raises on packed sequences."""

    def forward(self, x, *, segments=None):
        if segments is not None:
            raise RuntimeError("the sky is falling\nand more")
        return super().forward(x)


@pytest.mark.parametrize(
    ("mixer", "said"),
    [
        (SeesNext, r"law of causality: .* \(first at position 0, 0, 0\)"),
        (type("Plain", (), {"card": LinearAttention.card}), "law of interface: Plain is no torch.nn.Module"),
        (NoVerbs, "law of interface: NoVerbs has no method init_state"),
        (
            Rounds,
            r"law of interface: the output is \(2, 70, 16\) in float32 where the input is \(2, 70, 16\) in float64",
        ),
        (Infinity, r"law of interface: the output is not finite \(first at position 0, 40, 0\)"),
        (Falls, r"law of segments: RuntimeError in test_mixer_laws.py, line \d+: the sky is falling$"),
    ],
)
def test_the_law_that_is_broken_is_named(mixer, said):
    laws = tuple(law for law in LAWS if law != "gradients")
    with pytest.raises(LawError, match=said):
        check_mixer(mixer, laws=laws)


def test_laws_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="no law is named 'streeming': there are interface, causality, state"):
        check_mixer(LinearAttention, laws=("streeming",))
    with pytest.raises(LawError, match="law of card: the waiver of 'cots' names no law"):
        check_mixer(with_card(LinearAttention, waivers={"cots": "misspelt"}))


def test_a_card_says_what_there_is():
    with pytest.raises(InputError, match="the card of 'mine' has state='const': there are constant, grows, none"):
        MixerCard(name="mine", summary="", state="const", cost="linear")


class Ordered(RowAttention):
    """Knows the order of its members."""

    def forward(self, x, *, context=None, segments=None):
        return super().forward(x, context=context) + torch.arange(x.shape[1]).view(1, -1, 1)


class OrderedContext(RowAttention):
    """Gives the first member of the context more weight."""

    def forward(self, x, *, context=None, segments=None):
        out = super().forward(x, context=context)
        return out if context is None else out + 1e-6 * context[:, :1]


class LastQuery(RowAttention):
    """Tells the last item by its place."""

    def forward(self, x, *, context=None, segments=None):
        out = super().forward(x, context=context)
        return torch.cat((out[:, :-1], 2 * out[:, -1:]), 1)


class SeesQueries(RowAttention):
    """Lets items attend to each other beside the context."""

    def forward(self, x, *, context=None, segments=None):
        return super().forward(x, context=x if context is None else torch.cat((context, x), 1))


class NormalisesQueries(RowAttention):
    """Subtracts the mean over items."""

    def forward(self, x, *, context=None, segments=None):
        return super().forward(x - x.mean(1, keepdim=True), context=context)


class CountsQueries(RowAttention):
    """Sharpens attention with the number of items asked."""

    def forward(self, x, *, context=None, segments=None):
        return super().forward(x, context=context) * (1 + 1e-6 * x.shape[1])


class UnusedInSets(RowAttention):
    """Holds a parameter that does nothing."""

    def __init__(self, width, *, num_heads, generator):
        super().__init__(width, num_heads=num_heads, generator=generator)
        self.unused = Gain(width)


class InfiniteInSets(RowAttention):
    """Has a gradient that is not finite."""

    def forward(self, x, *, context=None, segments=None):
        out = super().forward(x, context=context)
        return out + (0 * out).sqrt()


class DetachedKeys(RowAttention):
    """Cuts the gradient to the keys' and values' weights."""

    def forward(self, x, *, context=None, segments=None):
        members = x if context is None else context
        memory = self.remember(members.unsqueeze(2))
        frozen = type(memory)(*(part.detach() for part in memory))
        return self.recall(x.unsqueeze(2), frozen).squeeze(2)


class ScaledQueries(RowAttention):
    """The gradient of the queries is one per cent too large."""

    def __init__(self, width, *, num_heads, generator):
        super().__init__(width, num_heads=num_heads, generator=generator)
        self.query.register_forward_hook(lambda module, inputs, out: Scaled.apply(out))


class MixesEpisodes(RowAttention):
    """Lets all sets of the batch see each other."""

    def forward(self, x, *, context=None, segments=None):
        members = x if context is None else context
        return super().forward(x, context=members.flatten(0, 1).expand(len(x), -1, -1))


class BatchMean(RowAttention):
    """Subtracts a mean over the batch."""

    def forward(self, x, *, context=None, segments=None):
        out = super().forward(x, context=context)
        return out - 1e-6 * out.mean(0, keepdim=True)


class FirstEpisode(RowAttention):
    """Treats the first set of the batch differently."""

    def forward(self, x, *, context=None, segments=None):
        out = super().forward(x, context=context)
        return torch.cat((2 * out[:1], out[1:]))


class HiddenSquareInSets(Galerkin):
    """Compares all items and throws the result away."""

    def forward(self, x, *, context=None, segments=None):
        return super().forward(x, context=context) + 0 * (x @ x.mT).sum()


class BranchesInSets(RowAttention):
    """Decides by a value, so that no single graph holds it."""

    def forward(self, x, *, context=None, segments=None):
        out = super().forward(x, context=context)
        return out if float(x.detach().sum()) > -1e9 else -out


class PrintsInSets(RowAttention):
    """Leaves the graph to read a number of the context into Python."""

    def forward(self, x, *, context=None, segments=None):
        out = super().forward(x, context=context)
        return out if context is None else out * int(context.detach().abs().max().isfinite().item())


class CompiledDiffersInSets(RowAttention):
    """Takes another branch once compiled, where there is a context."""

    def forward(self, x, *, context=None, segments=None):
        out = super().forward(x, context=context)
        return out * (1 + 1e-6) if torch.compiler.is_compiling() and context is not None else out


class PlainParameterInSets(RowAttention):
    """Holds a parameter outside the leaves."""

    def __init__(self, width, *, num_heads, generator):
        super().__init__(width, num_heads=num_heads, generator=generator)
        self.offset = nn.Parameter(torch.zeros(width))

    def forward(self, x, *, context=None, segments=None):
        return super().forward(x, context=context) + self.offset


class FirstMemberInSets(RowAttention):
    """Reads a leaf's weight by itself, and so the first member's alone."""

    def __init__(self, width, *, num_heads, generator):
        super().__init__(width, num_heads=num_heads, generator=generator)
        self.gain = Gain(width)
        nn.init.normal_(self.gain.weight, generator=generator)

    def forward(self, x, *, context=None, segments=None):
        return super().forward(x, context=context) * self.gain.weight.view(-1, x.shape[-1])[0]


SET_MUTANTS = {
    "equivariance": (Ordered, OrderedContext, LastQuery),
    "independence": (SeesQueries, NormalisesQueries, CountsQueries),
    "gradients": (UnusedInSets, InfiniteInSets, DetachedKeys, ScaledQueries),
    "episodes": (MixesEpisodes, BatchMean, FirstEpisode),
    "cost": (with_card(RowAttention, cost="linear"), with_card(Galerkin, cost="quadratic"), HiddenSquareInSets),
    "compilation": (BranchesInSets, PrintsInSets, CompiledDiffersInSets),
    "cohorts": (FirstMemberInSets, BatchMean, PlainParameterInSets),
}


def test_every_law_of_sets_has_three_mutants():
    assert list(SET_MUTANTS) == list(SET_LAWS)
    assert all(len(mutants) >= 3 for mutants in SET_MUTANTS.values())


@pytest.mark.parametrize(
    ("law", "mutant"), [(law, mutant) for law, several in SET_MUTANTS.items() for mutant in several]
)
def test_mutants_of_sets_are_caught(law, mutant):
    with pytest.raises(LawError) as caught:
        check_set_mixer(mutant, laws=(law,))
    assert caught.value.law == law


def test_a_law_names_the_first_position():
    with pytest.raises(LawError, match="law of streaming") as caught:
        check_mixer(DroppedBuffer, laws=("streaming",))
    assert caught.value.position is not None
    assert caught.value.position[:2] == (0, 1)


def test_a_waiver_excuses_a_broken_law_and_only_that():
    excuse = {"cost": "compares all tokens for the sake of this test"}
    check_mixer(with_card(HiddenSquare, waivers=excuse), laws=("cost",))
    with pytest.raises(LawError, match="is waived but holds"):
        check_mixer(with_card(LinearAttention, waivers=excuse), laws=("cost",))


def test_cards_of_sets_claim_no_causality():
    assert all(isinstance(mixer.card, MixerCard) and mixer.card.state == "none" for mixer in SETS.values())
