"""Silent bugs in workloads: each planted one is found at its line with its cure, and sound code is not accused.

A planted bug stands in the line that ends in `# here`, or in the file as a whole where none does.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from contracts.request import read_request
from runtime.cli.init import WORKLOAD
from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.engine.plan import Plan
from runtime.engine.ragged import Ragged
from runtime.engine.random_keys import uniform
from runtime.engine.resolve import resolve
from runtime.home.code_review import review_source
from runtime.home.silent_bugs import SILENT_BUGS
from runtime.home.workloads import enlist, inspect_file
from runtime.model.batch_review import review_batch

HEAD = """
import random
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from stigmergy import Workload
"""

LOSS = """
    def loss(self, model, batch):
        return F.cross_entropy(model(batch["x"]), batch["y"])
"""

NUMBERS = """
    def loss(self, model, batch):
        return F.mse_loss(model(batch["x"]).squeeze(1), batch["y"].float())
"""


def workload(build: str, loss: str = LOSS, net: str = "", more: str = "") -> str:
    """A workload in a file: the body of build, its loss, a module's body, and further methods."""
    module = f"class Net(nn.Module):\n{textwrap.indent(textwrap.dedent(net), '    ')}\n" if net else ""
    body = textwrap.indent(textwrap.dedent(build).strip(), " " * 8)
    rest = textwrap.indent(textwrap.dedent(more), " " * 4)
    return f"{HEAD}\n{module}\nclass Own(Workload):\n    def build(self, o, facts):\n{body}\n{loss}\n{rest}\n"


def net(init: str, forward: str) -> str:
    """The body of a module from the bodies of its two methods."""
    parts = (textwrap.indent(textwrap.dedent(text).strip(), " " * 4) for text in (init, forward))
    begin, answer = parts
    return f"def __init__(self):\n    super().__init__()\n{begin}\ndef forward(self, x):\n{answer}"


def of(loss: str, at: str = "") -> str:
    """A loss of one expression; `at` says which of its two lines is marked."""
    begin, end = ("  # here" if at == one else "" for one in ("def", "return"))
    return f"\n    def loss(self, model, batch):{begin}\n        return {loss}{end}\n"


SOUND_NET = "return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))"
ONE_ANSWER = "return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))"


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """Prepared rows by task: classes, numbers below and above 0, images, sequences, series, texts of any length."""
    made = {}
    for name in ("classes", "numbers", "images", "large", "tokens", "series", "binary", "texts"):
        splits = {}
        for at, (split, count) in enumerate({"train": 96, "val": 24, "test": 24}.items(), 1):
            shape = {"images": (1, 8, 8), "series": (5, 4), "tokens": (12,)}.get(name, (6,))
            x = uniform(at, count * int(np.prod(shape))).reshape(count, *shape).astype(np.float32) * 2 - 1
            y = (uniform(at + 9, count) * (2 if name == "binary" else 3)).astype(np.int64)
            columns = {"x": x, "y": y}
            if name == "numbers":
                columns = {"x": x, "y": (x.sum(1) * 3).astype(np.float32)}
            elif name == "large":
                columns = {"x": (x * 200 + 100).astype(np.float32), "y": y}
            elif name == "tokens":
                columns = {"x": ((x + 1) * 7.49).astype(np.int64)}
            elif name == "texts":
                words = [((row[: 1 + at % 6] + 1) * 7.49).astype(np.int64) for at, row in enumerate(x)]
                columns = {"x": Ragged.of(words), "y": y}
            splits[split] = columns
        task = {"numbers": "regression", "tokens": "sequences"}.get(name, "classification")
        place = tmp_path_factory.mktemp(name)
        write(place, splits, describe(splits, task))
        made[name] = Dataset.open(place)
    return made


class Found(NamedTuple):
    """What text and batch show of a workload: the severity by name and line."""

    text: dict[tuple[str, int], str]
    batch: dict[tuple[str, int], str]

    @property
    def alarms(self) -> list[tuple[str, int]]:
        return [place for way in self for place, severity in way.items() if severity != "note"]


def found(source: str, dataset: Dataset, folder: Path, **sections: object) -> Found:
    """What is found in a source, by text and with a batch of the dataset."""
    file = folder / "own.py"
    file.write_text(source)
    entry = inspect_file(str(file))
    enlist([entry])
    raw = {
        "data": {"source": "csv", "path": "x.csv", "target": "y"},
        "model": {"architecture": "workload", "workload": "own"},
        "training": {"epochs": 2, "batch_size": 16},
        **sections,
    }
    request = read_request(raw)
    plan = Plan(request, resolve(request, dataset.facts, cores=1))
    text, batch = review_source(source.encode(), str(file)), review_batch(plan, dataset, file)
    assert all(one.cure == SILENT_BUGS[one.name].cure and one.message for one in (*text, *batch))
    text_and_batch = ({(one.name, one.line): one.severity for one in way} for way in (text, batch))
    return Found(*text_and_batch)


# ---------------------------------------------------------------- sound code

LSTM = net(
    "self.rnn = nn.LSTM(4, 8, batch_first=True)\nself.out = nn.Linear(8, 3)",
    "answers, _ = self.rnn(x)\nreturn self.out(answers[:, -1])",
)
ATTENTION = net(
    """
    self.into, self.out = nn.Linear(4, 8), nn.Linear(8, 3)
    self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    """,
    "return self.out(self.layer(self.into(x)).mean(1))",
)
OWN_ATTENTION = net(
    "self.q, self.k, self.v, self.out = (nn.Linear(4, 4) for _ in range(4))",
    """
    q, k, v = self.q(x), self.k(x), self.v(x)
    weights = (q @ k.transpose(1, 2) / 2).softmax(-1)
    return self.out((weights @ v).mean(1))[:, :3]
    """,
)
HEADS = net(
    "self.qkv = nn.Linear(4, 12)\nself.out = nn.Linear(4, 3)",
    """
    n, t, _ = x.shape
    q, k, v = self.qkv(x).view(n, t, 3, 2, 2).permute(2, 0, 3, 1, 4)
    a = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)
    return self.out(a.transpose(1, 2).reshape(n, t, 4).mean(1))
    """,
)
RESIDUAL = net(
    """
    self.blocks = nn.ModuleList([nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU()) for _ in range(3)])
    self.out = nn.Linear(6, 3)
    """,
    "for block in self.blocks:\n    x = x + block(x)\nreturn self.out(x)",
)
ZERO_HEAD = net(
    "self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 3)\n[nn.init.zeros_(p) for p in self.out.parameters()]",
    "return self.out(self.a(x).relu())",
)
ADAPTER = net(
    """
    self.base, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
    self.down, self.up = nn.Linear(6, 2, bias=False), nn.Linear(2, 8, bias=False)
    nn.init.zeros_(self.up.weight)
    """,
    "return self.out((self.base(x) + self.up(self.down(x))).relu())",
)
SQUEEZE = net(
    """
    self.conv, self.gate = nn.Conv2d(1, 4, 3, padding=1), nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())
    self.out = nn.Linear(4, 3)
    """,
    "h = self.conv(x).relu()\nreturn self.out((h * self.gate(h.mean((2, 3)))[:, :, None, None]).mean((2, 3)))",
)
TIED = net(
    "self.token, self.out = nn.Embedding(16, 8), nn.Linear(8, 16, bias=False)\nself.out.weight = self.token.weight",
    "return self.out(self.token(x).tanh())",
)
CAUSAL = net(
    """
    self.token, self.out = nn.Embedding(16, 8), nn.Linear(8, 16)
    self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    """,
    """
    mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
    return self.out(self.layer(self.token(x), src_mask=mask, is_causal=True))
    """,
)
NEXT_TOKEN = """
    def loss(self, model, batch):
        said = model(batch["x"])[:, :-1]
        return F.cross_entropy(said.reshape(-1, said.shape[-1]), batch["x"][:, 1:].reshape(-1))
"""
AUTOENCODER = """
    def loss(self, model, batch):
        return F.mse_loss(model(batch["x"]), batch["x"])
"""
VARIATIONAL = net(
    "self.into, self.back = nn.Linear(6, 4), nn.Linear(2, 6)",
    """
    mean, log = self.into(x).chunk(2, 1)
    self.kl = 0.5 * (mean ** 2 + log.exp() - 1 - log).mean()
    return self.back(mean + torch.randn_like(mean) * (0.5 * log).exp() if self.training else mean)
    """,
)
RECORDED = """
    def loss(self, model, batch):
        answers = model(batch["x"])
        loss = F.cross_entropy(answers, batch["y"])
        with torch.no_grad():
            right = (answers.argmax(1) == batch["y"]).float().mean()
        return {"loss": loss, "confidence": answers.detach().softmax(1).amax(1).mean(), "right": right}
"""
SHIFTED = """
    def loss(self, model, batch):
        answers = model(batch["x"])
        wrong = F.softmax(answers, dim=1)
        return F.nll_loss(wrong.log(), batch["y"])
"""
BINARY = """
    def loss(self, model, batch):
        return F.binary_cross_entropy_with_logits(model(batch["x"]).squeeze(1), batch["y"].float())
"""
PROBABILITIES = """
    def loss(self, model, batch):
        return nn.BCELoss()(model(batch["x"]).flatten(), batch["y"].float())
"""
CONTRASTIVE = """
    def loss(self, model, batch):
        h = F.normalize(model(batch["x"]), dim=1)
        logits = h @ h.T / 0.1 - torch.eye(len(h)) * 1e9
        same = batch["y"][:, None] == batch["y"][None, :]
        return -(logits.log_softmax(1) * same).sum(1).mean()
"""

SOUND = {
    "linear": (workload("return nn.Linear(6, facts.outputs)"), "classes"),
    "mlp": (workload(SOUND_NET), "classes"),
    "dropout": (
        workload("return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))"),
        "classes",
    ),
    "batch norm": (
        workload("return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))"),
        "classes",
    ),
    "cnn": (
        workload(
            """
            return nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
            )
            """
        ),
        "images",
    ),
    "squeeze and excite": (workload("return Net()", net=SQUEEZE), "images"),
    "group norm": (
        workload(
            "return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.GroupNorm(2, 8), nn.SiLU(), nn.Linear(8, 3))"
        ),
        "images",
    ),
    "lstm": (workload("return Net()", net=LSTM), "series"),
    "transformer": (workload("return Net()", net=ATTENTION), "series"),
    "attention": (workload("return Net()", net=OWN_ATTENTION), "series"),
    "heads": (workload("return Net()", net=HEADS), "series"),
    "residual": (workload("return Net()", net=RESIDUAL), "classes"),
    "zero head": (workload("return Net()", net=ZERO_HEAD), "classes"),
    "adapter": (workload("return Net()", net=ADAPTER), "classes"),
    "tied weights": (workload("return Net()", NEXT_TOKEN, TIED), "tokens"),
    "causal": (workload("return Net()", NEXT_TOKEN, CAUSAL), "tokens"),
    "autoencoder": (
        workload("return nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 6))", AUTOENCODER),
        "classes",
    ),
    "variational": (
        workload(
            "return Net()",
            of('F.mse_loss(model(batch["x"]), batch["x"]) + 0.1 * model.kl'),
            VARIATIONAL,
        ),
        "classes",
    ),
    "regression": (workload(ONE_ANSWER, NUMBERS), "numbers"),
    "regression by hand": (
        workload(
            ONE_ANSWER,
            of('(model(batch["x"])[:, 0] - batch["y"]).square().mean()'),
        ),
        "numbers",
    ),
    "recorded beside": (workload(SOUND_NET, RECORDED), "classes"),
    "log of a softmax": (workload(SOUND_NET, SHIFTED), "classes"),
    "log softmax": (
        workload(SOUND_NET.replace("16, 3)", "16, 3), nn.LogSoftmax(1)"), LOSS.replace("cross_entropy", "nll_loss")),
        "classes",
    ),
    "binary": (workload(ONE_ANSWER, BINARY), "binary"),
    "probabilities": (workload(ONE_ANSWER.replace("16, 1)", "16, 1), nn.Sigmoid()"), PROBABILITIES), "binary"),
    "contrastive": (
        workload("return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))", CONTRASTIVE),
        "classes",
    ),
    "normalised inputs": (workload("return nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))"), "large"),
    "scaled inputs": (
        workload(
            "return nn.Linear(6, 3)",
            LOSS.replace('batch["x"]', '(batch["x"] - 100) / 200')
            + "\n    def predict(self, model, batch):\n        return model((batch['x'] - 100) / 200)\n",
        ),
        "large",
    ),
    "bag of embeddings": (
        workload(
            "return nn.Sequential(nn.EmbeddingBag(16, 8), nn.Linear(8, 3))",
            of('F.cross_entropy(model(batch["x"]), batch["x"][:, 0] % 3)'),
        ),
        "tokens",
    ),
    "words of any length": (
        workload(
            "return nn.ModuleDict({'bag': nn.EmbeddingBag(16, 8, include_last_offset=True), 'out': nn.Linear(8, 3)})",
            of('F.cross_entropy(self.predict(model, batch), batch["y"])'),
            more="""
            def predict(self, model, batch):
                return model['out'](model['bag'](batch['x'], batch['x.offsets']))
            """,
        ),
        "texts",
    ),
    "experts": (
        workload(
            "return Net()",
            net=net(
                "self.gate, self.experts = nn.Linear(6, 4), nn.ModuleList([nn.Linear(6, 3) for _ in range(4)])",
                """
                weights = self.gate(x).softmax(1)
                return weights[:, 0, None] * self.experts[0](x) + weights[:, 1, None] * self.experts[1](x)
                """,
            ),
        ),
        "classes",
    ),
    "patches": (
        workload(
            "return Net()",
            net=net(
                "self.into, self.out = nn.Linear(16, 8), nn.Linear(8, 3)",
                """
                x = x.view(len(x), 1, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(len(x), 4, 16)
                return self.out(self.into(x).relu().mean(1))
                """,
            ),
        ),
        "images",
    ),
    "weights in another form": (
        workload(
            """
            from torch.nn.utils.parametrizations import spectral_norm, weight_norm
            return nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.ReLU(), spectral_norm(nn.Linear(8, 3)))
            """
        ),
        "classes",
    ),
    "encoder and decoder": (
        workload(
            """
            return nn.Sequential(
                nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, stride=2), nn.Sigmoid()
            )
            """,
            of('F.mse_loss(model(batch["x"]), (batch["x"] + 1) / 2)'),
        ),
        "images",
    ),
    "ranking": (
        workload(
            ONE_ANSWER,
            """
    def loss(self, model, batch):
        s, y = model(batch["x"]).squeeze(1), batch["y"]
        return F.softplus(-(s.unsqueeze(1) - s) * torch.sign(y.unsqueeze(1) - y)).mean()
""",
        ),
        "numbers",
    ),
    "several losses": (
        workload(
            "return nn.ModuleDict({'a': nn.Linear(6, 3), 'b': nn.Linear(6, 6)})",
            """
    def loss(self, model, batch):
        classes = F.cross_entropy(model["a"](batch["x"]), batch["y"], label_smoothing=0.1)
        return {"loss": classes + F.l1_loss(model["b"](batch["x"]), batch["x"]), "classes": classes}
""",
            more="def predict(self, model, batch):\n    return model['a'](batch['x'])\n",
        ),
        "classes",
    ),
    "positive numbers": (
        workload(
            ONE_ANSWER.replace("16, 1)", "16, 1), nn.Softplus()"),
            of('F.mse_loss(model(batch["x"])[:, 0], batch["y"].abs())'),
        ),
        "numbers",
    ),
    "features frozen on purpose": (
        workload(
            """
            model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
            model[0].requires_grad_(False)
            return model
            """
        ),
        "classes",
    ),
    "a target network": (
        workload(
            "return Net()",
            """
    def loss(self, model, batch):
        with torch.no_grad():
            wanted = model.other(batch["x"])
        return F.cross_entropy(model(batch["x"]), batch["y"]) + F.mse_loss(model.a(batch["x"]), wanted)
""",
            net(
                """
                self.a, self.out, self.other = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(6, 8)
                self.other.requires_grad_(False)
                """,
                "return self.out(self.a(x).relu())",
            ),
        ),
        "classes",
    ),
    "a teacher that is no part of the model": (
        workload(
            "return Net()",
            of('F.mse_loss(model(batch["x"]), model.teacher[0](batch["x"]))'),
            net(
                """
                self.out, self.teacher = nn.Linear(6, 8), []
                self.teacher.append(Net.frozen())
                """,
                "return self.out(x) - torch.tanh(x).sum(1, keepdim=True) - torch.tanh(self.out(10 * x))",
            )
            + "\n@staticmethod\ndef frozen():\n    return nn.Linear(6, 8).requires_grad_(False)\n",
        ),
        "classes",
    ),
    "a bounded part of a sum": (
        workload(
            "return Net()", net=net("self.out = nn.Linear(6, 6)", "return (3 * x - torch.sigmoid(self.out(x)))[:, :3]")
        ),
        "classes",
    ),
    "noise while training": (
        workload(
            "return Net()",
            net=net(
                "self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 3)",
                """
                h = self.a(x)
                if self.training:
                    h = h + 0.1 * torch.randn_like(h)
                return self.out(F.dropout(h.relu(), 0.2, self.training))
                """,
            ),
        ),
        "classes",
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_code_is_not_accused(name: str, rows: dict[str, Dataset], tmp_path: Path):
    source, task = SOUND[name]
    seen = found(source, rows[task], tmp_path)
    assert seen.alarms == []
    assert "not_looked_at" not in {name for way in seen for name, _ in way}


# ---------------------------------------------------------------- planted bugs

HIDING = """
    def loss(self, model, batch):
        answers = model(batch["x"]).detach()  # here
        return F.cross_entropy(answers, batch["y"]) + 0 * sum(p.sum() for p in model.parameters())
"""

PLANTED: dict[str, tuple[str, str, str]] = {
    "layers in a list": (
        "unregistered",
        workload(
            "return Net()",
            net=net(
                "self.layers = [nn.Linear(6, 6), nn.Linear(6, 6)]  # here\nself.out = nn.Linear(6, 3)",
                "for layer in self.layers:\n    x = layer(x).relu()\nreturn self.out(x)",
            ),
        ),
        "classes",
    ),
    "layers appended to a list": (
        "unregistered",
        workload(
            "return Net()",
            net=net(
                """
                self.layers = []
                for _ in range(2):
                    self.layers.append(nn.Linear(6, 6))  # here
                self.out = nn.Linear(6, 3)
                """,
                "for layer in self.layers:\n    x = layer(x).relu()\nreturn self.out(x)",
            ),
        ),
        "classes",
    ),
    "a tensor for a parameter": (
        "unregistered",
        workload(
            "return Net()",
            net=net(
                "self.scale = torch.ones(6, requires_grad=True)  # here\nself.out = nn.Linear(6, 3)",
                "return self.out(x * self.scale)",
            ),
        ),
        "classes",
    ),
    "a layer of the workload": (
        "unregistered",
        workload(
            "self.head = nn.Linear(8, 3)  # here\nreturn nn.Linear(6, 8)",
            of('F.cross_entropy(self.head(model(batch["x"])), batch["y"])'),
        ),
        "classes",
    ),
    "a layer built in forward": (
        "layer_in_forward",
        workload("return Net()", net=net("self.out = nn.Linear(8, 3)", "return self.out(nn.Linear(6, 8)(x))  # here")),
        "classes",
    ),
    "a layer repeated": (
        "repeated_layer",
        workload("return nn.Sequential(*[nn.Linear(6, 6)] * 3, nn.Linear(6, 3))  # here"),
        "classes",
    ),
    "a layer never called": (
        "unused_layer",
        workload(
            "return Net()",
            net=net("self.hidden = nn.Linear(6, 6)  # here\nself.out = nn.Linear(6, 3)", "return self.out(x)"),
        ),
        "classes",
    ),
    "answers detached in the loss": ("cut_graph", workload(SOUND_NET, HIDING), "classes"),
    "a path without gradients": (
        "cut_graph",
        workload(
            "return Net()",
            net=net(
                "self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 3)",
                "h = self.a(x).relu().detach()  # here\nreturn self.out(h)",
            ),
        ),
        "classes",
    ),
    "no_grad around a part": (
        "cut_graph",
        workload(
            "return Net()",
            net=net(
                "self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 3)",
                "with torch.no_grad():  # here\n    h = self.a(x)\nreturn self.out(h)",
            ),
        ),
        "classes",
    ),
    "data of a tensor": (
        "cut_graph",
        workload(
            "return Net()",
            net=net("self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 3)", "return self.out(self.a(x).data)  # here"),
        ),
        "classes",
    ),
    "a head that the loss leaves out": (
        "no_gradient",
        workload(
            "return Net()",
            net=net("self.a = nn.Linear(6, 3)\nself.b = nn.Linear(6, 3)  # here", "b = self.b(x)\nreturn self.a(x)"),
        ),
        "classes",
    ),
    "a head left out beside what is recorded": (
        "no_gradient",
        workload(
            "return Net()",
            RECORDED,
            net("self.a = nn.Linear(6, 3)\nself.b = nn.Linear(6, 3)  # here", "b = self.b(x)\nreturn self.a(x)"),
        ),
        "classes",
    ),
    "all frozen but normalisation": (
        "frozen",
        workload(
            """
            model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
            for one in (model[0], model[3]):
                one.requires_grad_(False)  # here
            return model
            """
        ),
        "classes",
    ),
    "a group left out": (
        "not_moved",
        workload(
            SOUND_NET,
            more="""
            def param_groups(self, model):  # here
                from stigmergy import Group
                return [Group(list(model[0].parameters()))]
            """,
        ),
        "classes",
    ),
    "weights of one constant": (
        "equal_units",
        workload(
            """
            model = nn.Sequential(
                nn.Linear(6, 8),  # here
                nn.Tanh(),
                nn.Linear(8, 3),
            )
            nn.init.constant_(model[0].weight, 0.1)
            nn.init.constant_(model[0].bias, 0.0)
            nn.init.constant_(model[2].weight, 0.1)
            return model
            """
        ),
        "classes",
    ),
    "a softmax before cross_entropy": (
        "squashed_answers",
        workload(
            "return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(1))  # here",
            LOSS.rstrip() + "  # here\n",
        ),
        "classes",
    ),
    "a softmax in the loss": (
        "squashed_answers",
        workload(SOUND_NET, LOSS.replace('model(batch["x"])', 'model(batch["x"]).softmax(1)').rstrip() + "  # here\n"),
        "classes",
    ),
    "a sigmoid before a loss of logits": (
        "squashed_answers",
        workload(
            ONE_ANSWER.replace("16, 1)", "16, 1), nn.Sigmoid()"),
            """
    def loss(self, model, batch):
        answers = model(batch["x"]).squeeze(1)
        return nn.BCEWithLogitsLoss()(answers, batch["y"].float())  # here
""",
        ),
        "binary",
    ),
    "a ReLU before cross_entropy": (
        "bounded_answers",
        workload(SOUND_NET.replace("16, 3)", "16, 3), nn.ReLU()"), LOSS.rstrip() + "  # here\n"),
        "classes",
    ),
    "a ReLU before targets below 0": (
        "bounded_answers",
        workload(ONE_ANSWER.replace("16, 1)", "16, 1), nn.ReLU()"), NUMBERS.rstrip() + "  # here\n"),
        "numbers",
    ),
    "nll_loss of probabilities": (
        "log_missing",
        workload(
            SOUND_NET.replace("16, 3)", "16, 3), nn.Softmax(1)"),
            LOSS.replace("cross_entropy", "nll_loss").rstrip() + "  # here\n",
        ),
        "classes",
    ),
    "nll_loss of a softmax": (
        "log_missing",
        workload(SOUND_NET, of('F.nll_loss(model(batch["x"]).softmax(1), batch["y"])', at="return")),
        "classes",
    ),
    "cross_entropy of one class": (
        "one_class",
        workload(ONE_ANSWER, LOSS.replace('batch["y"]', '0 * batch["y"]').rstrip() + "  # here\n"),
        "binary",
    ),
    "a column against a row": (
        "broadcast",
        workload(ONE_ANSWER, NUMBERS.replace(".squeeze(1)", "").rstrip() + "  # here\n"),
        "numbers",
    ),
    "a column minus a row": (
        "broadcast",
        workload(
            ONE_ANSWER,
            of('((model(batch["x"]) - batch["y"]) ** 2).mean()', at="return"),
        ),
        "numbers",
    ),
    "a minus before the loss": (
        "negated_loss",
        workload(SOUND_NET, LOSS.replace("return ", "return -").rstrip() + "  # here\n"),
        "classes",
    ),
    "a mean divided again": (
        "averaged_twice",
        workload(
            SOUND_NET,
            of('F.cross_entropy(model(batch["x"]), batch["y"]) / len(batch["x"])', at="def"),
        ),
        "classes",
    ),
    "a sum for a loss": (
        "summed_loss",
        workload(
            SOUND_NET,
            of('F.cross_entropy(model(batch["x"]), batch["y"], reduction="sum")', at="def"),
        ),
        "classes",
    ),
    "targets that nothing reads": (
        "labels_ignored",
        workload(SOUND_NET, of('model(batch["x"]).square().mean()', at="def")),
        "classes",
    ),
    "a softmax over one number": (
        "constant_answers",
        workload(
            "return Net()",
            of('F.mse_loss(model(batch["x"]).squeeze(1), batch["y"].float())'),
            net("self.out = nn.Linear(6, 1)", "return self.out(x).softmax(1)").replace(
                "(self, x):", "(self, x):  # here"
            ),
        ),
        "binary",
    ),
    "an lstm over the rows": (
        "rows_mixed",
        workload("return Net()", net=LSTM.replace(", batch_first=True)", ")  # here")),
        "series",
    ),
    "a view across rows": (
        "rows_mixed",
        workload(
            "return Net()",
            net=net(
                "self.out = nn.Linear(4, 3)",
                "n, t, w = x.shape\nreturn self.out(x.view(t, n, w).transpose(0, 1).mean(1))  # here",
            ),
        ),
        "series",
    ),
    "a softmax over the rows": (
        "rows_mixed",
        workload(
            "return Net()",
            net=net(
                "self.a, self.out = nn.Linear(6, 6), nn.Linear(6, 3)",
                "return self.out(x * F.softmax(self.a(x), dim=0))  # here",
            ),
        ),
        "classes",
    ),
    "batch statistics in evaluation": (
        "rows_mixed",
        workload(
            """
            return nn.Sequential(
                nn.Linear(6, 8),
                nn.BatchNorm1d(8, track_running_stats=False),  # here
                nn.Linear(8, 3),
            )
            """
        ),
        "classes",
    ),
    "no mask over later tokens": (
        "sees_future",
        workload(
            "return Net()",
            NEXT_TOKEN,
            CAUSAL.replace(", src_mask=mask, is_causal=True", "").replace(
                "2, 16, batch_first=True)", "2, 16, batch_first=True)  # here"
            ),
        ),
        "tokens",
    ),
    "a view for a transpose": (
        "swapped_dimensions",
        workload(
            "return Net()",
            net=net("self.out = nn.Linear(5, 3)", "x = x.reshape(len(x), 4, 5)  # here\nreturn self.out(x.mean(1))"),
        ),
        "series",
    ),
    "dropout without a mode": (
        "dropout_in_evaluation",
        workload(
            "return Net()",
            net=net(
                "self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 3)",
                "return self.out(F.dropout(self.a(x), 0.5))  # here",
            ),
        ),
        "classes",
    ),
    "attention that drops without a mode": (
        "dropout_in_evaluation",
        workload(
            "return Net()", net=HEADS.replace("dropout_p=0.1 if self.training else 0.0)", "dropout_p=0.1)  # here")
        ),
        "series",
    ),
    "chance in evaluation": (
        "chance_in_evaluation",
        workload(
            "return Net()", net=net("self.out = nn.Linear(6, 3)", "return self.out(x + 0.1 * torch.randn_like(x))")
        ),
        "classes",
    ),
    "state between calls": (
        "state_between_calls",
        workload(
            "return Net()",
            net=net(
                "self.out = nn.Linear(6, 3)\nself.calls = 0  # here", "self.calls += 1\nreturn self.out(x) * self.calls"
            ),
        ),
        "classes",
    ),
    "a generator of its own": (
        "state_between_calls",
        workload(
            "return Net()",
            net=net(
                "self.out = nn.Linear(6, 3)\nself.chance = torch.Generator().manual_seed(1)  # here",
                "return self.out(x + torch.randn(x.shape, generator=self.chance))",
            ),
        ),
        "classes",
    ),
    "eval in the loss": (
        "mode_changed",
        workload(SOUND_NET, LOSS.replace("        return", "        model.eval()  # here\n        return")),
        "classes",
    ),
    "a batch changed in place": (
        "batch_changed",
        workload(SOUND_NET, LOSS.replace("        return", '        batch["x"] /= 2  # here\n        return')),
        "classes",
    ),
    "a batch changed by a function": (
        "batch_changed",
        workload(
            SOUND_NET,
            LOSS.replace("        return", '        F.relu(batch["x"], inplace=True)  # here\n        return'),
        ),
        "classes",
    ),
    "inputs as they are": (
        "unscaled_inputs",
        workload(SOUND_NET, LOSS.rstrip() + "  # here\n"),
        "large",
    ),
    "predict that fails": (
        "evaluation_fails",
        workload(SOUND_NET, more="def predict(self, model, batch):\n    return model(batch['features'])  # here\n"),
        "classes",
    ),
    "backward in the loss": (
        "own_backward",
        workload(
            SOUND_NET,
            """
    def loss(self, model, batch):
        loss = F.cross_entropy(model(batch["x"]), batch["y"])
        loss.backward(retain_graph=True)  # here
        return loss
""",
        ),
        "classes",
    ),
    "a seed at each step": (
        "reseeded",
        workload(SOUND_NET, LOSS.replace("        return", "        torch.manual_seed(0)  # here\n        return")),
        "classes",
    ),
    "augment with numpy's chance": (
        "chance_outside_draw",
        workload(
            SOUND_NET,
            more="""
            def augment(self, sample, draw):
                return {**sample, "x": sample["x"] + np.float32(np.random.normal(0, 0.1))}  # here
            """,
        ),
        "classes",
    ),
    "rows without a seed": (
        "unseeded_rows",
        workload(SOUND_NET, more="def data(self, o):\n    return {'x': np.random.rand(9, 6)}  # here\n"),
        "classes",
    ),
    "softmax without a dimension": (
        "implicit_dimension",
        workload(SOUND_NET, SHIFTED.replace(", dim=1)", ")  # here")),
        "classes",
    ),
    "a Variable": (
        "old_variable",
        workload(
            SOUND_NET,
            LOSS.replace('model(batch["x"])', 'model(torch.autograd.Variable(batch["x"]))').rstrip() + "  # here\n",
        ),
        "classes",
    ),
    "a device by hand": (
        "device_by_hand",
        workload(f"if torch.cuda.is_available():\n    return nn.Linear(6, 3).cuda()  # here\n{SOUND_NET}"),
        "classes",
    ),
    "a setting of torch": (
        "settings_changed",
        workload(f"torch.backends.cudnn.benchmark = False  # here\n{SOUND_NET}"),
        "classes",
    ),
}


TEXT_ALONE = {
    *("a layer repeated", "answers detached in the loss", "a seed at each step", "augment with numpy's chance"),
    *("rows without a seed", "softmax without a dimension", "a Variable", "a device by hand", "a setting of torch"),
}
BOTH = {
    *("layers in a list", "layers appended to a list", "a tensor for a parameter", "a layer built in forward"),
    *("a layer never called", "a softmax before cross_entropy", "a softmax in the loss", "nll_loss of a softmax"),
    *("dropout without a mode", "attention that drops without a mode", "eval in the loss"),
    *("a batch changed in place", "backward in the loss"),
}
"""What text alone shows, and what text and batch show; a batch alone shows everything else."""


def ways(name: str) -> set[str]:
    return {"text"} if name in TEXT_ALONE else {"text", "batch"} if name in BOTH else {"batch"}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found_at_its_line_with_its_cure(name: str, rows: dict[str, Dataset], tmp_path: Path):
    bug, source, task = PLANTED[name]
    seen = found(source, rows[task], tmp_path)
    lines = [at for at, text in enumerate(source.splitlines(), 1) if "# here" in text] or [0]
    severity = "warning" if name == "all frozen but normalisation" else SILENT_BUGS[bug].severity
    shown = zip(Found._fields, seen, strict=True)
    assert {way for way, told in shown for line in lines if told.get((bug, line)) == severity} == ways(name), seen
    if severity == "note":
        assert seen.alarms == []


def test_every_silent_bug_is_planted_for_each_way_that_shows_it():
    shown: dict[str, set[str]] = {bug: set() for bug in SILENT_BUGS if bug != "not_looked_at"}
    for name, (bug, _, _) in PLANTED.items():
        shown[bug] |= ways(name)
    assert shown == {bug: set(SILENT_BUGS[bug].seen_in) for bug in shown}
    assert len(SOUND) >= 20


@pytest.mark.parametrize(
    "source",
    [
        "x = " + "-" * 20_000 + "1",
        "x" + ".a" * 50_000,
        "x = 1" + "+1" * 20_000,
        "#" * (1 << 20) + "\n",
    ],
)
def test_a_source_that_is_too_long_or_nested_too_deep_is_not_looked_at(source: str):
    assert [one.name for one in review_source(source.encode(), "own.py")] == ["not_looked_at"]


@pytest.mark.parametrize(
    "source",
    ["x = [" + "1," * 500 + "]", "".join(f"{' ' * at}class A{at}(Module):\n" for at in range(60)) + " " * 60 + "pass"],
)
def test_no_source_takes_more_looks_than_its_length_allows(source: str, monkeypatch: pytest.MonkeyPatch):
    assert review_source(source.encode(), "own.py") == []
    monkeypatch.setattr("runtime.home.code_review.MOST_NODES", 400)
    assert [one.name for one in review_source(source.encode(), "own.py")] == ["not_looked_at"]


def test_a_check_that_fails_is_told_and_hides_no_other(rows: dict[str, Dataset], tmp_path: Path):
    sized = net("self.out = nn.Linear(6, 3)", "return self.out(x.view(16, 6)).relu()")
    seen = found(
        workload("return Net()", of('F.cross_entropy(model(batch["x"]), batch["y"])'), sized), rows["classes"], tmp_path
    )
    assert {name for name, _ in seen.batch} == {"not_looked_at", "bounded_answers"}


def test_no_check_begins_when_no_time_is_left(
    rows: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("runtime.model.batch_review.MOST_SECONDS", -1.0)
    source, task = SOUND["mlp"]
    assert found(source, rows[task], tmp_path).batch == {("not_looked_at", 0): "note"}


# ---------------------------------------------------------------- what is there already

ROOT = Path(__file__).parents[3]
BUILT_IN = {
    "linear": ("classes", {}),
    "mlp": ("numbers", {}),
    "autoencoder": ("classes", {"hidden": [4], "code": 2}),
    "cnn": ("images", {"channels": [4]}),
    "resnet": ("images", {"width": 4, "blocks": [1, 1]}),
    "transformer": ("tokens", {"width": 8, "heads": 2, "layers": 1}),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_models_are_not_accused(name: str, rows: dict[str, Dataset]):
    task, options = BUILT_IN[name]
    raw = {"data": {"source": "csv", "path": "x.csv", "target": "y"}, "model": {"architecture": name, **options}}
    request = read_request({**raw, "training": {"epochs": 2, "batch_size": 16}})
    plan = Plan(request, resolve(request, rows[task].facts, cores=1))
    assert [one for one in review_batch(plan, rows[task], Path("none")) if one.severity != "note"] == []


EXAMPLES = {
    "example": (ROOT / "examples/workload/mine.py").read_text(),
    "bench of faults": (ROOT / "benchmarks/faults_cases/workload.py").read_text(),
    "written by init": WORKLOAD.format(file="own.py", name="own", title="Own"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_not_accused(name: str, rows: dict[str, Dataset], tmp_path: Path):
    source = EXAMPLES[name].replace("nn.Linear(2,", "nn.Linear(6,")
    assert found(source, rows["classes"], tmp_path).alarms == []
