"""The laws of set mixers: what sees all of a set at once claims no order, and answers queries one by one.

| law | what it holds |
|---|---|
| equivariance | reordering a set reorders its output; reordering the context changes nothing |
| independence | given a context, an item's output does not depend on the other items |
| gradients | every parameter gets a finite gradient, non-zero in one of three random batches |
| episodes | sets of a batch do not see each other |

Sets are [batch, items, width]; everything is computed in fp64 and held to a relative root mean square of 1e-10.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contexture.protocols import MixerCard
from contexture.testing.agreement import agree
from contexture.testing.errors import LawError
from contexture.testing.laws import run_laws

TOLERANCE = 1e-10


@dataclass(frozen=True, kw_only=True)
class SetMixerCase:
    """A class to hold to the laws, and how to build it."""

    mixer: type[Any]
    width: int = 16
    num_heads: int = 2

    def build(self) -> nn.Module:
        """A mixer in fp64."""
        generator = torch.Generator().manual_seed(0)
        built = self.mixer(self.width, num_heads=self.num_heads, generator=generator)
        assert isinstance(built, nn.Module)
        return built.to(torch.float64)

    def input(self, items: int, seed: int = 0) -> Tensor:
        """Three random sets of `items` members."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(3, items, self.width, generator=generator, dtype=torch.float64)


def check_set_mixer(mixer: type[Any], *, width: int = 16, num_heads: int = 2, laws: tuple[str, ...] = ()) -> None:
    """Hold a set mixer class to every law, or to the named ones; raises LawError at the first that it breaks."""
    case = SetMixerCase(mixer=mixer, width=width, num_heads=num_heads)
    card = mixer.card
    assert isinstance(card, MixerCard)
    run_laws(LAWS, case, waivers=card.waivers, only=laws)


def law_equivariance(case: SetMixerCase) -> None:
    """No order among the members."""
    mixer, x, context = case.build(), case.input(7), case.input(6, seed=1)
    order, others = torch.tensor([3, 0, 6, 1, 5, 2, 4]), torch.tensor([5, 1, 3, 0, 4, 2])
    expected = mixer(x)[:, order]
    agree("equivariance", "a reordered set", mixer(x[:, order]), expected, tolerance=TOLERANCE)
    expected = mixer(x, context=context)
    got = mixer(x, context=context[:, others])
    agree("equivariance", "the answer to a reordered context", got, expected, tolerance=TOLERANCE)


def law_independence(case: SetMixerCase) -> None:
    """Items do not see each other beside a context."""
    mixer, x, context = case.build(), case.input(5), case.input(6, seed=1)
    together = mixer(x, context=context)
    for item in range(5):
        alone = mixer(x[:, item : item + 1], context=context)
        what = f"item {item} asked alone"
        agree("independence", what, alone, together[:, item : item + 1], tolerance=TOLERANCE)


def law_gradients(case: SetMixerCase) -> None:
    """Every parameter learns."""
    mixer = case.build()
    named = dict(mixer.named_parameters())
    moved = dict.fromkeys(named, False)
    for seed in range(3):
        total = (mixer(case.input(7, seed)) * case.input(7, seed + 10)).sum()
        gradients = torch.autograd.grad(total, list(named.values()), materialize_grads=True)
        for name, gradient in zip(named, gradients, strict=True):
            if not gradient.isfinite().all():
                raise LawError("gradients", f"the gradient of {name} is not finite")
            moved[name] |= bool(gradient.count_nonzero())
    for name, seen in moved.items():
        if not seen:
            raise LawError("gradients", f"{name} gets no gradient in any of three random batches")


def law_episodes(case: SetMixerCase) -> None:
    """Sets do not see each other."""
    mixer, x = case.build(), case.input(7)
    agree("episodes", "the last set asked alone", mixer(x[2:]), mixer(x)[2:], tolerance=TOLERANCE)


LAWS: Mapping[str, Callable[[SetMixerCase], None]] = {
    "equivariance": law_equivariance,
    "independence": law_independence,
    "gradients": law_gradients,
    "episodes": law_episodes,
}
