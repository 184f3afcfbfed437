"""How long a training step takes, beside a plain PyTorch transformer of the same shape.

    python benchmarks/training_step.py              # writes results/benchmarks/training_step.json

Four layers of width 64 with four heads, 25 points of 8 features interleaved into 50 tokens, batch 64, AdamW, clipping;
in fp32 and under bf16 autocast, on one thread. Both sides take turns, step by step; the median step counts, in
milliseconds of processor time.

The plain transformer is written as one would: pre-norm blocks, one projection for queries, keys and values, torch's
fused attention, exact GELU, learned positions, predictions read at every second token.
"""

import argparse
import sys
import time
from collections.abc import Callable
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

RESULT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "training_step.json"
LAYERS, WIDTH, HEADS, FEATURES, POINTS, BATCH = 4, 64, 4, 8, 25, 64


class PlainBlock(nn.Module):
    """Attention and a feed-forward network behind norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.projection = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.output = nn.Linear(WIDTH, WIDTH, bias=False)
        self.enter, self.leave = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        batch, time, _ = x.shape
        parts = self.projection(self.first(x)).split(WIDTH, -1)
        q, k, v = (part.view(batch, time, HEADS, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, time, WIDTH))
        return x + self.leave(F.gelu(self.enter(self.second(x))))


class PlainTransformer(nn.Module):
    """Pairs as tokens, blocks, and a number at every x."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y = nn.Linear(FEATURES, WIDTH), nn.Linear(1, WIDTH)
        self.positions = nn.Embedding(2 * POINTS, WIDTH)
        self.blocks = nn.Sequential(*(PlainBlock() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Predict every y."""
        tokens = torch.stack((self.x(x), self.y(y.unsqueeze(-1))), 2).flatten(1, 2)
        hidden = self.blocks(tokens + self.positions(torch.arange(tokens.shape[1])))
        return self.head(self.norm(hidden))[:, ::2, 0]


def ours(positions: str) -> nn.Module:
    """Our model of the same shape."""
    learned = positions == "learned"
    backbone = BackboneConfig(
        pattern=f"softmax*{LAYERS}",
        width=WIDTH,
        num_heads=HEADS,
        positions="learned" if learned else "none",
        max_length=2 * POINTS,
        settings={"softmax": {"positions": "none" if learned else "rotary"}},
    )
    model = PairsModel(
        PairsModelConfig(num_features=FEATURES, backbone=backbone), generator=torch.Generator().manual_seed(0)
    )
    return _Mean(model)


class _Mean(nn.Module):
    def __init__(self, model: PairsModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean alone."""
        mean = self.model(x, y).mean
        assert mean is not None
        return mean


def stepper(model: nn.Module, x: Tensor, y: Tensor, *, bf16: bool) -> Callable[[], None]:
    """One training step of `model`."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            predicted = model(x, y)
        torch.autograd.backward((predicted.float() - y).square().mean())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def main(arguments: list[str] | None = None) -> int:
    """Measure everything, print a line each, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--output", type=Path, default=RESULT)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    x = torch.randn(BATCH, POINTS, FEATURES, generator=torch.Generator().manual_seed(0))
    y = x.sum(-1)
    models = {
        "plain PyTorch": PlainTransformer,
        "contexture, learned positions": lambda: ours("learned"),
        "contexture, rotary positions": lambda: ours("rotary"),
    }
    sides = {
        (name, "bf16" if bf16 else "fp32"): stepper(build(), x, y, bf16=bf16)
        for bf16 in (False, True)
        for name, build in models.items()
    }
    times: dict[tuple[str, str], list[float]] = {side: [] for side in sides}
    for _ in range(chosen.steps + 2):
        for side, step in sides.items():
            began = time.process_time()
            step()
            times[side].append(time.process_time() - began)
    rows: list[dict[str, Any]] = []
    for (name, dtype), seconds in times.items():
        rows.append({"model": name, "dtype": dtype, "milliseconds": round(1e3 * median(seconds[2:]), 2)})
        print(*rows[-1].values(), sep="\t", file=sys.stderr)
    document = {"benchmark": "training step", "unit": "milliseconds of processor time", "environment": environment()}
    write_result(chosen.output, {**document, "rows": rows})
    print(f"written to {chosen.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
