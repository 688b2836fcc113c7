"""The silent bugs that the text of a workload shows. Nothing of it is run.

`runtime.model.batch_review` finds others, and many of these with figures, with the model and one real batch.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from contracts.diagnostician import Severity
from runtime.home.silent_bugs import CodeFinding, finding

LONGEST, MOST_NODES = 1 << 20, 100_000
"""Longer sources, in bytes and in nodes of their syntax tree, are not looked at."""

_TIMES = 4
"""How often each node is looked at, on average: classes in methods of classes are looked at with all around them."""


def review_source(source: bytes, file: str) -> Sequence[CodeFinding]:
    """The silent bugs that the text of a workload shows, in the order of their lines, each line's once by name."""
    told: dict[tuple[int, str], tuple[str, Severity | None]] = {}
    try:
        tree = ast.parse(source) if len(source) <= LONGEST else None
        nodes = [] if tree is None else list(ast.walk(tree))
        if tree is None or len(nodes) > MOST_NODES:
            return [finding("not_looked_at", file, 0, "The source is too long to be looked at.")]
        names, left = _Names.of(nodes), _TIMES * MOST_NODES
        for scope in _scopes(nodes, names):
            left -= len(scope.nodes)
            if left < 0:
                return [finding("not_looked_at", file, 0, "Classes are nested too deep to be looked at.")]
            for rule in _RULES:
                for name, line, message, severity in rule(scope, names):
                    told[line, name] = message, severity
    except (RecursionError, MemoryError):
        return [finding("not_looked_at", file, 0, "The source is nested too deep to be looked at.")]
    return [finding(name, file, line, *told[line, name]) for line, name in sorted(told)]


_WEIGHTS = frozenset(
    (
        *("Linear", "LazyLinear", "Bilinear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d"),
        *("ConvTranspose3d", "Embedding", "EmbeddingBag", "RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"),
        *("MultiheadAttention", "Transformer", "TransformerEncoder", "TransformerDecoder", "TransformerEncoderLayer"),
        *("TransformerDecoderLayer", "PReLU", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm", "GroupNorm"),
        *("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "RMSNorm", "Parameter"),
    )
)
_LISTS = ("ModuleList", "ModuleDict", "Sequential", "ParameterList", "ParameterDict")
_SQUASHES = {"softmax": "softmax", "Softmax": "softmax", "sigmoid": "sigmoid", "Sigmoid": "sigmoid"}
_SHAPES = ("view", "reshape", "squeeze", "unsqueeze", "flatten", "float", "clone", "contiguous", "to", "permute")
_LOGIT_LOSSES = {
    "cross_entropy": "cross_entropy",
    "CrossEntropyLoss": "cross_entropy",
    "binary_cross_entropy_with_logits": "binary_cross_entropy_with_logits",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
}
_CUTS = ("detach", "item", "numpy", "tolist")
_NO_GRADIENT = ("no_grad", "inference_mode")
_DRAWS = ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "rand_like", "randn_like")
_SEEDS = (
    "torch.manual_seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "numpy.random.seed",
    "random.seed",
)
_SETTINGS = (
    *("torch.set_num_threads", "torch.use_deterministic_algorithms", "torch.set_default_dtype"),
    *("torch.set_default_device", "torch.set_float32_matmul_precision", "torch.set_flush_denormal"),
)
_OTHER_WAYS = (
    "getattr",
    "vars",
    "children",
    "modules",
    "named_children",
    "named_modules",
    "add_module",
    "setattr",
    "register_module",
)

Told = tuple[str, int, str, Severity | None]
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class _Names:
    """What names mean in one file: what was imported under them, and which classes of it are modules."""

    imports: Mapping[str, str]
    modules: frozenset[str]
    read: frozenset[str]
    """Every attribute that is read anywhere in the file."""

    @classmethod
    def of(cls, nodes: Sequence[ast.AST]) -> "_Names":
        imports: dict[str, str] = {}
        for node in nodes:
            if isinstance(node, ast.Import):
                for one in node.names:
                    first = one.name.partition(".")[0]
                    imports |= {one.asname: one.name} if one.asname else {first: first}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imports |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        modules, before = frozenset[str](), -1
        while len(modules) > before:
            before = len(modules)
            bases = {
                one.name: {
                    base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in one.bases
                }
                for one in classes
            }
            modules |= {name for name, of in bases.items() if of & {"Module", *modules}}
        reads = (one for one in nodes if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Load))
        return cls(imports, modules, frozenset(one.attr for one in reads))

    def path(self, node: ast.AST) -> str:
        """The dotted name of an expression with imports written out; what has none begins with `?`."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        parts.append(self.imports.get(node.id, node.id) if isinstance(node, ast.Name) else "?")
        return ".".join(reversed(parts))

    def last(self, node: ast.AST) -> str:
        """The last part of the name of what is called; of `nn.Loss()(x)` that of the class."""
        while isinstance(node, ast.Call):
            node = node.func
        return self.path(node).rpartition(".")[2]

    def has_weights(self, node: ast.AST | None) -> bool:
        """Whether an expression builds a layer with weights, or a parameter."""
        if not isinstance(node, ast.Call):
            return False
        path = self.path(node.func)
        if path.startswith("torch.nn."):
            last = path.rpartition(".")[2]
            return last in _WEIGHTS or (last == "Sequential" and any(map(self.has_weights, node.args)))
        return path in self.modules


@dataclass(frozen=True)
class _Scope:
    """One method, a whole class, or what a file has outside of them.

    `kind` says of which class a method is, and `role` is its name; a module as a whole is of the kind "class".
    """

    kind: str
    role: str
    nodes: Sequence[ast.AST]
    owner: ast.ClassDef | None = None
    method: _Function | None = None

    @property
    def answers(self) -> bool:
        """Whether it runs at each step."""
        return (self.kind, self.role) in (("module", "forward"), ("workload", "loss"), ("workload", "predict"))

    @property
    def calls(self) -> Iterator[ast.Call]:
        return (node for node in self.nodes if isinstance(node, ast.Call))

    def parameter(self, place: int) -> str:
        """The name of a parameter of a workload's method; 0 is `self`."""
        names = [one.arg for one in self.method.args.args] if self.method and self.kind == "workload" else []
        return names[place] if len(names) > place else ""


def _scopes(nodes: Sequence[ast.AST], names: _Names) -> Iterator[_Scope]:
    inside = set[ast.AST]()
    for owner in (node for node in nodes if isinstance(node, ast.ClassDef)):
        methods = [node for node in owner.body if isinstance(node, _Function)]
        module = owner.name in names.modules
        if module or {"build", "loss"} <= {one.name for one in methods}:
            for method in methods:
                body = list(ast.walk(method))
                inside.update(body)
                yield _Scope("module" if module else "workload", method.name, body, owner, method)
            if module:
                yield _Scope("class", owner.name, list(ast.walk(owner)), owner)
    yield _Scope("", "", [node for node in nodes if node not in inside])


def _variables(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, ast.expr, int]]:
    """Names that are assigned to, the value and the line; attributes of self as `self.NAME`."""
    for node in nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield target.id, node.value, node.lineno
                elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
                    yield f"{target.value.id}.{target.attr}", node.value, node.lineno


# ---------------------------------------------------------------- rules: what is written anywhere


def _repeated(scope: _Scope, names: _Names) -> Iterator[Told]:
    """Lists whose places are one layer."""
    layers = {name for name, value, _ in _variables(scope.nodes) if names.has_weights(value)}

    def shared(node: ast.expr) -> bool:
        return names.has_weights(node) or (isinstance(node, ast.Name) and node.id in layers)

    for node in scope.nodes:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            lists = [side for side in (node.left, node.right) if isinstance(side, ast.List)]
            if any(shared(one) for side in lists for one in side.elts):
                yield "repeated_layer", node.lineno, "Each place of this list is the same layer.", None
        elif isinstance(node, ast.ListComp) and isinstance(node.elt, ast.Name):
            own = {name for part in node.generators for name in _used(part.target)}
            if shared(node.elt) and node.elt.id not in own:
                yield "repeated_layer", node.lineno, f"Each place of this list is {node.elt.id}.", None


def _dropping(scope: _Scope, names: _Names) -> Iterator[Told]:
    """Dropout that no mode ends."""
    for call in scope.calls:
        path, last = names.path(call.func), names.last(call)
        given = {one.arg: one.value for one in call.keywords}
        switch = "training" in given or len(call.args) > 2
        if path.startswith("torch.nn.functional.") and "dropout" in last and not switch:
            yield "dropout_in_evaluation", call.lineno, f"{last} drops by default, whatever the mode is.", None
        drop = given.get("dropout_p")
        if last == "scaled_dot_product_attention" and isinstance(drop, ast.Constant) and drop.value:
            yield "dropout_in_evaluation", call.lineno, f"{last} drops whatever the mode is.", None


def _settings(scope: _Scope, names: _Names) -> Iterator[Told]:
    """Seeds, settings and devices, which are the engine's to set."""
    targets = [target for node in scope.nodes if isinstance(node, ast.Assign) for target in node.targets]
    for target in targets:
        if names.path(target).startswith("torch.backends."):
            yield "settings_changed", target.lineno, f"{names.path(target)} is set here.", None
    often = scope.answers or scope.role == "augment"
    for call in scope.calls:
        path, last = names.path(call.func), names.last(call)
        given = [*call.args, *(one.value for one in call.keywords if one.arg == "device")]
        if path in _SEEDS and scope.role != "data":
            message = f"{path} is called {f'in {scope.role}, at each step' if often else 'here'}."
            yield "reseeded", call.lineno, message, None if often else "note"
        elif path in _SETTINGS:
            yield "settings_changed", call.lineno, f"{path} is called here.", None
        elif any(isinstance(one, ast.Constant) and str(one.value).startswith("cuda") for one in given) or (
            last == "cuda" and isinstance(call.func, ast.Attribute)
        ):
            yield "device_by_hand", call.lineno, "A device of CUDA is named here.", None


def _older_ways(scope: _Scope, names: _Names) -> Iterator[Told]:
    """Variables, softmax without a dimension, and what the engine does itself."""
    for call in scope.calls:
        path, last = names.path(call.func), names.last(call)
        given = [one.arg for one in call.keywords]
        if path == "torch.autograd.Variable":
            cuts = "requires_grad" in given
            message = "A Variable begins a graph of its own here." if cuts else "Variable is called here."
            yield "old_variable", call.lineno, message, "warning" if cuts else None
        elif last in ("softmax", "log_softmax", "Softmax", "LogSoftmax") and path.startswith("torch.nn."):
            if "dim" not in given and len(call.args) < (2 if last.islower() else 1):
                yield "implicit_dimension", call.lineno, f"{last} is given no dimension.", None
        elif scope.answers and last == "backward" and isinstance(call.func, ast.Attribute):
            yield "own_backward", call.lineno, f"backward is called in {scope.role}.", None
        elif scope.kind and path.startswith("torch.optim.") and last[:1].isupper() and "scheduler" not in path:
            yield "own_backward", call.lineno, f"{last} is made in {scope.role}, and nothing steps it.", None


def _squashed(scope: _Scope, names: _Names) -> Iterator[Told]:
    """Probabilities where a loss takes logits or logarithms; a variable is what it was made last."""

    def squash(node: ast.expr, known: Mapping[str, str]) -> str:
        while isinstance(node, ast.Call):
            if names.last(node) in _SQUASHES:
                return _SQUASHES[names.last(node)]
            if names.last(node) not in _SHAPES or not isinstance(node.func, ast.Attribute):
                return ""
            node = node.func.value
        return known.get(node.id, "") if isinstance(node, ast.Name) else ""

    squashed: dict[str, str] = {}
    steps = [node for node in scope.nodes if isinstance(node, ast.Assign | ast.Call)]
    for node in sorted(steps, key=lambda node: (node.lineno, node.col_offset)):
        if isinstance(node, ast.Assign):
            squashed |= {name: squash(value, squashed) for name, value, _ in _variables([node])}
            continue
        loss, how = names.last(node), squash(node.args[0], squashed) if node.args else ""
        if how and loss in _LOGIT_LOSSES:
            message = f"{_LOGIT_LOSSES[loss]} takes logits and is given what {how} answers."
            yield "squashed_answers", node.lineno, message, None
        elif how and loss in ("nll_loss", "NLLLoss", "kl_div", "KLDivLoss"):
            yield "log_missing", node.lineno, f"{loss} is given what {how} answers, not its logarithm.", None


# ---------------------------------------------------------------- rules: what runs at each step


def _built_late(scope: _Scope, names: _Names) -> Iterator[Told]:
    """Layers that are built, modes that are set and columns that are changed at each step."""
    if not scope.answers:
        return
    whole, batch = scope.parameter(1) or "self", scope.parameter(2)
    for node in scope.nodes:
        if names.has_weights(node):
            message = f"{names.last(node)} is built in {scope.role}: with new weights at each call."
            yield "layer_in_forward", getattr(node, "lineno", 0), message, None
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("eval", "train")
        ):
            own = isinstance(node.func.value, ast.Name) and node.func.value.id == whole
            yield "mode_changed", node.lineno, f"{node.func.attr} is called in {scope.role}.", None if own else "note"
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript) and batch in _used(node.target):
            yield "batch_changed", node.lineno, "A column of the batch is changed in place.", None


def _cut(scope: _Scope, names: _Names) -> Iterator[Told]:
    """What is answered, or all that the loss is made from, cut off from the weights."""
    if not scope.answers or scope.role == "predict" or scope.method is None:
        return
    if any(names.last(one) in _NO_GRADIENT for one in scope.method.decorator_list):
        yield "cut_graph", scope.method.lineno, f"{scope.role} runs without gradients.", None
    for node in scope.nodes:
        if isinstance(node, ast.Return) and any(_is_cut(one, names) for one in _returned(node.value)):
            yield "cut_graph", node.lineno, f"What {scope.role} returns is cut off from the weights.", None
    model = scope.parameter(1)
    calls = [call for call in scope.calls if model and names.path(call.func) == model]
    blocks = [node for node in scope.nodes if isinstance(node, ast.With)]
    hiding = [one for one in blocks if any(names.last(item.context_expr) in _NO_GRADIENT for item in one.items)]
    cuts = [node for node in scope.nodes if _is_cut(node, names)]
    hidden = {id(one) for node in (*hiding, *cuts) for one in ast.walk(node)}
    if calls and all(id(call) in hidden for call in calls):
        yield "cut_graph", calls[0].lineno, "Every answer of the model is cut off from its weights.", None


def _is_cut(node: ast.AST, names: _Names) -> bool:
    """Whether a value has lost the graph that it was computed by."""
    if isinstance(node, ast.Attribute):
        return node.attr == "data" and isinstance(node.ctx, ast.Load) and names.path(node.value) != "self"
    if not isinstance(node, ast.Call):
        return False
    inner = ast.walk(node) if names.path(node.func) in ("torch.tensor", "torch.as_tensor") else [node]
    called = (one.func for one in inner if isinstance(one, ast.Call))
    return any(isinstance(one, ast.Attribute) and one.attr in _CUTS for one in called)


def _returned(value: ast.expr | None) -> Iterator[ast.expr]:
    """What a return gives as the answer; of a mapping its `loss`."""
    if isinstance(value, ast.Dict):
        pairs = zip(value.keys, value.values, strict=True)
        yield from (one for key, one in pairs if isinstance(key, ast.Constant) and key.value == "loss")
    elif value is not None:
        yield value


def _drawing(scope: _Scope, names: _Names) -> Iterator[Told]:
    """Chance in `augment` beside its `draw`, and in `data` without a seed."""
    if scope.kind != "workload" or scope.role not in ("augment", "data"):
        return
    if scope.role == "data" and any(names.path(call.func) in _SEEDS for call in scope.calls):
        return
    for call in scope.calls:
        path, last = names.path(call.func), names.last(call)
        draws = path.startswith(("numpy.random.", "random.")) or (path.startswith("torch.") and last in _DRAWS)
        seeded = last in ("default_rng", "RandomState", "Random") and bool(call.args or call.keywords)
        if draws and scope.role == "augment":
            yield "chance_outside_draw", call.lineno, f"augment draws from {path}.", None
        elif draws and not seeded and not any(one.arg == "generator" for one in call.keywords):
            yield "unseeded_rows", call.lineno, f"data draws from {path} without a seed.", None


# ---------------------------------------------------------------- rules: what a class holds


def _unregistered(scope: _Scope, names: _Names) -> Iterator[Told]:
    """Weights that the model does not list: in plain lists and mappings, or tensors that are no parameters."""
    if scope.kind != "class" or any(names.last(call) in _OTHER_WAYS for call in scope.calls):
        return
    listing = [
        one for call in scope.calls if names.last(call) in _LISTS for part in call.args for one in ast.walk(part)
    ]
    listed = {names.path(one) for one in listing if isinstance(one, ast.Attribute)}
    variables = [one for one in _variables(scope.nodes) if one[0].startswith("self.")]
    plain = {name for name, value, _ in variables if isinstance(value, ast.List | ast.Dict)}
    held = {name: line for name, value, line in variables if _holds_layers(value, names)}
    for call in scope.calls:
        path, _, verb = names.path(call.func).rpartition(".")
        if verb == "append" and path in plain and any(map(names.has_weights, call.args)):
            held[path] = call.lineno
    for name, line in held.items():
        if name not in listed:
            yield "unregistered", line, f"{name} holds layers in a plain list or mapping.", None
    for name, value, line in variables:
        if _is_loose(value, names):
            yield "unregistered", line, f"{name} wants a gradient and is no nn.Parameter.", None


def _holds_layers(node: ast.expr, names: _Names) -> bool:
    match node:
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Dict(values=parts):
            return any(map(names.has_weights, parts))
        case ast.ListComp(elt=part) | ast.DictComp(value=part):
            return names.has_weights(part)
    return False


def _is_loose(node: ast.expr, names: _Names) -> bool:
    """Whether an expression is a tensor that wants a gradient and is no parameter, such as a parameter moved."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("to", "cuda", "double", "half", "clone"):
        return names.last(node.func.value) == "Parameter"
    wants = [one.value for one in node.keywords if one.arg == "requires_grad"]
    path = names.path(node.func)
    return (
        path.startswith("torch.")
        and not path.endswith("Parameter")
        and any(isinstance(one, ast.Constant) and one.value is True for one in wants)
    )


def _unused(scope: _Scope, names: _Names) -> Iterator[Told]:
    """Layers that are built and never named again, in a class that answers by its own `forward`."""
    if scope.kind != "class" or scope.owner is None or len(scope.owner.bases) != 1:
        return
    forward = any(isinstance(node, _Function) and node.name == "forward" for node in scope.owner.body)
    if not forward or any(names.last(call) in _OTHER_WAYS for call in scope.calls):
        return
    for name, value, line in _variables(scope.nodes):
        what = name.removeprefix("self.")
        if name != what and names.has_weights(value) and what not in names.read:
            yield "unused_layer", line, f"{name} is built, and nothing names it again.", None


def _built(scope: _Scope, names: _Names) -> Iterator[Told]:
    """A last Softmax or Sigmoid of what `build` returns, where `loss` hands the model's answers to a loss of logits."""
    if scope.kind != "workload" or scope.role != "build" or scope.owner is None:
        return
    loss = next(
        _Scope("workload", one.name, list(ast.walk(one)), scope.owner, one)
        for one in scope.owner.body
        if isinstance(one, _Function) and one.name == "loss"
    )
    model = loss.parameter(1)

    def is_answer(node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and names.path(node.func) == model

    answers = {name for name, value, _ in _variables(loss.nodes) if is_answer(value)}
    takers = [
        _LOGIT_LOSSES[names.last(call)]
        for call in loss.calls
        if names.last(call) in _LOGIT_LOSSES and call.args
        if is_answer(call.args[0]) or (isinstance(call.args[0], ast.Name) and call.args[0].id in answers)
    ]
    made = {name: value for name, value, _ in _variables(scope.nodes)}
    for node in scope.nodes if takers else ():
        value = node.value if isinstance(node, ast.Return) else None
        value = made.get(value.id) if isinstance(value, ast.Name) else value
        if isinstance(value, ast.Call) and names.last(value) == "Sequential" and value.args:
            how = _SQUASHES.get(names.last(value.args[-1])) if isinstance(value.args[-1], ast.Call) else None
            if how:
                message = f"The model ends in {how}, and {takers[0]} takes logits."
                yield "squashed_answers", value.args[-1].lineno, message, None


def _used(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


_RULES = (
    *(_repeated, _dropping, _settings, _older_ways, _squashed),
    *(_built_late, _cut, _drawing, _unregistered, _unused, _built),
)
