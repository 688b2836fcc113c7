"""Cuts parameters into groups as the request's patterns say. How a group moves is the optimizer's work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from contracts.request.optimizer import ParameterGroup
from runtime.engine.patterns import picked
from runtime.engine.workload import Group


def grouped(groups: Sequence[Group], rules: Sequence[ParameterGroup], model: nn.Module) -> list[Group]:
    """The groups without what the rules take out of them, each followed by what was taken, rule by rule.

    What a rule takes keeps its group's rate times the rule's own, and its group's decay unless the rule has one.
    """
    names = {id(one): name for name, one in model.named_parameters()}
    takers = dict[str, int]()
    for index, rule in enumerate(rules):
        for name in picked(rule.parameters, names.values(), f"optimizer.groups.{index}.parameters"):
            takers.setdefault(name, index)
    return [part for group in groups for part in _cut(group, rules, names, takers)]


def _cut(
    group: Group, rules: Sequence[ParameterGroup], names: dict[int, str], takers: dict[str, int]
) -> Iterator[Group]:
    taken = [takers.get(names.get(id(one), "")) for one in group.parameters]
    rest = [one for one, taker in zip(group.parameters, taken, strict=True) if taker is None]
    yield Group(rest, group.rate, group.weight_decay)
    for index, rule in enumerate(rules):
        own = [one for one, taker in zip(group.parameters, taken, strict=True) if taker == index]
        decay = group.weight_decay if rule.weight_decay is None else rule.weight_decay
        yield Group(own, group.rate * rule.rate, decay)
