"""`contexture doctor`: what a bug report needs to say about the surroundings."""

import argparse
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

OPTIONAL = {
    "pyarrow": "contexture[parquet]",
    "pandas": "pandas",
    "triton": "triton",
    "gymnasium": "contexture[gymnasium]",
}
REQUIRED = (
    "torch",
    "numpy",
    "safetensors",
    "jaxtyping",
    "scikit-learn",
    "tyro",
    "rich",
    "jinja2",
    "matplotlib",
    "shtab",
)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def report() -> dict[str, Any]:
    """Everything that `doctor` prints, as plain values."""
    from contexture.agents.saved import shipped_agents
    from contexture.learners.saved import shipped
    from contexture.store.environment import environment

    return {
        "environment": environment(),
        "packages": {name: _version(name) for name in REQUIRED},
        "optional": {name: _version(name) or f"not installed: pip install '{line}'" for name, line in OPTIONAL.items()},
        "paths": _paths(),
        "weights": {name: _intact(name) for name in (*shipped(), *shipped_agents())},
    }


def _paths() -> dict[str, str]:
    """Which path each op takes on this machine's devices, and why: in fp32 and bf16, at 512 tokens and heads of 64, and
    for one token after as many."""
    import torch

    from contexture.discovery import ops
    from contexture.ops.dispatch import Call, path_of, why

    found = {}
    for device in ("cpu", *(("cuda",) if torch.cuda.is_available() else ())):
        for name, op in ops().items():
            for dtype in (torch.float32, torch.bfloat16):
                calls = {
                    use: Call(device=device, dtype=dtype, time=time, keys=512, dim=64, gradient=gradient)
                    for use, time, gradient in (
                        ("forward", 512, False),
                        ("one token", 1, False),
                        ("training", 512, True),
                    )
                }
                taken = ", ".join(f"{use}: {path_of(op, call)}" for use, call in calls.items())
                row = f"{name} {device} {str(dtype).removeprefix('torch.')}"
                found[row] = f"{taken} ({why(op, calls['forward'])})"
    return found


def _intact(name: str) -> str:
    from contexture.api import load
    from contexture.errors import CheckpointError

    try:
        load(name)
    except CheckpointError as error:
        return str(error)
    return "intact"


def run(options: argparse.Namespace) -> int:
    """Print the report; exit status 1 if a required package or shipped weights are missing."""
    found = report()
    missing = [name for name, number in found["packages"].items() if number is None]
    missing += [name for name, state in found["weights"].items() if state != "intact"]
    if options.json:
        json.dump(found, sys.stdout, indent=2, default=str)
        print()
    else:
        for title, section in found.items():
            print(title)
            for name, value in section.items():
                print(f"  {name}: {value}")
    if missing:
        print(f"contexture: missing or damaged: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0
