r"""A model of how an induction head forms: three numbers, each of use only once the one inside it has grown.

    joined   j = e^b / (e^b + N - 1)                        a label's weight on its own item, of N tokens
    found    f = e^(m j) / (e^(m j) + N - 1)                the query's weight on the right label, of N
    said     e^(g f) / (e^(g f) + (N - 1) e^(g (1 - f) / (N - 1)) + L - N)     the probability of that label, of L
    alone    e^g / (e^g + L - 1)                            the same without a chain: g is the right label's logit

b, m and g follow the gradient of log said. While nothing is found, g learns that the answer is among the context's N
labels, if there are more than these; this makes finding one of use, and that makes joining of use. After the
phenomenological model of Reddy 2023, arXiv:2312.03002; the forms are ours.
Shapes: the path [runs, steps, 3] holds joined, found, said.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def nested_flow(
    start: Float[Tensor, "runs 3"],
    *,
    num_items: int,
    num_labels: int,
    rate: float,
    steps: int,
    alone: bool = False,
) -> Float[Tensor, "runs steps 3"]:
    """Joined, found and said before each step of gradient ascent from `start`, whose columns are b, m, g.

    >>> path = nested_flow(torch.zeros(1, 3), num_items=4, num_labels=16, rate=0.1, steps=1)
    >>> path[0, 0].tolist()
    [0.25, 0.25, 0.0625]
    """
    at, others, path = start, num_items - 1, []
    for _ in range(steps):
        with torch.enable_grad():
            at.requires_grad_(True)
            b, m, g = at.unbind(1)
            joined = b.exp() / (b.exp() + others)
            found = (m * joined).exp() / ((m * joined).exp() + others)
            right = (g if alone else g * found).exp()
            rest = num_labels - 1 if alone else others * (g * (1 - found) / others).exp() + num_labels - num_items
            said = right / (right + rest)
            (slope,) = torch.autograd.grad(said.log().sum(), at)
        path.append(torch.stack((joined, found, said), 1).detach())
        at = (at + rate * slope).detach()
    return torch.stack(path, 1)
