"""Rows, which a method asks for, and traces, which it gets.

A row is one image going once through one network: forward only, or forward and back
to the image.
"""

import enum
import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor

from ..models.gates import Rule
from ..models.network import OUTPUT, PENULTIMATE
from ..models.registry import Model
from ..models.styles.library import StyleModel
from .siblings import Siblings

if TYPE_CHECKING:
    from .lockstep import Climb


class Lane(enum.Enum):
    """Which way a row goes, and by which backward program; lanes never share a batch."""

    FORWARD = "forward"
    GRADIENT = "gradient"
    LRP = "lrp"
    DEEPLIFT = "deeplift"


class Score(enum.IntEnum):
    """What of a class is its score."""

    LOGIT = 0
    LOG_PROBABILITY = 1
    PROBABILITY = 2


@dataclass(frozen=True)
class ClassTarget:
    """The score of a class."""

    index: int
    score: Score = Score.LOGIT
    tap = OUTPUT

    @property
    def weights(self) -> tuple[tuple[int, float], ...]:
        return ((self.index, 1.0),)


@dataclass(frozen=True)
class ClassesTarget:
    """The weighted sum of the scores of classes: several at once, or one minus another."""

    weights: tuple[tuple[int, float], ...]
    score: Score = Score.LOGIT
    tap = OUTPUT


@dataclass(frozen=True)
class TopTarget:
    """The score of the row's own best class, less that of another class if one is named."""

    score: Score = Score.LOGIT
    against: int | None = None
    tap = OUTPUT


@dataclass(frozen=True)
class NeuronTarget:
    """A neuron of a layer; without y and x the sum over a channel's map, or over all maps."""

    layer: str
    channel: int | None = None
    y: int | None = None
    x: int | None = None

    @property
    def tap(self) -> str:
        return self.layer


@dataclass(frozen=True)
class PermutedTarget:
    """The weighted sum of the scores of classes whose rows of the classifier are permuted.

    Its scores and gradients start from what the classifier gets.

    Attributes:
        weights: As of ClassesTarget.
        orders: For each of them, where each weight of its row comes from.
    """

    weights: tuple[tuple[int, float], ...]
    orders: tuple[tuple[int, ...], ...]
    score: Score = Score.LOGIT
    tap = PENULTIMATE


@dataclass(frozen=True, eq=False)
class DirectionTarget:
    """The dot product of a layer's activation with a vector, summed over all places, or at one.

    Attributes:
        layer: Of channels, or of channels × height × width.
        vector: One number a channel, in the activation's dtype, on its device.
    """

    layer: str
    vector: Tensor
    y: int | None = None
    x: int | None = None

    @property
    def tap(self) -> str:
        return self.layer


@dataclass(frozen=True, eq=False)
class CodeTarget:
    """How near a layer's activation Φ is to a code Φ₀: -‖Φ - Φ₀‖²/E, at most 0.

    Attributes:
        layer: Its name.
        code: Φ₀, of the activation's shape.
        energy: E, more than 0: ‖Φ₀‖² of Mahendran and Vedaldi 2014, arXiv:1412.0035; 2 of Gatys,
            Ecker and Bethge 2015, arXiv:1508.06576.
    """

    layer: str
    code: Tensor
    energy: float

    @property
    def tap(self) -> str:
        return self.layer


@dataclass(frozen=True)
class EnergyTarget:
    """½‖Φ‖² of a layer's activation Φ, whose gradient is the activation itself.

    Mordvintsev, Olah and Tyka 2015: DeepDream.
    """

    layer: str

    @property
    def tap(self) -> str:
        return self.layer


@dataclass(frozen=True, eq=False)
class GuideTarget:
    """At every place, the dot product with that feature of a guide that it is largest with.

    Mordvintsev, Olah and Tyka 2015: DeepDream, guided.

    Attributes:
        layer: Of channels × height × width.
        features: Channels × places of the guide.
    """

    layer: str
    features: Tensor

    @property
    def tap(self) -> str:
        return self.layer


@dataclass(frozen=True, eq=False)
class GramTarget:
    """How near a layer's Gram matrix G is to those of styles: -c·Σ_s w_s·‖G - A_s‖², at most 0.

    Of maps F, N×M, it is G = F·diag(p)·Fᵀ, where p weighs the places. Gatys, Ecker and Bethge
    2015, arXiv:1508.06576. Where the weights of styles sum to 1, that is the distance from their
    mean and a number: Σ_s w_s·‖G - A_s‖² = ‖G - Ā‖² + Σ_s w_s·‖A_s - Ā‖².

    Attributes:
        layer: Of N maps.
        gram: Ā, N×N: the weighted mean of the styles' Gram matrices.
        spread: Σ_s w_s·‖A_s - Ā‖²; 0 of one style.
        scale: c.
        places: p, M numbers that sum to 1; None: 1/M each.
    """

    layer: str
    gram: Tensor
    spread: float
    scale: float
    places: Tensor | None = None

    @property
    def tap(self) -> str:
        return self.layer


@dataclass(frozen=True)
class MarginTarget:
    """How clearly an image is of another class, or of a goal: -max(margin + confidence, 0).

    The margin of a class that is to be left is its logit less the best other one; of a goal, the
    best other logit less its own. Carlini and Wagner 2016, arXiv:1608.04644, f6.

    Attributes:
        index: The class.
        sought: Whether it is the goal; it is to be left otherwise.
        confidence: The margin that is wanted, at least 0.
    """

    index: int
    sought: bool
    confidence: float = 0.0
    tap = OUTPUT
    layer = OUTPUT


@dataclass(frozen=True, eq=False)
class DiversityTarget:
    """How unlike an image is to others of its job: -mean cos(G, G'), from -1 to 0.

    G is the Gram matrix of its layer's activation, channels × channels, and each G' that of
    another image as it was a step before: at first there is none, and the score is 0. Olah,
    Mordvintsev and Schubert 2017, doi:10.23915/distill.00007.

    Attributes:
        layer: Of channels × height × width.
        siblings: What the job's images were like a step before.
        place: Which of them it is, from 0.
        step: Which step it is at, from 0.
    """

    layer: str
    siblings: Siblings
    place: int = 0
    step: int = 0

    @property
    def tap(self) -> str:
        return self.layer


@dataclass(frozen=True, eq=False)
class CosineTarget:
    """How alike a layer's pooled activation is to a code: the cosine of their angle, -1 to 1.

    The activation is pooled by its mean over places, class tokens left out. Where it, or the code,
    is 0, so are the cosine and its gradient.

    Attributes:
        layer: Of channels, or of channels × height × width in any order.
        code: One number a channel, in the activation's dtype, on its device.
    """

    layer: str
    code: Tensor

    @property
    def tap(self) -> str:
        return self.layer


Resolved = ClassTarget | ClassesTarget | NeuronTarget | PermutedTarget
Goal = (
    Resolved
    | DirectionTarget
    | CodeTarget
    | EnergyTarget
    | GuideTarget
    | DiversityTarget
    | MarginTarget
    | GramTarget
    | CosineTarget
)


@dataclass(frozen=True)
class SumTarget:
    """The weighted sum of goals: what an image is optimized for."""

    terms: tuple[tuple[Goal, float], ...]

    @property
    def kept_apart(self) -> tuple[DiversityTarget, ...]:
        """Those of the goals that look at other images of the job."""
        return tuple(goal for goal, _ in self.terms if isinstance(goal, DiversityTarget))

    def at(self, place: int, step: int) -> "SumTarget":
        """As it is for one of a job's images at a step."""
        if not self.kept_apart:
            return self
        return SumTarget(
            tuple(
                (replace(g, place=place, step=step) if isinstance(g, DiversityTarget) else g, w)
                for g, w in self.terms
            )
        )


Target = Resolved | TopTarget
Single = Target | CosineTarget
"""What each image of some rows can have as its own."""

Aim = Single | SumTarget


class Want(enum.Flag):
    """What a method wants of its rows; the target's score always comes."""

    SCORE = 0
    LOGITS = enum.auto()
    ACTIVATION = enum.auto()
    """Of each layer that the rows name."""
    ATTENTION = enum.auto()
    """The weights of every attention, which are recomputed from queries and keys."""
    GRADIENT = enum.auto()
    """By the image."""
    LAYER_GRADIENT = enum.auto()
    """By the activation of each of them."""


@dataclass(frozen=True)
class Ask:
    """Rows that a job asks for together, again and again, each time when it has those before.

    Attributes:
        lane: Theirs.
        row_count: Of each time.
        times: How often: a mean, where nobody can know.
    """

    lane: Lane
    row_count: int
    times: float = 1.0


def counted(asks: Iterable[Ask]) -> dict[Lane, int]:
    """How many rows that is, by lane."""
    counts: dict[Lane, float] = {}
    for ask in asks:
        counts[ask.lane] = counts.get(ask.lane, 0.0) + ask.times * ask.row_count
    return {lane: math.ceil(round(count, 6)) for lane, count in counts.items()}


@dataclass(frozen=True)
class Rows:
    """Images that a method wants run, for one target or for one each.

    Attributes:
        images: n×3×H×W, on the device, in the network's dtype.
        target: Whose score, and whose gradient: one for all images, or n that are no sums.
        want: What to compute besides the score.
        rule: How gradients pass rectifiers, or relevance passes layers.
        layers: Those of ACTIVATION and LAYER_GRADIENT.
        peak_layers: Those of whose channels only the largest activation and its place are wanted.
        epsilon: Of LRP's rules: keeps divisors away from 0.
        references: n×3×H×W for DeepLIFT: each image's own, which rides with it.
        model: Whose network they go through, where it is not the job's: another one that the
            server has, or the job's with a twin of its network.
        bucket_size: What their batches are padded to; None: what the request says, if it does.
        may_fail: Whether the method goes on where what came of a row is not finite, which its
            traces say. Otherwise the job ends.
    """

    images: Tensor
    target: Aim | tuple[Single, ...]
    want: Want = Want.SCORE
    rule: Rule = Rule.GRADIENT
    layers: tuple[str, ...] = ()
    epsilon: float = 0.0
    references: Tensor | None = None
    model: Model | None = None
    bucket_size: int | None = None
    may_fail: bool = False
    peak_layers: tuple[str, ...] = ()

    @property
    def lane(self) -> Lane:
        if self.references is not None:
            return Lane.DEEPLIFT
        if self.rule in (Rule.LRP_EPSILON, Rule.LRP_COMPOSITE):
            return Lane.LRP
        if self.want & (Want.GRADIENT | Want.LAYER_GRADIENT):
            return Lane.GRADIENT
        return Lane.FORWARD

    def target_of(self, index: int) -> Aim:
        """That of one image."""
        return self.target[index] if isinstance(self.target, tuple) else self.target

    @property
    def taps(self) -> frozenset[str]:
        goals: Sequence[Goal | TopTarget]
        match self.target:
            case SumTarget(terms=terms):
                goals = [goal for goal, _ in terms]
            case tuple() as goals:
                pass
            case target:
                goals = [target]
        taps = {goal.tap for goal in goals}
        if self.want & (Want.LOGITS | Want.ATTENTION):  # attentions lie all the way
            taps.add(OUTPUT)
        return frozenset(taps.union(self.layers, self.peak_layers))


@dataclass(frozen=True)
class StyleRows:
    """Images that a network of fast style is to paint, or to predict codes of.

    Attributes:
        images: n×3×H×W, 0-1, on the device, in the network's dtype.
        model: Whose network.
        codes: n×K, the style of each; None: it takes none.
        bucket_size: As of Rows.
    """

    images: Tensor
    model: StyleModel
    codes: Tensor | None = None
    bucket_size: int | None = None

    lane: ClassVar[Lane] = Lane.FORWARD
    rule: ClassVar[Rule] = Rule.GRADIENT
    may_fail: ClassVar[bool] = False


@dataclass(frozen=True)
class Traces:
    """What came of rows, in their order.

    Attributes:
        scores: n, float64, on the host: the target's score.
        classes: n, int64, on the host: the target's class; -1 for a neuron or a sum.
        finite: n, bool, on the host: whether all that was wanted of a row is finite. Of rows that
            may not fail, it is.
        terms: n×terms, float64, on the host, of a SumTarget: the score of each, not weighted.
        logits: n×classes on the host, if they were wanted.
        activations: n×… on the device, by layer, of those that the rows named; if wanted.
        gradient: n×3×H×W on the device, if it was wanted: of the score by the image. In the
            lanes of LRP and DeepLIFT: the relevance of the image, or its contributions.
        layer_gradients: As activations, if wanted: of the score by the activation.
        attention: n×layers×heads×tokens×tokens on the device, if it was wanted.
        made: n×… on the device, of StyleRows, which bring nothing else: what the network made.
        peaks: n×channels on the device, by layer: the largest activation of each channel.
        peak_places: int32, likewise: its first place in the channel's map, row by row.
    """

    scores: Tensor
    classes: Tensor
    finite: Tensor
    terms: Tensor | None
    logits: Tensor | None
    activations: Mapping[str, Tensor]
    gradient: Tensor | None
    layer_gradients: Mapping[str, Tensor]
    attention: Tensor | None
    made: Tensor | None
    peaks: Mapping[str, Tensor] = field(default_factory=dict)
    peak_places: Mapping[str, Tensor] = field(default_factory=dict)


Brought = dict[tuple[str, str], Tensor]
"""What rows wanted, by a field of Traces, and by layer where it is by layers."""


@dataclass(frozen=True)
class Chore:
    """What a method wants done on the host, off the engine thread: it gets what do returns.

    Attributes:
        do: Called in a worker thread with the input, 3×H×W, as it is on the host.
    """

    do: Callable[[Tensor], Any]


@dataclass(frozen=True)
class Event:
    """What a method shows while it works: a result as far as it is made. It gets None.

    Attributes:
        value: What the job's outlet is handed, its tensors on the host.
    """

    value: Any


@dataclass(frozen=True)
class State:
    """All that a method needs to go on from here, on whichever server. It gets None.

    A job is handed over by the last one that its method has yielded.

    Attributes:
        value: What the job's outlet is handed if the server leaves.
    """

    value: Any


Result = TypeVar("Result")
Program = Generator["Rows | StyleRows | Chore | Event | State | Climb", Any, Result]
"""A method in the middle of its work: it yields rows and gets traces, and returns its result."""
