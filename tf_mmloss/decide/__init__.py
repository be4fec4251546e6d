"""Decisions: what is made of a network's outputs after its training, a file each.

A decision is named as `--decide` names it: "none", "logit-adjustment:1.5" with its strength, or "logit-adjustment",
whose strength is fitted on held-out images.
"""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np

from tf_mmloss._validation import choice, received, text
from tf_mmloss.decide.base import Decision, Trained
from tf_mmloss.evaluation import cross_fitted

__all__ = [
    "Decided",
    "Decision",
    "Trained",
    "check",
    "decided",
    "decisions",
    "fit",
    "is_probabilistic",
    "layer",
    "parse",
]


@functools.cache
def decisions() -> dict[str, Decision]:
    """The decisions by their names. Asking for them imports Keras."""
    found: dict[str, Decision] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        for _, value in inspect.getmembers(importlib.import_module(f"{__name__}.{module}"), inspect.isclass):
            if issubclass(value, Decision) and not inspect.isabstract(value):
                found[value.name] = value()
    return found


def parse(spec: str) -> tuple[Decision | None, float | None]:
    """Return the decision that a text names, None for "none", and its strength, None where it is to be fitted.

    Args:
        spec: "none", "NAME" or "NAME:STRENGTH".

    Raises:
        ValueError: an unknown name, a strength that is no number or out of range.

    Example:
        >>> parse("temperature:2")[1], parse("none")
        (2.0, (None, None))
    """
    name, colon, strength = text("decide", spec).partition(":")
    if choice("decide", name, ("none", *decisions())) == "none":
        if colon:
            raise ValueError(f"`decide` none has no strength. {received('decide', spec)}")
        return None, None
    decision = decisions()[name]
    if not colon:
        return decision, None
    try:
        value = float(strength)
    except ValueError:
        raise ValueError(f"`decide` must be {name}, or {name}:NUMBER. {received('decide', spec)}") from None
    return decision, decision.check(value)


def check(spec: str, *, head: str, probabilistic: bool, activation: str, holdout: float) -> None:
    """Refuse a decision that a run cannot have.

    Args:
        spec: see `parse`.
        head: of the network, "dense" or "cosine".
        probabilistic, activation: of the loss, see `LongTailLoss`.
        holdout: images of each class that the run holds out, or a share of it.

    Raises:
        ValueError: as `parse`; a decision that is not defined for the head or the loss; nothing to fit it on.
    """
    decision, strength = parse(spec)
    if decision is None:
        return
    decision.refuse(head=head, probabilistic=probabilistic, activation=activation)
    if strength is None and not holdout:
        raise ValueError(
            f"`decide` {spec} is fitted on held-out training images, and none are held out: give a strength, as in "
            f"{spec}:1, or train with --holdout."
        )


def layer(spec: str, trained: Trained) -> Any:
    """Return the layer `tf_mmloss.Probabilities` of a decision, for images that it was not fitted on.

    Args:
        spec: "none", or a decision with its strength.
        trained: what was trained.

    Raises:
        ValueError: as `parse`; no strength.
    """
    from tf_mmloss.layers import Probabilities

    decision, strength = parse(spec)
    if decision is None:
        return Probabilities(trained.scale, trained.activation)
    if strength is None:
        raise ValueError(f"`decide` must have a strength here. {received('decide', spec)}")
    head = "cosine" if trained.kernel is None else "dense"
    decision.refuse(head=head, probabilistic=trained.probabilistic, activation=trained.activation)
    scale, offset = (np.asarray(value).tolist() for value in decision.affine(trained, strength))
    return Probabilities(scale, trained.activation, offset)


def fit(spec: str, trained: Trained, labels: np.ndarray, logits: np.ndarray) -> str:
    """Return a decision with its strength, fitted where it has none.

    Args:
        spec: see `parse`.
        trained: what was trained.
        labels: (N,) true classes of held-out images.
        logits: (N, C), outputs of the network.

    Raises:
        ValueError: as `parse`.

    Example:
        >>> fit("temperature", Trained(1.0, [90, 10]), np.array([0, 0, 1, 1]), 2 * np.eye(2)[[0, 0, 0, 1]])
        'temperature:1.820...'
    """
    decision, strength = parse(spec)
    if decision is None or strength is not None:
        return spec
    return f"{decision.name}:{decision.fit(trained, labels, logits)!r}"


def is_probabilistic(spec: str, trained: Trained) -> bool:
    """Whether the softmax of what is decided gives probabilities: not of a hinge, unless its temperature was fitted."""
    decision, _ = parse(spec)
    has_them = trained.probabilistic or (decision is not None and decision.of_scores)
    return has_them and trained.activation == "softmax"


@dataclasses.dataclass(frozen=True)
class Decided:
    """A decision and what it makes of labelled images.

    Args:
        spec: with its strength; fitted: whether on these images.
        scores: (N, C), whose largest is the answer; softmax gives the probabilities. Where the strength was fitted,
            each half of the images has the strength that the other half gives.
        probabilistic: whether there are probabilities over the classes together.
    """

    spec: str
    fitted: bool
    scores: np.ndarray
    probabilistic: bool


def decided(spec: str, trained: Trained, labels: np.ndarray, logits: np.ndarray) -> Decided:
    """Decide on labelled images, which are those that a strength is fitted on where `spec` has none.

    Args:
        spec: see `parse`.
        trained: what was trained.
        labels: (N,) true classes.
        logits: (N, C), outputs of the network.

    Raises:
        ValueError: as `parse`.
    """
    chosen = fit(spec, trained, labels, logits)
    fitted = chosen != spec

    def scores_of(one: np.ndarray, theirs: np.ndarray) -> Any:
        return layer(fit(spec, trained, one, theirs), trained).scores

    if fitted and len(labels) > 1:
        scores = cross_fitted(labels, logits, scores_of)
    else:
        scores = layer(chosen, trained).scores(logits)
    return Decided(chosen, fitted, scores, is_probabilistic(chosen, trained))
