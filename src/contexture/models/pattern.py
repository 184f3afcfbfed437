"""Patterns: how the layers of a backbone are written.

    softmax                  attention and then a feed-forward network, each behind a norm and around a shortcut
    softmax+mlp              the same, written out
    softmax+none             the mixer alone;  mlp  the feed-forward network alone
    softmax+delta-rule       two mixers one after the other, without a feed-forward network
    softmax|delta-rule       two mixers side by side in place of one, their normed outputs averaged
    @softmax                 one block for all layers that are written so: see `contexture.blocks.shared`

Layers stand one after the other with spaces between; "x*3" repeats one, "(x y)*3" a group, and groups may hold groups.
"""

import re
from dataclasses import dataclass

from contexture.errors import InputError

FEED_FORWARD, NOTHING, SHARED = "mlp", "none", "@"
_GROUP = re.compile(r"\(([^()]*)\)(?:\*(\d+))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer: its steps in order, each the mixers that stand side by side, or the feed-forward network."""

    steps: tuple[tuple[str, ...], ...]
    shared: bool = False

    @property
    def mixers(self) -> frozenset[str]:
        """The mixers' names."""
        return frozenset(name for step in self.steps for name in step if name != FEED_FORWARD)


def layers(pattern: str | tuple[str, ...]) -> tuple[str, ...]:
    """Every layer of a pattern as it is written.

    >>> layers("(delta-rule softmax*2)*2 softmax")
    ('delta-rule', 'softmax', 'softmax', 'delta-rule', 'softmax', 'softmax', 'softmax')
    """
    if not isinstance(pattern, str):
        return tuple(pattern)
    text, found = pattern, 1
    while found:
        text, found = _GROUP.subn(lambda group: " ".join([_repeat(group[1])] * int(group[2] or 1)), text)
    names = tuple(_repeat(text).split())
    if not names or any(mark in name for name in names for mark in "()"):
        raise InputError(f"the pattern {pattern!r} cannot be read: write it as 'softmax*4' or '(delta-rule softmax)*2'")
    return names


def read(layer: str) -> Layer:
    """What one layer of a pattern means; InputError if it means nothing.

    >>> read("softmax|delta-rule").steps
    (('softmax', 'delta-rule'), ('mlp',))
    """
    shared, text = layer.startswith(SHARED), layer.removeprefix(SHARED)
    steps = [tuple(step.split("|")) for step in text.split("+")]
    if steps[-1] == (NOTHING,):
        steps.pop()
    elif len(steps) == 1 and steps[0] != (FEED_FORWARD,):
        steps.append((FEED_FORWARD,))
    alone = all(step == (FEED_FORWARD,) or not {"", FEED_FORWARD, NOTHING} & set(step) for step in steps)
    if not steps or not alone:
        raise InputError(
            f"the layer {layer!r} cannot be read: write it as 'softmax', 'softmax+none', 'softmax+delta-rule', "
            "'softmax|delta-rule' or 'mlp', and '@' before it if it is shared"
        )
    return Layer(steps=tuple(steps), shared=shared)


def _repeat(text: str) -> str:
    """Write out "name*3" as three names."""
    return re.sub(r"(\S+?)\*(\d+)(?=\s|$)", lambda item: " ".join([item[1]] * int(item[2])), text)
