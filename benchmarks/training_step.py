"""How long a training step of the in-context transformer takes, beside plain PyTorch and its authors' own step.

    python benchmarks/training_step.py                    # writes results/benchmarks/training_step.json
    git clone https://github.com/dtsip/in-context-learning
    python benchmarks/training_step.py --peer in-context-learning/src

`small` is 3 layers of width 64 with 4 heads on 21 points of 8 features; `standard` is that of Garg et al. 2022: 12
layers of width 256 with 8 heads on 41 points of 20 features. Points are interleaved into twice as many tokens; batch
64, Adam. In fp32, and under bf16 autocast where the processor multiplies bf16 by itself. The sides take turns, step by
step; the median step counts, in milliseconds: of processor time on one thread, of the clock on more.

The plain transformer is written as one would: pre-norm blocks, one projection for queries, keys and values, torch's
fused attention, exact GELU, learned positions, predictions read at every second token. The authors' own step is the
function `train_step` of that repository on its `TransformerModel` (it needs transformers, xgboost and scikit-learn).
"""

import argparse
import importlib
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.store.environment import environment
from contexture.store.results import write_result
from contexture.training.precision import resolve

RESULT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "training_step.json"
BATCH = 64
PEER = "dtsip/in-context-learning"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A transformer and its prompts."""

    layers: int
    width: int
    heads: int
    features: int
    points: int


SHAPES = {
    "small": Shape(layers=3, width=64, heads=4, features=8, points=21),
    "standard": Shape(layers=12, width=256, heads=8, features=20, points=41),
}


class PlainBlock(nn.Module):
    """Attention and a feed-forward network behind norms."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, self.heads = shape.width, shape.heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projection = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.enter, self.leave = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        batch, time, width = x.shape
        parts = self.projection(self.first(x)).split(width, -1)
        q, k, v = (part.view(batch, time, self.heads, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.leave(F.gelu(self.enter(self.second(x))))


class PlainTransformer(nn.Module):
    """Pairs as tokens, blocks, and a number at every x."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.x, self.y = nn.Linear(shape.features, width), nn.Linear(1, width)
        self.positions = nn.Embedding(2 * shape.points, width)
        self.blocks = nn.Sequential(*(PlainBlock(shape) for _ in range(shape.layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Predict every y."""
        tokens = torch.stack((self.x(x), self.y(y.unsqueeze(-1))), 2).flatten(1, 2)
        hidden = self.blocks(tokens + self.positions(torch.arange(tokens.shape[1])))
        return self.head(self.norm(hidden))[:, ::2, 0]


class Ours(nn.Module):
    """Our model of the same shape."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        backbone = BackboneConfig(
            pattern=f"softmax*{shape.layers}",
            width=shape.width,
            num_heads=shape.heads,
            positions="learned",
            max_length=2 * shape.points,
            settings={"softmax": {"positions": "none"}},
        )
        config = PairsModelConfig(num_features=shape.features, backbone=backbone)
        self.model = PairsModel(config, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean alone."""
        mean = self.model(x, y).mean
        assert mean is not None
        return mean


def stepper(model: nn.Module, x: Tensor, y: Tensor, *, bf16: bool) -> Callable[[], None]:
    """One training step of `model`."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            predicted = model(x, y)
        torch.autograd.backward((predicted.float() - y).square().mean())
        optimiser.step()
        optimiser.zero_grad()

    return step


def peer_stepper(folder: Path, shape: Shape, x: Tensor, y: Tensor) -> Callable[[], None]:
    """The authors' own step, from a checkout of their code."""
    sys.path.insert(0, str(folder))
    model = importlib.import_module("models").TransformerModel(
        n_dims=shape.features, n_positions=shape.points, n_embd=shape.width, n_layer=shape.layers, n_head=shape.heads
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        # The body of train_step in their train.py, which itself imports a service for logging.
        optimiser.zero_grad()
        output = model(x, y)
        loss = (y - output).square().mean()
        torch.autograd.backward(loss)
        optimiser.step()
        loss.detach().item()

    return step


def sides(shape: Shape, peer: Path | None) -> dict[tuple[str, str], Callable[[], None]]:
    """Every step that is timed, by what it is and its dtype."""
    x = torch.randn(BATCH, shape.points, shape.features, generator=torch.Generator().manual_seed(0))
    y = x.sum(-1)
    found = {(PEER, "fp32"): peer_stepper(peer, shape, x, y)} if peer is not None else {}
    for dtype in ("fp32", "bf16") if resolve("auto") == "bf16" else ("fp32",):
        for name, build in (("plain PyTorch", PlainTransformer), ("contexture", Ours)):
            found[name, dtype] = stepper(build(shape), x, y, bf16=dtype == "bf16")
    return found


def in_turns(steps: Sequence[Callable[[], None]], *, rounds: int, threads: int) -> list[float]:
    """The median milliseconds of each, after two rounds that do not count."""
    clock = time.process_time if threads == 1 else time.perf_counter
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds + 2):
        for step, taken in zip(steps, times, strict=True):
            began = clock()
            step()
            taken.append(clock() - began)
    return [1e3 * median(taken[2:]) for taken in times]


def main(arguments: list[str] | None = None) -> int:
    """Measure everything, print a line each, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peer", type=Path, help="the folder src of a checkout of dtsip/in-context-learning")
    parser.add_argument("--output", type=Path, default=RESULT)
    chosen = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for name in chosen.shapes:
        timed = sides(SHAPES[name], chosen.peer)
        for threads in chosen.threads:
            torch.set_num_threads(threads)
            taken = in_turns(list(timed.values()), rounds=chosen.rounds, threads=threads)
            for (model, dtype), milliseconds in zip(timed, taken, strict=True):
                faster = round(taken[0] / milliseconds, 2)
                row = {"shape": name, "threads": threads, "model": model, "dtype": dtype}
                rows.append({**row, "milliseconds": round(milliseconds, 2), "of_first": faster})
                print(*rows[-1].values(), sep="\t", file=sys.stderr, flush=True)
    asked = ["--rounds", str(chosen.rounds), "--threads", *map(str, chosen.threads)]
    if chosen.peer is not None:
        asked += ["--peer", "in-context-learning/src"]
    document = {
        "benchmark": "training step",
        "unit": "milliseconds: of processor time on one thread, of the clock on more; of_first: times the first's rate",
        "shapes": {name: asdict(shape) for name, shape in SHAPES.items()},
        "batch": BATCH,
        "command": shlex.join(["python", "benchmarks/training_step.py", *asked]),
        "environment": environment(),
    }
    write_result(chosen.output, {**document, "rows": rows})
    print(f"written to {chosen.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
