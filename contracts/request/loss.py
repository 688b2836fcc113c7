"""What training makes small. The arithmetic is in the engine, one part per loss."""

from collections import Counter
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Discriminator, Field, Tag, field_validator

from contracts.request.section import Real, Section, Task, Whole, refused

Weight = Annotated[Real, Field(ge=0, le=1e9)]

ClassWeights = Annotated[
    Annotated[tuple[Weight, ...], Field(min_length=2, max_length=100_000), Tag("given")]
    | Annotated[Literal["equal", "balanced"], Tag("named")],
    Discriminator(lambda value: "named" if isinstance(value, str) else "given"),
]
"""One number per class; `balanced` makes rare classes weigh as much as common ones."""


class LossSection(Section):
    """What every loss says of itself: the tasks it suits, and the one that it makes of data for classification."""

    learns: ClassVar[Task | None] = None
    fits: ClassVar[tuple[Task, ...]] = ()

    def suits(self, task: Task) -> bool:
        """Whether it can judge answers of a task."""
        return task in self.fits


class AutoLoss(LossSection):
    """The task's own: cross-entropy for classes and tokens, mean squared error for numbers, a workload's own loss."""

    type: Literal["auto"] = "auto"

    def suits(self, task: Task) -> bool:
        """Every task but embedding, which is asked for by its loss, has one."""
        return task != "embedding"


class CrossEntropy(LossSection):
    """For classes and tokens; `label_smoothing` spreads that share evenly over all classes."""

    fits: ClassVar[tuple[Task, ...]] = ("classification", "sequences")
    type: Literal["cross_entropy"]
    label_smoothing: Real = Field(0.0, ge=0, lt=1)
    class_weights: ClassWeights = "equal"


class Focal(LossSection):
    """Cross-entropy that makes little of rows already answered well: the more so, the larger `gamma`."""

    fits: ClassVar[tuple[Task, ...]] = ("classification", "sequences")
    type: Literal["focal"]
    gamma: Real = Field(2.0, ge=0, le=100)
    class_weights: ClassWeights = "equal"


class Bce(LossSection):
    """Binary cross-entropy: each class against all others, by itself."""

    fits: ClassVar[tuple[Task, ...]] = ("classification",)
    type: Literal["bce"]


class Mse(LossSection):
    """Mean squared error, in units of the target's standard deviation."""

    fits: ClassVar[tuple[Task, ...]] = ("regression", "reconstruction")
    type: Literal["mse"]


class Huber(LossSection):
    """Squared near zero, linear beyond `delta` standard deviations of the target."""

    fits: ClassVar[tuple[Task, ...]] = ("regression", "reconstruction")
    type: Literal["huber"]
    delta: Real = Field(1.0, gt=0, le=1e6)


class Embedding(LossSection):
    """Losses that answer rows with directions of `width` numbers, near each other within a class."""

    learns: ClassVar[Task | None] = "embedding"
    fits: ClassVar[tuple[Task, ...]] = ("embedding",)
    width: Whole = Field(32, ge=1, le=65_536)


class Contrastive(Embedding):
    """Each row should be likelier to pick rows of its class than others; a low `temperature` picks sharply."""

    type: Literal["contrastive"]
    temperature: Real = Field(0.1, gt=0, le=100)


class Triplet(Embedding):
    """The farthest row of the same class should be nearer than the nearest of another by `margin`, squared."""

    type: Literal["triplet"]
    margin: Real = Field(0.5, gt=0, le=4)


Single = Annotated[CrossEntropy | Focal | Bce | Mse | Huber, Field(discriminator="type")]


class Term(Section):
    """One of several losses; without a `loss` of its own it is the one that a workload returns under this name."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    weight: Real = Field(1.0, gt=0, le=1e9)
    loss: Single | None = None


class MultiTask(LossSection):
    """The weighted sum of several losses; `adaptive` also learns how far each is to be trusted, by its uncertainty.

    Evaluations always weigh as written, so that they can be compared.
    """

    type: Literal["multi_task"]
    terms: tuple[Term, ...] = Field(min_length=1, max_length=64)
    adaptive: bool = False

    def suits(self, task: Task) -> bool:
        """Whether all of its terms can judge answers of a task."""
        return all(term.loss is None or term.loss.suits(task) for term in self.terms)

    @field_validator("terms")
    @classmethod
    def _have_names_of_their_own(cls, terms: tuple[Term, ...]) -> tuple[Term, ...]:
        names = Counter(term.name for term in terms)
        if twice := [name for name, count in names.items() if count > 1]:
            raise refused(f"two terms are called {twice[0]!r}", "Give each term a name of its own.")
        return terms


Loss = Annotated[
    AutoLoss | CrossEntropy | Focal | Bce | Mse | Huber | Contrastive | Triplet | MultiTask,
    Field(discriminator="type"),
]

LOSSES: tuple[type[LossSection], ...] = tuple(
    kind for kind in get_args(get_args(Loss)[0]) if kind not in (AutoLoss, MultiTask)
)
"""Every loss that is one by itself."""
