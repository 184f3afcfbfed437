"""Published hybrids of attention and recurrent mixers, as configurations of the backbone.

Each takes the name of a recurrent mixer, since the question is always which one; further keywords are those of
`contexture.models.backbone.BackboneConfig`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from contexture.errors import InputError
from contexture.models.backbone import BackboneConfig


def mambaformer(num_layers: int = 4, *, recurrent: str = "mamba", **shape: Any) -> BackboneConfig:
    """MambaFormer (Park et al., 2024, arXiv:2402.04248): a recurrent mixer in place of positions, and in place of MLPs.

    One bare recurrent layer, then `num_layers` of attention without positions followed by a recurrent mixer.

    >>> mambaformer(2, recurrent="delta-rule").pattern
    'delta-rule+none (softmax+delta-rule)*2'
    """
    pattern = f"{recurrent}+none (softmax+{recurrent})*{_at_least_one(num_layers)}"
    return _config(pattern, shape)


def parallel_hybrid(num_layers: int = 4, *, recurrent: str = "mamba", **shape: Any) -> BackboneConfig:
    """Attention and a recurrent mixer side by side in every layer, as in Hymba (Dong et al., 2024, arXiv:2411.13676).

    >>> parallel_hybrid(2, recurrent="delta-rule").pattern
    '(softmax|delta-rule)*2'
    """
    return _config(f"(softmax|{recurrent})*{_at_least_one(num_layers)}", shape)


def zamba(num_groups: int = 2, *, every: int = 6, recurrent: str = "mamba", **shape: Any) -> BackboneConfig:
    """Zamba (Glorioso et al., 2024, arXiv:2405.16712): one shared attention block after every few recurrent layers.

    `num_groups` times `every` bare recurrent layers and a call of the shared block, and a last group without a call.

    >>> zamba(2, every=3, recurrent="delta-rule").pattern
    '(delta-rule+none*3 @softmax)*2 delta-rule+none*3'
    """
    group = f"{recurrent}+none*{_at_least_one(every)}"
    return _config(f"({group} @softmax)*{_at_least_one(num_groups)} {group}", shape)


def mamba_empirical(num_layers: int = 56, *, recurrent: str = "mamba-2", **shape: Any) -> BackboneConfig:
    """The hybrid of Waleffe et al. (2024, arXiv:2406.07887): 43 % recurrent, 7 % attention and 50 % MLP layers.

    Layers hold one of the three: mixers and MLPs take turns, and the fourth of every seven mixers is attention. At
    fewer than eight layers there would be no attention: InputError, as for an odd number.

    >>> mamba_empirical(8, recurrent="delta-rule").pattern
    'delta-rule+none mlp delta-rule+none mlp delta-rule+none mlp softmax+none mlp'
    """
    if num_layers % 2 or num_layers < 8:
        raise InputError(
            f"{num_layers} layers cannot be half MLPs with attention among the rest: use an even 8 or more"
        )
    mixers = ("softmax" if n % 7 == 3 else recurrent for n in range(num_layers // 2))
    return _config(" ".join(f"{name}+none mlp" for name in mixers), shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hybrid:
    """A published arrangement of layers: its name, source, and the function that gives its configuration."""

    name: str
    paper: str
    year: int
    config: Callable[..., BackboneConfig]

    @property
    def pattern(self) -> str:
        """The pattern of its layers at the function's defaults."""
        pattern = self.config().pattern
        return pattern if isinstance(pattern, str) else " ".join(pattern)


HYBRIDS = (
    Hybrid(
        name="mambaformer",
        paper="Park et al., Can Mamba Learn How to Learn?, arXiv:2402.04248",
        year=2024,
        config=mambaformer,
    ),
    Hybrid(
        name="parallel-hybrid",
        paper="Dong et al., Hymba: A Hybrid-head Architecture for Small Language Models, arXiv:2411.13676",
        year=2024,
        config=parallel_hybrid,
    ),
    Hybrid(
        name="zamba",
        paper="Glorioso et al., Zamba: A Compact 7B SSM Hybrid Model, arXiv:2405.16712",
        year=2024,
        config=zamba,
    ),
    Hybrid(
        name="mamba-empirical",
        paper="Waleffe et al., An Empirical Study of Mamba-based Language Models, arXiv:2406.07887",
        year=2024,
        config=mamba_empirical,
    ),
)
"""Every hybrid above, for those who list them."""


def _at_least_one(count: int) -> int:
    if count < 1:
        raise InputError(f"a hybrid of {count} layers is none: use at least 1")
    return count


def _config(pattern: str, shape: dict[str, Any]) -> BackboneConfig:
    """Attention learns positions from the recurrent layers, so that it has none of its own unless told otherwise."""
    settings = {"softmax": {"positions": "none"}, **shape.pop("settings", {})}
    return BackboneConfig(pattern=pattern, settings=settings, **shape)
