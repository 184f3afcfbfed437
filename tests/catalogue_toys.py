"""A small catalogue of made-up papers, beside some real ones whose claims are published."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILLER = (
    "Every token writes what it holds into a table of fixed size and reads what earlier ones left there, so that one "
    "pass over the sequence suffices. On lists of pairs that are asked for later, it answers as often as attention "
    "does until there are more pairs than rows, and then worse, which is where a larger table would have helped it."
)

TOYS: Mapping[str, Mapping[str, Any]] = {
    "icl-by-gd": {
        "title": "Transformers learn in-context by gradient descent",
        "year": 2022,
        "family": "in-context-learning",
        "sentence": "A layer of linear attention can be one gradient step.",
        "mixers": ["linear-attention-identity"],
        "tasks": ["uniform-linear-regression"],
        "learners": ["gd"],
    },
    "one-step-gd": {
        "title": "One Step of Gradient Descent is Provably the Optimal In-Context Learner with One Layer of Linear "
        "Self-Attention",
        "year": 2023,
        "family": "in-context-learning",
        "sentence": "The best single layer takes one step.",
    },
    "toy-built": {
        "title": "A Table of <Rows> & Columns",
        "authors": ["Zoë Müller", "Bo O'Hara", "others"],
        "year": 2024,
        "arxiv": "2401.00001",
        "family": "mixers",
        "sentence": "Naïve recall of pairs needs a table that grows.",
        "mixers": ["delta-rule", "softmax"],
        "tasks": ["mqar"],
    },
    "toy-planned": {
        "title": "Segmentation by Axial Pools",
        "family": "vision",
        "sentence": "Pools along both axes label pixels in real time.",
        "refutation": "Leaving out one axis costs no accuracy on street scenes.",
    },
    "toy-older": {
        "title": "An Older Look at Recall",
        "year": 2021,
        "family": "mixers",
        "sentence": "Counting pairs explains what fits a state.",
        "tasks": ["mqar"],
    },
}


def write_toys(folder: Path) -> Path:
    """Write the toys as entries, each related to the two after it."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = list(TOYS)
    for place, key in enumerate(keys):
        related = [keys[(place + step) % len(keys)] for step in (1, 2)]
        usual = {
            "summary": f"{TOYS[key]['title'].split()[0].strip('<>').lower()}: {FILLER}",
            "refutation": "A table of half the size answers as often.",
            "mixers": [],
            "tasks": [],
            "learners": [],
            "related": related,
        }
        fields = {**usual, **TOYS[key]}
        text = "\n".join(f"{name} = {_toml(value)}" for name, value in fields.items())
        (folder / f"{key}.toml").write_text(text + "\n", encoding="utf-8")
    return folder


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value) if isinstance(value, int) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
