"""The result of a run: what metrics.json and predictions.npy hold, the figures, and the result as text."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_mmloss import decide
from tf_mmloss.datasets import ImageDataset
from tf_mmloss.evaluation import calibrated, softmax
from tf_mmloss.metrics import expected_calibration_error, per_class_error, shot_masks
from tf_mmloss.runs import plots, predictions
from tf_mmloss.runs.model import checksum
from tf_mmloss.train import progress
from tf_mmloss.train.config import Config
from tf_mmloss.train.history import best_epoch, evaluated_epochs
from tf_mmloss.train.inputs import Splits

_MOST_ROWS = 40


def summary(metrics: dict[str, Any]) -> str:
    """A result as text: error, balanced accuracy and a table by class, of many classes the worst."""
    shots = "  ".join(f"{k}-shot {v:.2%}" for k, v in metrics["shot_accuracy"].items() if v is not None)
    rows = list(zip(metrics["class_names"], metrics["cls_counts"], metrics["per_class_error"], strict=True))
    of = ""
    if len(rows) > _MOST_ROWS:
        of = f"\nthe {_MOST_ROWS} of {len(rows)} classes with the highest error; all are in index.html"
        rows = sorted(rows, key=lambda row: -1 if row[2] is None else row[2], reverse=True)[:_MOST_ROWS]
    width = max(len(name) for name in ("class", *(row[0] for row in rows)))
    return "\n".join(
        [
            f"\nLast epoch, {metrics['evaluated_on']}: top-1 error {metrics['error']:.2%}, "
            f"balanced accuracy {metrics['balanced_accuracy']:.2%}",
            f"accuracy by class size: {shots}",
            *_calibration(metrics),
            *_decision(metrics),
            f"{'class':{width}}  training images   error",
            *(
                f"{name:{width}}  {count:15,}  {'none evaluated' if error is None else f'{error:7.2%}'}"
                for name, count, error in rows
            ),
            f"{metrics['epochs']} epoch{'s' * (metrics['epochs'] != 1)} in {progress.clock(metrics['seconds'])}{of}",
        ]
    )


def _calibration(metrics: dict[str, Any]) -> list[str]:
    if "calibration_error" not in metrics:  # an older run, or of a loss that has no probabilities
        return []
    return [f"mean confidence {metrics['mean_confidence']:.2%}, calibration error {metrics['calibration_error']:.2%}"]


def _decision(metrics: dict[str, Any]) -> list[str]:
    if "decision" not in metrics:
        return []
    decision = metrics["decision"]
    of = ", fitted on these images: each half by the other" if decision.get("fitted") else ""
    return [f"decided by {decision['decide']}{of}; error without it {decision['error_without']:.2%}"]


def measure(
    config: Config,
    data: ImageDataset,
    splits: Splits,
    decided: decide.Decided,
    history: list[dict[str, float]],
    model: keras.Model,
) -> dict[str, Any]:
    """The content of metrics.json, but for `decision`."""
    predicted = decided.scores.argmax(axis=-1)
    errors = per_class_error(splits.eval_labels, predicted, len(splits.class_names))
    best, evaluated = history[best_epoch(history) or 0], len(evaluated_epochs(history))  # the last epoch always is
    shown = ~np.isnan(errors)  # a class without images has no error, and no part in a mean
    return {
        "error": float(np.mean(predicted != splits.eval_labels)),
        "balanced_accuracy": float(1 - np.mean(errors[shown])),
        "shot_accuracy": {
            shot: float(1 - errors[mask & shown].mean()) if (mask & shown).any() else None
            for shot, mask in shot_masks(splits.cls_counts).items()
        },
        "per_class_error": [None if np.isnan(error) else error for error in errors.tolist()],
        **_confidence(splits.eval_labels, decided),
        "best_epoch": {"epoch": best["epoch"], "error": 1 - best["val_accuracy"], "evaluated": evaluated},
        "evaluated_on": "held-out training images" if config.holdout else "test split",
        "cls_counts": splits.cls_counts.tolist(),
        "class_names": list(splits.class_names),
        "mean": list(data.mean),
        "std": list(data.std),
        "epochs": len(history),
        "seconds": sum(row["seconds"] for row in history),
        "images_per_second": float(np.median([row["images_per_second"] for row in history])),
        "checksum": checksum(model),
    }


def keep_predictions(folder: Path, splits: Splits, decided: decide.Decided) -> None:
    """Keep what was predicted."""
    labels, predicted = splits.eval_labels, decided.scores.argmax(axis=-1)
    rows = np.arange(len(labels))
    confidence = softmax(decided.scores)[rows, predicted] if decided.probabilistic else None
    scaled = calibrated(labels, decided.scores)[rows, predicted] if len(labels) > 1 else None
    predictions.save(folder, predictions.Predictions(labels, predicted, confidence, scaled, splits.eval_groups))


def draw_figures(folder: Path, splits: Callable[[], Splits]) -> None:
    """Draw the figures of a finished run, and what it lacks of those that show images.

    One that cannot be drawn, as there is no font or the images are gone, is named: the run has its result without it.
    """
    figures = plots.figures(folder)
    if (folder / predictions.NAME).exists():  # earlier versions kept nothing to draw them from
        figures |= {
            name: functools.partial(draw, folder / "plots" / f"{name}.png", splits)
            for name, draw in (("mistakes", _draw_mistakes), ("examples", _draw_examples))
            if not os.path.lexists(folder / "plots" / f"{name}.png")
        }
    for name, draw in figures.items():
        try:
            draw()
        except Exception as error:
            progress.tell(
                f"warning: plots/{name} of {folder} cannot be drawn ({type(error).__name__}: {error}). The run is "
                "finished without it; --resume draws it again."
            )


def _draw_mistakes(path: Path, splits: Callable[[], Splits]) -> None:
    names = splits().class_names
    found = predictions.read(path.parents[1], len(names))
    if found is not None:
        plots.mistakes(splits().eval_images, found, names, path)


def _draw_examples(path: Path, splits: Callable[[], Splits]) -> None:
    plots.examples(splits().train_images, splits().train_labels, splits().class_names, path)


def _confidence(labels: np.ndarray, decided: decide.Decided) -> dict[str, float]:
    """How far the probabilities can be trusted; nothing of a loss that has none over the classes together."""
    if not decided.probabilistic:
        return {}
    probabilities = softmax(decided.scores)
    return {
        "calibration_error": expected_calibration_error(labels, probabilities),
        "mean_confidence": float(probabilities.max(axis=-1).mean()),
    }
