"""A workload of the live bench of flipped bits: a small sound network, and the one process in which a bit flips.

The first process that takes step `step` makes the file `mark` and flips one bit of its own memory, by chance from
`draw`; processes that compute the step again find the file and flip nothing.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional

from runtime.engine import checkpoint
from stigmergy import Workload


class Flipping(Workload):
    """Two layers for classes; `place` is what is flipped, and empty where nothing is."""

    class Options(BaseModel):
        """Where and when a bit flips."""

        place: str = ""
        step: int = 0
        draw: str = ""
        mark: str = ""

    def build(self, o: Any, facts: Any) -> nn.Module:
        self._asked, self._taken = o, 0
        inside = int(np.prod(facts.shape))
        return nn.Sequential(
            nn.Flatten(), nn.Linear(inside, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, facts.outputs)
        )

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        if model.training:
            if self._asked.place and self._taken == self._asked.step and self._is_first():
                self._flip(model, batch)
            self._taken += 1
        return functional.cross_entropy(model(batch["x"]), batch["y"])

    def _is_first(self) -> bool:
        try:
            Path(self._asked.mark).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _flip(self, model: nn.Module, batch: Mapping[str, Tensor]) -> None:
        match self._asked.place:
            case "weights":
                self._in_one_of(dict(model.state_dict()))
            case "optimizer":
                frame = sys._getframe()  # noqa: SLF001 - the memory of a machine knows no privacy
                while "setup" not in frame.f_locals:
                    frame = frame.f_back  # type: ignore[assignment]
                held = frame.f_locals["setup"].tensors()
                self._in_one_of({name: one for name, one in held.items() if not name.startswith("model.")})
            case "batch":
                self._in_one_of(batch)
            case "gradient":
                names = dict(model.named_parameters())
                name = random.Random(self._asked.draw).choice(sorted(names))

                def flipped(parameter: Tensor) -> None:
                    hook.remove()
                    self._in_one_of({name: parameter.grad})  # type: ignore[dict-item]

                hook = names[name].register_post_accumulate_grad_hook(flipped)
            case "checkpoint":
                seal = checkpoint.seal

                def sealed(tensors: Mapping[str, Tensor], *more: Any) -> Any:
                    if type(sys._getframe(1).f_locals.get("self")).__name__ == "Keeper":  # noqa: SLF001
                        checkpoint.seal = seal
                        self._in_one_of(tensors)
                    return seal(tensors, *more)

                checkpoint.seal = sealed

    def _in_one_of(self, named: Mapping[str, Tensor]) -> None:
        """Flip one bit of these tensors, each as likely as it is large."""
        chance = random.Random(self._asked.draw)
        names = sorted(name for name, one in named.items() if one.numel())
        (name,) = chance.choices(names, [named[one].numel() * named[one].element_size() for one in names])
        array = named[name].detach().numpy()
        at = tuple(chance.randrange(size) for size in array.shape)
        element = bytearray(array[at].tobytes())
        bit = chance.randrange(8 * len(element))
        element[bit // 8] ^= 1 << bit % 8
        before, array[at] = array[at].copy(), np.frombuffer(bytes(element), array.dtype)[0]
        Path(self._asked.mark).write_text(f"bit {bit} of {name}{list(at)}: {before} -> {array[at]}")
