"""How this machine, with these settings, rounds: about forty operator families on fixed exact inputs, hashed.

Equal fingerprints: equal bits are expected, and a difference is an incident. Different ones: not comparable, and the
families that differ are named. It trains nothing and changes no setting.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn
from torch.nn import functional as f

from runtime.engine.draws import reseed
from runtime.engine.passes import computing
from runtime.engine.random_keys import uniform
from runtime.engine.state import root

UNABLE = "unable"

Made = Callable[..., Tensor]
Family = Callable[[Made], Tensor]


@dataclass(frozen=True)
class Fingerprint:
    """One digest over device, precision, threads and all families; and each family's own."""

    digest: str
    families: Mapping[str, str]
    device: str
    precision: str
    threads: int

    def differing(self, other: Mapping[str, str]) -> list[str]:
        """The families, by name, that round otherwise there than here."""
        return sorted(name for name in {*self.families, *other} if self.families.get(name) != other.get(name))


def present(device: str) -> bool:
    """Whether this machine has such a device."""
    return device == "cpu" or torch.cuda.is_available()


def fingerprint(device: str = "cpu", precision: str = "fp32") -> Fingerprint:
    """Measure this process as it is set up now; it leaves torch's generators reseeded.

    Without the device there is nothing to measure, and the fingerprint is that of no machine which has one.
    """
    if not present(device):
        absent = {f"{device} device": "absent"}
        return Fingerprint(str(blake3(repr(absent).encode()).hexdigest()), absent, device, precision, 0)
    families = {}
    for name, family in FAMILIES.items():
        try:
            families[name] = _rounded(family, device, precision)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except RuntimeError:
            # There is no kernel for it here. What trains with it fails by itself; what has no use for it need not.
            families[name] = UNABLE
    # Schedules use the C library's functions.
    points = [number / 7 for number in range(1, 60)]
    values = [function(x) for function in (math.cos, math.exp, math.sqrt, math.log, math.tanh) for x in points]
    families["libm"] = str(blake3(np.array(values, "<f8").tobytes()).hexdigest())[:32]
    threads = torch.get_num_threads()
    listed = "".join(f"{name}={value};" for name, value in sorted(families.items()))
    about = f"{device};{precision};{threads};{torch.__version__};{listed}"
    return Fingerprint(str(blake3(about.encode()).hexdigest()), families, device, precision, threads)


def _rounded(family: Family, device: str, precision: str) -> str:
    """The digest of a family's answer and of the gradients of everything it made."""
    made: list[Tensor] = []

    def make(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        values = torch.from_numpy(uniform(len(made) + 1, math.prod(shape)) * np.float32(high - low) + np.float32(low))
        made.append(values.reshape(shape).to(device).requires_grad_())
        return made[-1]

    reseed(1)
    with computing(precision, device):
        answer = family(make)
    if answer.requires_grad:
        (
            answer.float() * torch.linspace(0.5, 1.5, answer.numel(), device=device).reshape(answer.shape)
        ).sum().backward()  # type: ignore[no-untyped-call]
    seen = {"answer": answer.detach()} | {str(at): one.grad for at, one in enumerate(made) if one.grad is not None}
    return root(seen)[:32]


def _index(*shape: int, below: int) -> Callable[[Tensor], Tensor]:
    whole = torch.from_numpy((uniform(99, math.prod(shape)) * below).astype(np.int64)).reshape(shape)
    return lambda like: whole.to(like.device)


_rows = _index(512, below=97)
_labels = _index(256, below=10)


def _moved(kind: str) -> Family:
    """Three steps of a fused optimizer."""

    def family(make: Made) -> Tensor:
        weight, gradient = make(1031).detach().clone(), make(1031).detach()
        first, second = torch.zeros_like(weight), torch.zeros_like(weight)
        for step in range(1, 4):
            if kind == "sgd":
                torch._fused_sgd_(
                    [weight], [gradient], [first], lr=0.1, weight_decay=0.01, momentum=0.9,
                    dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
                )  # fmt: skip
            else:
                update = torch._fused_adamw_ if kind == "adamw" else torch._fused_adam_
                update(
                    [weight], [gradient], [first], [second], [], [torch.tensor(float(step), device=weight.device)],
                    lr=1e-3, beta1=0.9, beta2=0.999, weight_decay=0.01, eps=1e-8, amsgrad=False, maximize=False,
                )  # fmt: skip
        return weight

    return family


def _recurrent(make: Made) -> Tensor:
    cell = nn.LSTM(16, 24)
    for parameter in cell.parameters():
        parameter.data = make(*parameter.shape, low=-0.2, high=0.2).detach()
    answer: Tensor = cell.to(parameter.device)(make(8, 4, 16))[0]
    return answer


FAMILIES: Mapping[str, Family] = {
    "sum": lambda make: make(100_003).sum(),
    "mean over rows": lambda make: make(257, 131).mean(0),
    "variance": lambda make: make(257, 131).var(1),
    "norm": lambda make: torch.linalg.vector_norm(make(10_007)),
    "logsumexp": lambda make: make(64, 1000).logsumexp(1),
    "dot": lambda make: make(100_003) @ make(100_003),
    "matrix times vector": lambda make: make(256, 1031) @ make(1031),
    "linear small": lambda make: f.linear(make(64, 64), make(256, 64), make(256)),
    "linear tall": lambda make: f.linear(make(4096, 64), make(10, 64), make(10)),
    "linear wide": lambda make: f.linear(make(64, 784), make(256, 784), make(256)),
    "batched product": lambda make: make(8, 33, 47) @ make(8, 47, 29),
    "square product": lambda make: make(256, 256) @ make(256, 256),
    "conv 3x3": lambda make: f.conv2d(make(16, 3, 8, 8), make(32, 3, 3, 3), padding=1),
    "conv 3x3 deep": lambda make: f.conv2d(make(16, 32, 8, 8), make(64, 32, 3, 3), make(64), padding=1),
    "conv 1x1": lambda make: f.conv2d(make(16, 32, 4, 4), make(64, 32, 1, 1)),
    "conv strided": lambda make: f.conv2d(make(8, 16, 16, 16), make(32, 16, 3, 3), stride=2, padding=1),
    "conv 1d": lambda make: f.conv1d(make(8, 16, 64), make(32, 16, 5)),
    "max pool": lambda make: f.max_pool2d(make(8, 16, 8, 8), 2),
    "mean pool": lambda make: make(8, 16, 8, 8).mean((2, 3)),
    "batch norm": lambda make: f.batch_norm(make(64, 32), None, None, make(32), make(32), training=True),
    "batch norm images": lambda make: f.batch_norm(make(16, 8, 7, 7), None, None, make(8), make(8), training=True),
    "layer norm": lambda make: f.layer_norm(make(64, 128), (128,), make(128), make(128)),
    "group norm": lambda make: f.group_norm(make(16, 32, 5, 5), 4, make(32), make(32)),
    "relu": lambda make: make(10_007).relu(),
    "gelu": lambda make: f.gelu(make(10_007, low=-4, high=4)),
    "silu": lambda make: f.silu(make(10_007, low=-4, high=4)),
    "tanh": lambda make: make(10_007, low=-4, high=4).tanh(),
    "sigmoid": lambda make: make(10_007, low=-4, high=4).sigmoid(),
    "exp and log": lambda make: (make(10_007).exp() + 1).log(),
    "division and root": lambda make: make(10_007, low=1, high=2) / make(10_007, low=1, high=2).sqrt(),
    "softmax": lambda make: make(64, 257, low=-8, high=8).softmax(1),
    "cross entropy": lambda make: f.cross_entropy(x := make(256, 10), _labels(x), label_smoothing=0.1),
    "mean squared error": lambda make: f.mse_loss(make(1031), make(1031)),
    "huber": lambda make: f.huber_loss(make(1031), make(1031), delta=0.3),
    "embedding": lambda make: f.embedding(_rows(w := make(97, 32)), w),
    "gather rows": lambda make: (x := make(97, 32)).index_select(0, _rows(x)),
    "attention": lambda make: f.scaled_dot_product_attention(
        make(2, 4, 17, 16), make(2, 4, 17, 16), make(2, 4, 17, 16)
    ),
    "lstm": _recurrent,
    "dropout": lambda make: f.dropout(make(10_007), 0.3),
    "random normal": lambda make: torch.randn(1031, device=make(1).device),
    "clipping": lambda make: (x := make(10_007)) * torch.clamp(1.0 / (torch.linalg.vector_norm(x) + 1e-6), max=1.0),
    "fused sgd": _moved("sgd"),
    "fused adam": _moved("adam"),
    "fused adamw": _moved("adamw"),
}
