"""Contexture: a workbench for models that learn from their context."""

__version__ = "0.1.0"
