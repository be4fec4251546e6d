"""What a method is: a loss, a head, and the stages of its training."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tf_mmloss
from tf_mmloss._validation import choice, flag, number, received, text
from tf_mmloss.functions import imported
from tf_mmloss.imbalance import WEIGHT_SCHEMES
from tf_mmloss.methods.options import signature

if TYPE_CHECKING:
    from tf_mmloss import LongTailLoss

HEADS = ("dense", "cosine")
TASKS = ("class", "rotation")
TRAINS = ("all", "head", "scales", "classifier")
BATCH_NORM = ("inference", "training")
FIRST_DROP = "first-drop"
_PARTS = {"head": "the head alone", "scales": "class factors alone", "classifier": "head and class factors alone"}


def _mapping(argument: str, value: Any) -> None:
    try:
        readable = isinstance(value, Mapping) and list(value.items()) is not None
    except Exception:  # of somebody else's mapping
        readable = False
    if not readable:
        raise ValueError(f"`{argument}` must be a mapping of names to values. {received(argument, value)}")


@dataclasses.dataclass(frozen=True)
class Stage:
    """Epochs that are trained alike, up to the start of the next stage.

    Args:
        starts: a fraction of the epochs, in [0, 1), or "first-drop": the first drop of the learning rate.
        weights: class weights: None, "effective" (Cui et al. 2019) or "inverse".
        sampling: how images are drawn: None (each once), or class by class as "effective" or "inverse" says.
        task: what is predicted: "class", or "rotation": by how many quarter turns an image was rotated. A stage of
            rotations before others is a run of its own, whose backbone the others start from.
        trains: what is trained, the rest being frozen: "all" (default), "head", "scales" (a factor for each class, of
            ones until a stage trains them; see `tf_mmloss.ClassScale`), or "classifier", which is head and scales.
        anew: whether the head begins with new weights.
        batch_norm: what the batch normalisations of a frozen backbone do: "inference" (default), or "training": they
            normalise by the batch and go on averaging, with their scales and offsets frozen.
        loss: as for `Method`. Default: the method's.
        arguments: of the loss, where they are other than the method's. A run may give others of those that the method's
            loss does not have.
        mixes: whether images are mixed in it, where the run mixes them (`--mix`). Default True; no stage after one that
            does not mix does.
        rate: the learning rate in which the stage begins, as a multiple of the run's; half a cosine takes it to 0 by
            the end of the stage. The stages before end their schedule where this one begins. Default: the stage goes
            on with the schedule of those before.
        of_dataset: `arguments`, `rate` and `batch_norm` that are published otherwise for a data set, by its name.

    A stage that trains a part, or has a loss, arguments or a rate, begins with a new optimizer.

    Raises:
        ValueError: an argument out of range, or one that goes with another stage.

    Example:
        >>> deferred_reweighting = (Stage(), Stage("first-drop", weights="effective"))
        >>> new_classifier = (Stage(), Stage(0.9, sampling="inverse", trains="head", anew=True, rate=1.0))
    """

    starts: float | str = 0.0
    weights: str | None = None
    sampling: str | None = None
    task: str = "class"
    trains: str = "all"
    anew: bool = False
    batch_norm: str = "inference"
    loss: str | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    rate: float | None = None
    mixes: bool = True
    of_dataset: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        fraction = isinstance(self.starts, (int, float)) and not isinstance(self.starts, bool) and 0 <= self.starts < 1
        if not (fraction or (isinstance(self.starts, str) and self.starts == FIRST_DROP)):
            raise ValueError(f"`starts` must be in [0, 1), or {FIRST_DROP}. {received('starts', self.starts)}")
        for name in ("weights", "sampling"):
            if getattr(self, name) is not None:
                choice(name, getattr(self, name), WEIGHT_SCHEMES)
        choice("task", self.task, TASKS)
        choice("trains", self.trains, TRAINS)
        choice("batch_norm", self.batch_norm, BATCH_NORM)
        flag("anew", self.anew)
        flag("mixes", self.mixes)
        if self.trains == "all" and (self.anew or self.batch_norm != "inference"):
            raise ValueError(
                "`anew` and `batch_norm` are of a stage with a frozen backbone. Received: trains='all', "
                f"anew={self.anew}, batch_norm={self.batch_norm!r}"
            )
        _mapping("arguments", self.arguments)
        if self.loss is not None:
            text("loss", self.loss)
        if self.rate is not None:
            number("rate", self.rate, above=0)
            if self.starts == FIRST_DROP:
                raise ValueError(
                    f"`starts` must be a fraction where a stage has a `rate`. {received('starts', self.starts)}"
                )
        _mapping("of_dataset", self.of_dataset)
        for published in self.of_dataset.values():
            of_it = {name for name in ("arguments", "rate") if getattr(self, name)}
            of_it |= {"batch_norm"} if self.trains != "all" else set()
            if not (isinstance(published, Mapping) and set(published) <= of_it):
                raise ValueError(
                    "`of_dataset` must map data sets to `arguments`, `rate` and `batch_norm` of a stage that has them. "
                    f"{received('of_dataset', self.of_dataset)}"
                )

    def on(self, dataset: str) -> "Stage":
        """This stage with what is published for a data set."""
        published = dict(self.of_dataset.get(dataset, {}))
        if "arguments" in published:
            published["arguments"] = {**self.arguments, **published["arguments"]}
        return dataclasses.replace(self, of_dataset={}, **published)

    @property
    def is_apart(self) -> bool:
        """Whether it is trained with an optimizer of its own."""
        return self.trains != "all" or self.loss is not None or bool(self.arguments) or self.rate is not None

    @property
    def part(self) -> str | None:
        """What is trained, in words; None: all."""
        return _PARTS.get(self.trains)

    @property
    def summary(self) -> str:
        """What is done in it, in a few words, as "the head alone, re-sampled"; empty where all is trained as it is."""
        done = (self.part, self.weights and "re-weighted", self.sampling and "re-sampled")
        return ", ".join(filter(None, done))

    @property
    def scheme(self) -> str | None:
        """The class weights of its re-weighting or re-sampling; None: it re-balances nothing."""
        return self.weights or self.sampling


@dataclasses.dataclass(frozen=True)
class Method:
    """What `--method` names.

    Args:
        name: of the command line.
        loss: a class of `tf_mmloss`, or `package.module:Class`.
        source: where the definition and its numbers stand.
        label: its name in tables and figures. Default: `name` in capitals.
        head: of the network, "dense" (default) or "cosine".
        arguments: of the loss, where a run is to record or to change its defaults.
        of_dataset: arguments that are published otherwise for a data set.
        stages: of the training, in their order.
        cosine: of a method with a dense head: arguments of the loss under a cosine head, if it is to have that choice.
        recipe_head: the head under another recipe than `paper`, where there is the choice. Default: cosine.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> Method("focal-drw", "FocalLoss", "mine", arguments={"gamma": 2.0}, stages=DRW)
    """

    name: str
    loss: str
    source: str
    label: str = ""
    head: str = "dense"
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    of_dataset: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    stages: tuple[Stage, ...] = (Stage(),)
    cosine: Mapping[str, Any] | None = None
    recipe_head: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "loss", "source"):
            text(name, getattr(self, name))
        if set("+,") & set(self.name):
            raise ValueError(
                f"`name` must have no + and no comma, which part names in `compare`. {received('name', self.name)}"
            )
        choice("head", self.head, HEADS)
        for name in ("arguments", "of_dataset"):
            _mapping(name, getattr(self, name))
        if self.cosine is not None and self.head == "cosine":
            raise ValueError(f"`cosine` is for a method with a dense head. {received('cosine', self.cosine)}")
        if not (isinstance(self.stages, tuple) and self.stages and all(isinstance(s, Stage) for s in self.stages)):
            raise ValueError(f"`stages` must be a tuple of Stage, at least one. {received('stages', self.stages)}")
        own = self.own_stages
        if any(stage.task != own[0].task for stage in own) or own[0].starts != 0:
            raise ValueError(
                "`stages` must begin at 0, and have one task, but for a stage of rotations before the others. "
                f"{received('stages', self.stages)}"
            )
        if own[0].is_apart:
            raise ValueError(
                "`stages` must begin with one that trains all with the method's loss and rate. "
                f"{received('stages', self.stages)}"
            )
        parts = [stage.trains != "all" for stage in own]
        if parts != sorted(parts):
            raise ValueError(
                f"`stages` must train all before a part, as what is frozen stays so. {received('stages', self.stages)}"
            )
        mixing = [stage.mixes for stage in own]
        if mixing != sorted(mixing, reverse=True) or not mixing[0]:
            raise ValueError(
                "`stages` must mix images in the first, and not again after one that does not. "
                f"{received('stages', self.stages)}"
            )
        for name in ("weights", "sampling"):
            schemes = [getattr(stage, name) for stage in own]
            begun = schemes[next((i for i, scheme in enumerate(schemes) if scheme), len(schemes)) :]
            if len(set(begun)) > 1:
                raise ValueError(f"`stages` must keep to the {name} that they began. {received('stages', self.stages)}")
        object.__setattr__(self, "label", self.label or self.name.upper())
        if self.recipe_head:
            choice("recipe_head", self.recipe_head, HEADS)

    @property
    def own_stages(self) -> tuple[Stage, ...]:
        """The stages without that of the backbone that they start from."""
        return self.stages[1:] if self.pretraining != "none" else self.stages

    @property
    def pretraining(self) -> str:
        """What the backbone is trained for before: "none" or "rotation"."""
        pretrained = len(self.stages) > 1 and self.stages[0].task == "rotation" != self.stages[1].task
        return "rotation" if pretrained else "none"

    @property
    def task(self) -> str:
        """What is predicted: "class" or "rotation"."""
        return self.own_stages[0].task

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses of its stages, its own first."""
        return tuple(dict.fromkeys((self.loss, *(stage.loss for stage in self.own_stages if stage.loss))))

    @property
    def fixed(self) -> frozenset[str]:
        """The options that have several values, one for a stage: a run gives no other."""
        of_stages = [name for stage in self.own_stages for name in stage.arguments]
        own = signature(self.loss).options
        return frozenset(name for name in of_stages if name in own or of_stages.count(name) > 1)

    def defaults(self, dataset: str = "") -> dict[str, Any]:
        """The arguments of its losses on a data set, but for those that a stage has beside them."""
        found = {**self.arguments, **self.of_dataset.get(dataset, {})}
        for stage in self.own_stages:
            of_stage = stage.on(dataset).arguments
            found |= {name: value for name, value in of_stage.items() if name not in self.fixed}
        return found

    @property
    def additions(self) -> int:
        """How much it adds to plain training: 1 each for another loss, a pre-training, classes that are re-balanced
        from the start, every later stage, and a loss of a stage's own.
        """
        first, *later = self.own_stages
        others = sum(loss != "CrossEntropyLoss" for loss in self.losses)
        return others + (self.pretraining != "none") + (first.scheme is not None) + len(later)

    @property
    def has_scales(self) -> bool:
        """Whether a stage trains a factor for each class."""
        return any(stage.trains in ("scales", "classifier") for stage in self.own_stages)

    def variant(self, name: str, source: str, **changes: Any) -> "Method":
        """This method with another name, more to its source, and other stages.

        Args:
            name: of the variant.
            source: what is added to this one's.
            changes: other arguments of `Method`.
        """
        label = changes.pop("label", f"{self.label}{name.removeprefix(self.name).upper()}")
        return dataclasses.replace(self, name=name, source=f"{self.source} {source}", label=label, **changes)

    def reweighted(self) -> "Method":
        """This method with deferred re-weighting."""
        return self.variant(f"{self.name}-drw", DRW_SOURCE, stages=DRW)


def loss_class(name: str) -> "type[LongTailLoss]":
    """A class of `tf_mmloss`, or `package.module:Class`. Asking for it imports Keras.

    Raises:
        ValueError: there is no such class, its module raises, or it is no `LongTailLoss`.
    """
    if ":" in text("loss", name):
        found = imported("loss", name)
    elif name in tf_mmloss.__all__:
        found = getattr(tf_mmloss, name)
    else:
        raise ValueError(f"`loss` must be a class of tf_mmloss, or package.module:Class. {received('loss', name)}")
    if not (isinstance(found, type) and issubclass(found, tf_mmloss.LongTailLoss)):
        raise ValueError(f"`loss` must be a child of tf_mmloss.LongTailLoss. {received('loss', name)}")
    return found


DRW = (Stage(), Stage(FIRST_DROP, weights="effective"))
DRS = (Stage(), Stage(FIRST_DROP, sampling="effective"))
DRW_SOURCE = "Re-weighted from the first drop of the learning rate (Cao et al. 2019, Algorithm 1)."
DRS_SOURCE = "Re-sampled from the first drop of the learning rate (Cao et al. 2019, section 3.3)."
