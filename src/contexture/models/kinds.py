"""The kinds of backbone that a model may be built on, by the configuration that describes each."""

from collections.abc import Mapping
from typing import Any

import torch

from contexture.models.backbone import Backbone, BackboneConfig
from contexture.models.elastic import ElasticBackbone, ElasticConfig
from contexture.models.looped import LoopedBackbone, LoopedConfig

AnyConfig = BackboneConfig | LoopedConfig | ElasticConfig
AnyBackbone = Backbone | LoopedBackbone | ElasticBackbone


def read_backbone(values: Mapping[str, Any]) -> AnyConfig:
    """The configuration in plain values, as `dataclasses.asdict` gives it; each kind has a field of its own.

    >>> type(read_backbone({"loops": 4, "window": 2})).__name__
    'LoopedConfig'
    """
    marks: dict[str, type[Any]] = {"window": LoopedConfig, "consistency": ElasticConfig}
    kind = next((kind for mark, kind in marks.items() if mark in values), BackboneConfig)
    config: AnyConfig = kind(**values)
    return config


def build_backbone(config: AnyConfig, *, generator: torch.Generator) -> AnyBackbone:
    """The backbone that a configuration describes, with fresh weights."""
    match config:
        case LoopedConfig():
            return LoopedBackbone(config, generator=generator)
        case ElasticConfig():
            return ElasticBackbone(config, generator=generator)
        case BackboneConfig():
            return Backbone(config, generator=generator)
