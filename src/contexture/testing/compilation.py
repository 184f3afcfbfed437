"""Compiling kernels for a GPU that is not here: what the interpreter cannot say.

    python -m contexture.testing.compilation --target 90 --dim 128 --dtype bfloat16 linear-attention

calls each op named (or every one that has a kernel), forward and backward, with Triton's driver exchanged for one that
compiles what is launched, loads nothing and runs nothing. It prints what each kernel takes: registers of a thread,
bytes that spill out of them, shared memory, and seconds since the one before it, which are those of its compilation
unless Triton had it in its cache; exit status 1 if one does not compile or does not fit the target.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch

from contexture.ops.kernels import interpreted

SHARED = {80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}
"""Bytes of shared memory that a program can have, by compute capability."""


class Kernel(NamedTuple):
    """A compiled kernel's name and what it takes."""

    name: str
    registers: int
    spilled: int
    shared: int
    seconds: float


class _Driver:
    """A driver of Triton's that compiles for `capability` and keeps what would have been loaded."""

    def __init__(self, capability: int) -> None:
        self.capability, self.utils, self.launcher_cls = capability, self, _Launcher
        self.loaded: list[tuple[str, int, bytes, float]] = []
        self.before = perf_counter()

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED[self.capability], "multiprocessor_count": 132, "warpSize": 32}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        now = perf_counter()
        self.loaded.append((name, shared, binary, now - self.before))
        self.before = now
        return 0, 0, 0, 0, 1024


class _Launcher:
    def __init__(self, source: object, metadata: object) -> None:
        pass

    def __call__(self, *arguments: object, **keywords: object) -> None:
        pass


def _resources(name: str, shared: int, binary: bytes, seconds: float) -> Kernel:
    """What cuobjdump, which comes with Triton, says of a binary."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(binary)
        said = subprocess.run([tool, "--dump-resource-usage", file], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert found is not None, said
    return Kernel(name, int(found[1]), int(found[2]), shared, seconds)


def compile_kernels(name: str, *, target: int, dim: int, time: int, dtype: torch.dtype, packed: bool) -> list[Kernel]:
    """Every kernel that one call of the op launches, forward and backward; its driver stays exchanged."""
    from triton.runtime import driver

    from contexture.discovery import ops
    from contexture.ops import kernels
    from contexture.ops.dispatch import TRITON, use

    exchanged = _Driver(target)
    driver.set_active(exchanged)
    kernels.unable = lambda *arguments, **keywords: ""
    from contexture.ops.triton import scan

    vars(scan)["roomy"] = lambda device: SHARED[target] >= 160 * 1024
    op = ops()[name]
    drawn = op.sample(torch.Generator(), batch=1, time=time, heads=2, dim=dim)
    inputs = [x.to(dtype).requires_grad_() if x.is_floating_point() else x for x in drawn]
    leaves = [x for x in inputs if x.requires_grad]
    rest = {"segments": torch.zeros(1, time, dtype=torch.int64)} if packed else {}
    with use(TRITON, op=name):
        ends = [one for one in torch.utils._pytree.tree_leaves(op.call(*inputs, **rest)) if one.requires_grad]
        torch.autograd.grad(ends, leaves, [torch.ones_like(one) for one in ends], allow_unused=True)
    return [_resources(*one) for one in exchanged.loaded]


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*", metavar="OP")
    parser.add_argument("--target", type=int, choices=SHARED, default=90)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--time", type=int, default=130)
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--packed", action="store_true")
    options = parser.parse_args(arguments)
    if interpreted():
        print("compilation: TRITON_INTERPRET=1 leaves nothing to compile: unset it", file=sys.stderr)
        return 2
    from contexture.discovery import ops
    from contexture.ops.kernels import has_kernel
    from contexture.ops.lean_decode import DECODE

    every = [name for name in ops() if has_kernel(name) and not (options.packed and name == DECODE.name)]
    settings = {"target": options.target, "dim": options.dim, "time": options.time, "packed": options.packed}
    status = 0
    for name in options.ops or every:
        try:
            for kernel in compile_kernels(name, dtype=getattr(torch, options.dtype), **settings):
                used = f"{kernel.registers} registers, {kernel.spilled} bytes spilled, {kernel.shared} bytes shared"
                print(f"{name} {kernel.name}: {used}, {kernel.seconds:.1f} s", flush=True)
        except Exception as error:
            status = 1
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
