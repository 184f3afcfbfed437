"""torch's optimisers over the members of a cohort, each with its own learning rate.

An optimiser sees every member's parameters as tensors of their own, which share memory with the stacked ones. So its
state for a member is that of a plain model, and a member trained in a cohort is a model trained alone.

    Muon:   the matrices of the backbone;    AdamW: the rest, or everything;    decay acts on matrices alone
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from contexture.training.config import OptimiserConfig

Members = Sequence[Mapping[str, nn.Parameter]]


class MemberOptimiser:
    """One step for all members; `rates` scale each member's own learning rate."""

    def __init__(self, members: Members, configs: Sequence[OptimiserConfig]) -> None:
        self.members = members
        self._rates: list[tuple[torch.optim.Optimizer, list[float]]] = []
        adamw: list[dict[str, object]] = []
        muon: list[dict[str, object]] = []
        for parameters, config in zip(members, configs, strict=True):
            matrices = {name for name, value in parameters.items() if value.dim() == 2}
            inner = {name for name in matrices if "blocks." in name} if config.name == "muon" else set()
            for names, decay in ((matrices - inner, config.weight_decay), (parameters.keys() - matrices, 0.0)):
                adamw.append(_group(parameters, names, rate=config.rate, weight_decay=decay))
            if inner:
                muon.append(_group(parameters, inner, rate=config.matrix_rate, weight_decay=config.weight_decay))
        first = configs[0]
        self._add(torch.optim.AdamW(_filled(adamw), betas=first.betas, eps=first.epsilon, fused=True))
        if muon:
            self._add(torch.optim.Muon(_filled(muon), momentum=first.momentum))

    def step(self, factor: float) -> None:
        """Update every parameter with its learning rate times `factor`."""
        for optimiser, rates in self._rates:
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimiser.step()

    def state(self, member: int) -> dict[str, Tensor]:
        """The state of one member's parameters by "name:key", as a plain model's optimiser would hold it."""
        return {
            f"{name}:{key}": value
            for name, parameter in self.members[member].items()
            for key, value in self._state_of(parameter)
        }

    def load_state(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for name, value in state.items():
            parameter_name, key = name.rsplit(":", 1)
            parameter = self.members[member][parameter_name]
            self._owner(parameter).state[parameter][key] = value

    def _add(self, optimiser: torch.optim.Optimizer) -> None:
        self._rates.append((optimiser, [group["lr"] for group in optimiser.param_groups]))

    def _owner(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        return next(
            optimiser
            for optimiser, _ in self._rates
            if any(parameter is held for group in optimiser.param_groups for held in group["params"])
        )

    def _state_of(self, parameter: nn.Parameter) -> Iterator[tuple[str, Tensor]]:
        yield from self._owner(parameter).state.get(parameter, {}).items()


def _group(
    parameters: Mapping[str, nn.Parameter], names: set[str], *, rate: float, weight_decay: float
) -> dict[str, object]:
    # In the model's order: a set's would change from one process to the next.
    chosen = [value for name, value in parameters.items() if name in names]
    return {"params": chosen, "lr": rate, "weight_decay": weight_decay}


def _filled(groups: list[dict[str, object]]) -> list[dict[str, object]]:
    return [group for group in groups if group["params"]]
