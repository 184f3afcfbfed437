"""The laws of set mixers: what sees all of a set at once claims no order, and answers queries one by one.

| law | what it holds |
|---|---|
| equivariance | reordering a set reorders its output; reordering the context changes nothing |
| independence | given a context, an item's output does not depend on the other items |
| gradients | every parameter gets a finite gradient, that of the output, non-zero in one of three random batches |
| episodes | sets of a batch do not see each other |
| cost | floating-point operations grow with the size of the set as the card says |
| compilation | torch.compile takes the whole forward and backward as one graph, with the same results |
| cohorts | three members stacked give what they give one by one, gradients included |

Gradients, cost and cohorts are held to the very laws of causal mixers. Sets are [batch, items, width]; everything is
computed in fp64 and held to a relative root mean square of 1e-10.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from contexture.testing.agreement import agree
from contexture.testing.laws import run_laws
from contexture.testing.mixers import TOLERANCE, MixerCase, law_cohorts, law_cost, law_gradients, one_graph

SETS = 3


def check_set_mixer(
    mixer: type[Any],
    *,
    width: int = 16,
    num_heads: int = 2,
    settings: Mapping[str, Any] | None = None,
    laws: tuple[str, ...] = (),
) -> None:
    """Hold a set mixer class to every law, or to the named ones; raises LawError at the first that it breaks.

    `settings` are further keyword arguments of its constructor. A law on the card's `waivers` has to be broken.
    """
    case = MixerCase(mixer=mixer, width=width, num_heads=num_heads, settings=settings or {})
    run_laws(LAWS, case, waivers=case.card.waivers, only=laws)


def _build(case: MixerCase) -> nn.Module:
    return case.build()


def law_equivariance(case: MixerCase) -> None:
    """No order among the members."""
    mixer, x, context = _build(case), case.input(SETS, 7), case.input(SETS, 6, seed=1)
    order, others = torch.tensor([3, 0, 6, 1, 5, 2, 4]), torch.tensor([5, 1, 3, 0, 4, 2])
    expected = mixer(x)[:, order]
    agree("equivariance", "a reordered set", mixer(x[:, order]), expected, tolerance=TOLERANCE)
    expected = mixer(x, context=context)
    got = mixer(x, context=context[:, others])
    agree("equivariance", "the answer to a reordered context", got, expected, tolerance=TOLERANCE)


def law_independence(case: MixerCase) -> None:
    """Items do not see each other beside a context."""
    mixer, x, context = _build(case), case.input(SETS, 5), case.input(SETS, 6, seed=1)
    together = mixer(x, context=context)
    for item in range(5):
        alone = mixer(x[:, item : item + 1], context=context)
        what = f"item {item} asked alone"
        agree("independence", what, alone, together[:, item : item + 1], tolerance=TOLERANCE)


def law_episodes(case: MixerCase) -> None:
    """Sets do not see each other."""
    mixer, x = case.build(), case.input(SETS, 7)
    agree("episodes", "the last set asked alone", mixer(x[2:]), mixer(x)[2:], tolerance=TOLERANCE)


def law_compilation(case: MixerCase) -> None:
    """One graph, with and without a context."""
    one_graph(case.build(), case.input(SETS, 7), ({}, {"context": case.input(SETS, 6, seed=1)}))


LAWS: Mapping[str, Callable[[MixerCase], None]] = {
    "equivariance": law_equivariance,
    "independence": law_independence,
    "gradients": law_gradients,
    "episodes": law_episodes,
    "cost": law_cost,
    "compilation": law_compilation,
    "cohorts": law_cohorts,
}
