"""Cohorts: K models of one shape held as one, each leaf's parameters stacked along a leading axis.

    stack([m_1, ..., m_K])    p_1, ..., p_K  ->  p [K, ...]
    unstack(m, k)             p [K, ...]     ->  p[k]

The stacked model takes its input folded, [K * batch, ...] with members outermost, and gives its output so. The loss of
a cohort is the sum of its members' losses: no member's gradient holds anything of another's.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.leaf import Leaf

Model = TypeVar("Model", bound=nn.Module)


def stack(models: Sequence[Model]) -> Model:
    """One model with a member axis on every parameter, from models of one shape; the models are left as they are.

    Raises InputError if names, shapes or dtypes differ, or if a parameter lies outside `contexture.leaves`.
    """
    if not models:
        raise InputError("a cohort needs at least one model")
    named = [dict(model.named_parameters()) for model in models]
    for index, parameters in enumerate(named[1:], start=1):
        if _signature(parameters) != _signature(named[0]):
            raise InputError(
                f"model {index} of the cohort has parameters of other names, shapes or dtypes than model 0"
            )
    cohort = copy.deepcopy(models[0])
    _replace(cohort, len(models), {name: torch.stack([one[name].detach() for one in named]) for name in named[0]})
    return cohort


def unstack(model: Model, member: int) -> Model:
    """One member of a cohort as a plain model with parameters of its own."""
    count = num_members(model)
    if count is None or not 0 <= member < count:
        raise InputError(f"there is no member {member} in a cohort of {count or 'no members'}")
    plain = copy.deepcopy(model)
    _replace(plain, None, {name: value.detach()[member].clone() for name, value in model.named_parameters()})
    return plain


def num_members(model: nn.Module) -> int | None:
    """How many models a cohort holds; None for a plain model."""
    return next((module.members for module in model.modules() if isinstance(module, Leaf)), None)


def member_parameters(model: nn.Module) -> list[dict[str, nn.Parameter]]:
    """Each member's parameters under a plain model's names, sharing memory with the model's own.

    A plain model is its own only member. `share_gradients` hands the gradients on.
    """
    named = dict(model.named_parameters())
    count = num_members(model)
    if count is None:
        return [named]
    return [
        {name: nn.Parameter(value.detach()[k], requires_grad=value.requires_grad) for name, value in named.items()}
        for k in range(count)
    ]


def share_gradients(model: nn.Module, members: Sequence[Mapping[str, nn.Parameter]]) -> None:
    """Let every member's parameters see their part of the model's gradients."""
    if num_members(model) is None:
        return
    for name, value in model.named_parameters():
        for k, parameters in enumerate(members):
            parameters[name].grad = None if value.grad is None else value.grad[k]


def clip_gradients(model: nn.Module, largest: float | None) -> Tensor:
    """Scale each member's gradient to a norm of at most `largest`; returns the norms before that, [members]."""
    count = num_members(model) or 1
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    squares = torch.stack([gradient.view(count, -1).square().sum(1) for gradient in gradients])
    norms = squares.sum(0).sqrt()
    if largest is not None:
        scale = (largest / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.view(count, -1).mul_(scale.unsqueeze(1))
    return norms


def _replace(model: nn.Module, members: int | None, values: Mapping[str, Tensor]) -> None:
    """Give `model` these parameters; one that several leaves share stays shared, and a frozen one frozen."""
    held = {
        id(value): nn.Parameter(values[name], requires_grad=value.requires_grad)
        for name, value in model.named_parameters()
    }
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if own and not isinstance(module, Leaf):
            raise InputError(f"{name or 'the model'} holds parameters but is not one of contexture.leaves")
        if isinstance(module, Leaf):
            module.members = members
        for parameter_name, value in own.items():
            setattr(module, parameter_name, held[id(value)])


def _signature(parameters: Mapping[str, Tensor]) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, value.shape, value.dtype) for name, value in parameters.items()]
