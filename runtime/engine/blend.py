"""Weighs several losses against each other, as written or by what training finds out about them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from contracts.errors import UserCodeFailed
from contracts.request.loss import MultiTask


class Blend(nn.Module):
    """One number from losses by name; `balance` is what an adaptive one learns, and is state.

    With uncertainty u = exp(balance) a term counts weight / u * loss + balance: to call a loss uncertain has its price.
    """

    def __init__(self, options: MultiTask) -> None:
        super().__init__()
        self._weights = {term.name: term.weight for term in options.terms}
        self.balance = nn.Parameter(torch.zeros(len(options.terms))) if options.adaptive else None

    def forward(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to go down, and what is recorded: each term, and its weight where that changes."""
        terms = self._terms(losses)
        told = {name: loss.detach() for name, loss in losses.items() if name != "loss"}
        if self.balance is None:
            return torch.stack([weight * loss for weight, loss in terms.values()]).sum(), told
        trust = (-self.balance).exp()
        blended = [trust[at] * weight * loss + self.balance[at] for at, (weight, loss) in enumerate(terms.values())]
        told |= {
            f"weight_{name}": (trust[at] * weight).detach() for at, (name, (weight, _)) in enumerate(terms.items())
        }
        return torch.stack(blended).sum(), told

    def fixed(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The loss with weights as written, by which models are compared."""
        return torch.stack([weight * loss for weight, loss in self._terms(losses).values()]).sum()

    def tensors(self) -> dict[str, Tensor]:
        """What is learned about the losses, as part of the state by name."""
        return {f"loss.{name}": parameter for name, parameter in self.named_parameters()}

    def _terms(self, losses: Mapping[str, Tensor]) -> dict[str, tuple[float, Tensor]]:
        if missing := [name for name in self._weights if name not in losses]:
            cure = f"Return it beside {', '.join(map(repr, losses))}, or leave the term out."
            raise UserCodeFailed(f"the workload returned no loss {missing[0]!r}", cure=cure)
        return {name: (weight, losses[name]) for name, weight in self._weights.items()}
