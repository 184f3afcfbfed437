r"""What is left to a layer that is pretrained on so many prompts, to the best one of its kind.

    said = q' G X'y / n,  G fitted to prompts by least squares;     best: G = I / (1 + 1/n + (d + s^2) / n)

for x, w ~ N(0, I) and y = <w, x> + s N(0, 1), n examples to a prompt.
Shapes: every run of pretraining has prompts of its own: q, X'y / n [runs, prompts, features].
"""

import torch
from torch import Tensor

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.tasks.draws import integers, normal

FEW, MANY = 256, 4096
EXAMPLES = 8


def pretraining_error(
    run: Run, *, num_features: int, noise: float, pool: int = 0, exact: bool = False, name: str
) -> Samples:
    """The total variation between a layer pretrained on 4,096 prompts and the best one, per that for 256 prompts.

    The layer predicts q' G X'y / n with noise of variance s^2 and is fitted by least squares. pool: all prompts are of
    so many tasks. exact: the law of 1/sqrt(prompts) itself, with a draw in place of the pretrained layer's error.
    """
    runs = run.setting("runs of pretraining", smoke=32, cpu=96)
    asked = 256
    best = 1 / (1 + 1 / EXAMPLES + (num_features + noise**2) / EXAMPLES)

    def draw(count: int, generator: torch.Generator, known: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        x = normal(runs, count, EXAMPLES + 1, num_features, generator=generator)
        w = normal(runs, count, num_features, 1, generator=generator)
        if known is not None:
            chosen = integers(runs, count, below=known.shape[1], generator=generator)
            w = known.gather(1, chosen.unsqueeze(2).expand(-1, -1, num_features)).unsqueeze(3)
        y = (x @ w).squeeze(3) + noise * normal(runs, count, EXAMPLES + 1, generator=generator)
        h = (x[:, :, :-1].mT @ y[:, :, :-1, None]).squeeze(3) / EXAMPLES
        return x[:, :, -1], h, y[:, :, -1]

    def one(seed: int) -> OneSeed:
        generator = run.generator(seed, "pretrain")
        known = normal(runs, pool, num_features, generator=generator) if pool else None
        query, moment, target = draw(asked, run.generator(seed, "evaluate"), None)
        wanted = best * (query * moment).sum(2)

        def pretrained(count: int) -> Tensor:
            if exact:
                error = normal(runs, num_features, num_features, generator=run.generator(seed, "error"))
                matrix = best * torch.eye(num_features, dtype=error.dtype) + error / count**0.5
            else:
                q, h, y = draw(count, generator, known)
                products = (q[:, :, :, None] * h[:, :, None]).flatten(2)
                matrix = torch.linalg.lstsq(products, y.unsqueeze(2)).solution.view(runs, num_features, num_features)
            return torch.einsum("rqa,rab,rqb->rq", query, matrix, moment)

        counts = [FEW * 4**k for k in range(3)]
        said = {count: pretrained(count) for count in counts}
        # Two normal laws of variance s^2 whose means differ by g are erf(g / (s sqrt 8)) apart.
        apart = {count: ((ours - wanted).abs() / (noise * 8**0.5)).erf().mean(1) for count, ours in said.items()}
        return OneSeed(
            values=apart[MANY],
            per=apart[FEW],
            errors=(said[MANY] - target).square().mean(1),
            zero_errors=target.square().mean(1),
            curves={name: (counts, torch.stack([value.mean() for value in apart.values()]))},
        )

    return over_seeds(run, one)
