"""Contexture: a workbench for models that learn from their context.

>>> import contexture
>>> comparison = contexture.compare("iris", ["knn", "logistic"], context=[20], seeds=1, episodes=2)
>>> [measurement.name for measurement in comparison.measurements]
['knn', 'logistic']
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from contexture.api import compare as compare
    from contexture.api import compare_agents as compare_agents
    from contexture.api import load as load
    from contexture.api import predict as predict
    from contexture.api import recall as recall
    from contexture.reports.html import write_report as write_report
    from contexture.selection import Reading as Reading

__all__ = ["Reading", "__version__", "compare", "compare_agents", "load", "predict", "recall", "write_report"]

_HOMES = {
    "Reading": ("contexture.selection", "Reading"),
    "compare": ("contexture.api", "compare"),
    "compare_agents": ("contexture.api", "compare_agents"),
    "load": ("contexture.api", "load"),
    "predict": ("contexture.api", "predict"),
    "recall": ("contexture.api", "recall"),
    "write_report": ("contexture.reports.html", "write_report"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `contexture --help` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'contexture' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
