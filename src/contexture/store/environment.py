"""What a result or an exact resume depends on besides the program: machine, builds, threads.

Two runs give the same bits only if the same kernels run in the same order on the same instructions; `same_for_resume`
compares what decides that and ignores the rest.
"""

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")
_SETTINGS = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "CUBLAS_WORKSPACE_CONFIG",
)
_DECISIVE = {
    "architecture": "architecture",
    "processor": "processor",
    "instructions": "instruction set of the kernels",
    "device": "device",
    "torch": "torch",
    "torch_build": "build of torch",
    "contexture": "contexture",
    "threads": "number of threads",
    "settings": "environment variables for kernels",
}


def environment(device: str = "cpu") -> dict[str, Any]:
    """Describe this machine, its software and `device`, as plain JSON values.

    threads is torch's number of threads within an operation at the moment of the call. Imports torch when called.
    """
    import numpy
    import torch

    return {
        **_machine(),
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_build": torch.version.git_version,
        "numpy": numpy.__version__,
        "contexture": metadata.version("contexture"),
        "commit": _commit(),
    }


def same_for_resume(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Name each difference between two environments by which an exact resume would not be exact; [] if there is none.

    >>> same_for_resume({"torch": "2.13.0", "threads": 2}, {"torch": "2.13.0", "threads": 1})
    ['number of threads: 2 there, 1 here']
    """
    return [
        f"{words}: {_show(there.get(name))} there, {_show(here.get(name))} here"
        for name, words in _DECISIVE.items()
        if there.get(name) != here.get(name)
    ]


def _show(value: Any) -> str:
    return str(value) if value else "none"


def instruction_sets() -> list[str]:
    """The instruction sets of this processor that decide which kernels run; [] where the platform does not say."""
    flags: list[str] = _machine()["flags"]
    return flags


@functools.cache
def _machine() -> dict[str, Any]:
    processor, flags = _processor()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processor": processor,
        "flags": flags,
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
    }


def _processor() -> tuple[str, list[str]]:
    """The processor's name and those of its instruction sets that decide which kernels run."""
    if sys.platform == "linux":
        fields: dict[str, str] = {}
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
        flags = fields.get("flags", fields.get("Features", "")).split()
        name = fields.get("model name") or fields.get("CPU part") or platform.processor()
        family = [
            f"{short} {fields[key]}" for key, short in (("cpu family", "family"), ("model", "model")) if key in fields
        ]
        return ", ".join([name, *family]), [flag for flag in _FLAGS if flag in flags]
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor(), []
    return platform.processor(), []


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that the package is imported from, "+" added if files differ; None outside one."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if changed else commit


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
