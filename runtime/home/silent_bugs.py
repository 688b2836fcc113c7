"""The silent bugs of a workload's code that can be told: what tells each, its cure, and a finding of one at a line."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from contracts.diagnostician import Severity


class SilentBug(NamedTuple):
    """A bug that raises no error: how bad it is, what tells it, its cure, and whether `text` or `batch` shows it."""

    severity: Severity
    looks_at: str
    cure: str
    seen_in: tuple[str, ...]


SILENT_BUGS: Mapping[str, SilentBug] = {
    "unregistered": SilentBug(
        "warning",
        "layers in a plain list or mapping, and tensors with `requires_grad`, which the model does not list",
        "Use nn.ModuleList, nn.ModuleDict or nn.Parameter, as attributes of the model.",
        ("text", "batch"),
    ),
    "layer_in_forward": SilentBug(
        "warning",
        "layers with weights that are built while the model answers: new ones at each call",
        "Build the layer in __init__ and call it here.",
        ("text", "batch"),
    ),
    "repeated_layer": SilentBug(
        "warning",
        "a list that holds one layer several times, by `[layer] * n` or a comprehension that builds none",
        "Build one layer for each place: [nn.Linear(8, 8) for _ in range(n)].",
        ("text",),
    ),
    "unused_layer": SilentBug(
        "warning",
        "layers with weights that nothing calls",
        "Call the layer in forward, or remove it.",
        ("text", "batch"),
    ),
    "cut_graph": SilentBug(
        "warning",
        "`detach`, `data`, `item`, `numpy` or `no_grad` between the weights and the loss, and weights without gradient",
        "Compute the loss from the answers themselves; detach only what is recorded beside it.",
        ("text", "batch"),
    ),
    "no_gradient": SilentBug(
        "warning",
        "layers that are called, and to which no gradient comes, though nothing cuts the graph",
        "Let the loss depend on what the layer answers, or remove the layer.",
        ("batch",),
    ),
    "frozen": SilentBug(
        "note",
        "weights with `requires_grad = False`; a warning where only normalisation is trained",
        "Freeze weights by model.freeze in the request, which is recorded, or let them be trained.",
        ("batch",),
    ),
    "not_moved": SilentBug(
        "warning",
        "weights that `param_groups` leaves out",
        "Put every trained parameter into one group.",
        ("batch",),
    ),
    "equal_units": SilentBug(
        "warning",
        "layers whose units have equal weights and equal gradients, and so remain equal; weights that are all 0",
        "Draw weights by chance (torch's layers do so by themselves); a constant is for biases.",
        ("batch",),
    ),
    "squashed_answers": SilentBug(
        "warning",
        "softmax, sigmoid or tanh before a loss that takes logits",
        "Hand the loss the logits; take probabilities in predict or in metrics.",
        ("text", "batch"),
    ),
    "bounded_answers": SilentBug(
        "warning",
        "a last activation that cannot reach the targets, such as ReLU before logits or targets below 0",
        "Leave the activation after the last layer out.",
        ("batch",),
    ),
    "log_missing": SilentBug(
        "warning",
        "nll_loss or kl_div on answers that are not logarithms of probabilities",
        "Use log_softmax(answers, 1), or cross_entropy on the logits.",
        ("text", "batch"),
    ),
    "one_class": SilentBug(
        "warning",
        "cross_entropy over a single class, whose loss is always 0",
        "Answer one number per class, or use binary_cross_entropy_with_logits.",
        ("batch",),
    ),
    "broadcast": SilentBug(
        "warning",
        "answers and targets of different shapes in one loss, such as (n, 1) and (n), which compares every pair",
        "Bring both to one shape: answers.squeeze(1), or targets.unsqueeze(1).",
        ("batch",),
    ),
    "negated_loss": SilentBug(
        "warning",
        "a loss with a minus before it, which is made large",
        "Leave the minus out.",
        ("batch",),
    ),
    "averaged_twice": SilentBug(
        "warning",
        "a loss that halves when each row is there twice: a mean that is divided by the rows again",
        "Leave the second division out.",
        ("batch",),
    ),
    "summed_loss": SilentBug(
        "note",
        "a loss that doubles when each row is there twice: its gradients grow with the batch",
        "Return the mean over rows; parts of a step are averaged.",
        ("batch",),
    ),
    "labels_ignored": SilentBug(
        "note",
        "a loss that stays the same to the bit when the rows' targets are exchanged",
        'Compare the answers with batch["y"], unless the model is to learn without targets.',
        ("batch",),
    ),
    "constant_answers": SilentBug(
        "warning",
        "answers that are the same for every row, also with slightly different weights",
        "Let the answer depend on the row: look for a softmax over one number, dead units, a wrong dimension.",
        ("batch",),
    ),
    "rows_mixed": SilentBug(
        "warning",
        "answers of rows, in evaluation, that change with the other rows of the batch",
        "Keep the batch's dimension apart: batch_first=True, no view across rows, softmax over classes.",
        ("batch",),
    ),
    "sees_future": SilentBug(
        "warning",
        "answers at early places of a row that change with its later tokens, where the next token is learnt",
        "Give attention a causal mask.",
        ("batch",),
    ),
    "swapped_dimensions": SilentBug(
        "warning",
        "view or reshape to the same sizes in another order, which does not exchange dimensions",
        "Use transpose or permute.",
        ("batch",),
    ),
    "dropout_in_evaluation": SilentBug(
        "warning",
        "dropout that also drops when the model is judged",
        "Hand it `training=self.training`, or use nn.Dropout built in __init__.",
        ("text", "batch"),
    ),
    "chance_in_evaluation": SilentBug(
        "note",
        "answers in evaluation that change with the seed",
        "Draw only while self.training is true.",
        ("batch",),
    ),
    "state_between_calls": SilentBug(
        "warning",
        "answers to the same rows with the same seed that differ from call to call: state or a generator of its own",
        "Keep no state between calls, or keep it in a buffer; draw from torch's generator. A restart loses it.",
        ("batch",),
    ),
    "mode_changed": SilentBug(
        "warning",
        "modules that are in another mode (train, eval) after a call than before it",
        "Leave the mode alone: the engine sets it for training and for evaluation.",
        ("text", "batch"),
    ),
    "batch_changed": SilentBug(
        "warning",
        "columns of the batch that are changed in place",
        'Make a new tensor (x = batch["x"] / 255): predict is asked with the same batch after loss.',
        ("text", "batch"),
    ),
    "unscaled_inputs": SilentBug(
        "warning",
        "inputs whose root mean square is above 30 where they reach the first weights",
        "Scale them with facts.mean and facts.scale, or divide by their range.",
        ("batch",),
    ),
    "evaluation_fails": SilentBug(
        "warning",
        "an error in loss or predict when the model is judged, which would end the session at its first evaluation",
        "Correct it there.",
        ("batch",),
    ),
    "own_backward": SilentBug(
        "warning",
        "backward, or an optimizer of torch, in the workload's own code: the engine has both",
        "Return the loss; the engine clears gradients, goes backward and moves weights.",
        ("text", "batch"),
    ),
    "reseeded": SilentBug(
        "warning",
        "seeds that the code sets: in loss or forward each step draws the same; a note where it builds",
        "Leave the seed to the engine, which sets one for each step from reproducibility.seed.",
        ("text",),
    ),
    "chance_outside_draw": SilentBug(
        "warning",
        "augment that draws from other generators than the `draw` it is given",
        "Draw from `draw`: a row's chance is then a function of seed, row and coming.",
        ("text",),
    ),
    "unseeded_rows": SilentBug(
        "warning",
        "data that draws without a seed: other rows, under another digest, each time it is asked",
        "Draw from np.random.default_rng(SEED).",
        ("text",),
    ),
    "implicit_dimension": SilentBug(
        "note",
        "softmax without a dimension: torch takes the first one of tensors with 1 or 3, which may be the rows",
        "Name the dimension: softmax(x, dim=-1).",
        ("text",),
    ),
    "old_variable": SilentBug(
        "note",
        "torch.autograd.Variable, which does nothing; with `requires_grad` it hides a cut graph",
        "Use the tensor itself.",
        ("text",),
    ),
    "device_by_hand": SilentBug(
        "note",
        "a device that the code names: the request and the trainer choose it",
        "Make tensors with device=x.device; the engine moves the model.",
        ("text",),
    ),
    "settings_changed": SilentBug(
        "note",
        "torch's own settings (backends, threads, default types), which the seal of a session sets",
        "Leave them to the request: training.precision, reproducibility.",
        ("text",),
    ),
    "not_looked_at": SilentBug(
        "note",
        "code that is too long or nested too deep, and checks that ended in an error or took too long",
        "None is needed; it may hide what the others would tell.",
        ("text", "batch"),
    ),
}
"""Every silent bug that can be told, by name."""


@dataclass(frozen=True, slots=True)
class CodeFinding:
    """A silent bug at a line of a file; line 0 where no line of the user's has it."""

    name: str
    severity: Severity
    file: str
    line: int
    message: str
    cure: str

    @property
    def where(self) -> str:
        """FILE:LINE, the file without its folder."""
        return f"{self.file.rpartition('/')[2]}:{self.line}" if self.line else self.file.rpartition("/")[2]


def finding(name: str, file: str, line: int, message: str, severity: Severity | None = None) -> CodeFinding:
    """A known bug as found at a line, with the severity and the cure that the table has for it."""
    bug = SILENT_BUGS[name]
    return CodeFinding(name, severity or bug.severity, file, line, message[:500], bug.cure)
