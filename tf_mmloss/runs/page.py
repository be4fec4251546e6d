"""The page of a run, RUN/index.html, and of several runs side by side: one file each, which needs nothing else."""

import base64
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from tf_mmloss import _version
from tf_mmloss.evaluation import FEW, by_predictions, drawn_from
from tf_mmloss.files import atomic_path, read_bytes
from tf_mmloss.metrics import reliability
from tf_mmloss.runs import folder as run_folder
from tf_mmloss.runs import predictions

NAME = "index.html"
# More classes have no room for names beside a matrix.
NAMED_CLASSES = 30
# A bootstrap over more images takes too long for a page.
_MOST_IMAGES = 500_000
_MEASURES = {
    "top_1_accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "g_mean": "G-mean",
    "many_accuracy": "accuracy, classes of more than 100 images",
    "medium_accuracy": "accuracy, classes of 20 to 100 images",
    "few_accuracy": "accuracy, classes of fewer than 20 images",
}


def write(folder: Path) -> Path:
    """Write the page of a run into its folder; return its path.

    Raises:
        RunFolderError: no run folder, or one of another version.
    """
    run_folder.check_own(folder, files=[NAME], folders=())
    path = folder / NAME
    _write(path, _template("run.html").render(run=_run(folder), version=_version.__version__))
    return path


def write_comparison(folders: Sequence[Path], out: Path, found: Mapping[str, Any] | None = None) -> None:
    """Write a page of several finished runs.

    Args:
        folders: of the runs.
        out: the file.
        found: of a comparison of their methods, what `tf_mmloss.train.compare.report` returns.

    Raises:
        RunFolderError: no finished run folder, or one of another version.
    """
    runs = [_summary(folder) for folder in folders]
    unfinished = [str(run["folder"]) for run in runs if run["metrics"] is None]
    if unfinished:
        raise run_folder.RunFolderError(f"{unfinished[0]} is no finished run folder: it has no metrics.json.")
    content = {
        "runs": runs,
        "columns": _columns(runs, found),
        "best": min(runs, key=lambda run: run["metrics"]["error"]),
        "found": found and _comparison(found),
    }
    run_folder.make_folder(out.parent)
    _write(out, _template("runs.html").render(**content, version=_version.__version__))


def _columns(runs: Sequence[Mapping[str, Any]], found: Mapping[str, Any] | None) -> dict[str, list[float | None]]:
    """Error of each class by run or, in a comparison, by method; nothing of runs of different classes."""
    if len({tuple(run["metrics"]["class_names"]) for run in runs}) > 1:
        return {}
    errors: dict[str, list[Sequence[float | None]]] = {}
    for run in runs:
        label = run["method"] if found else f"{run['method']}, seed {run['config']['seed']}"
        if not found and label in errors:
            label = f"{label}, {run['folder']}"
        errors.setdefault(label, []).append(run["metrics"]["per_class_error"])
    return {label: [_mean(of_class) for of_class in zip(*by_run, strict=True)] for label, by_run in errors.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _comparison(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a page says of a comparison of methods."""
    from tf_mmloss import comparison  # here: it needs SciPy

    methods = [row | {"label": run_folder.method_label(row["name"])} for row in found["methods"]]
    seeds = f"{found['seeds']} seed{'s' * (found['seeds'] > 1)}"
    planned = f" of {found['planned_seeds']} planned" if found["seeds"] < found["planned_seeds"] else ""
    sign = -1 if found["measure"] == "error" else 1  # the better method has the lower error
    pairs = [
        pair
        | {name: run_folder.method_label(pair[name]) for name in ("better", "worse")}
        | {"difference": sign * pair["difference"], "interval": sorted(sign * end for end in pair["interval"])}
        | {"chance": None if pair["p_corrected"] is None else comparison.chance(pair["p_corrected"])}
        for pair in found["pairs"]
    ]
    return {
        **found,
        "methods": methods,
        "pairs": pairs,
        "measures": comparison.MEASURES,
        "of": f"{seeds}{planned} of each method, {found['on']}; {found['trained_on']}",
        "over": "seeds and images both"
        if found["seeds"] > 1
        else "the images alone, as one seed says nothing of others",
        "pictures": [
            _dots(methods, name, found) | {"label": label}
            for name, label in sorted(comparison.MEASURES.items(), key=lambda item: item[0] != found["measure"])
            if any(row[name] is not None for row in methods)
        ],
    }


def _dots(methods: Sequence[Mapping[str, Any]], measure: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """A measure of each method with its interval and seeds, in % of a drawing's width."""
    there = [row for row in methods if row[measure] is not None]
    ends = [end for row in there for end in (*row[measure]["interval"], *row[measure]["by_seed"])]
    low, high = min(ends), max(ends)

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low or 1), 2)

    return {
        "decides": measure == found["measure"],
        "low": low,
        "high": high,
        "rows": [
            {
                "label": row["label"],
                "choice": row["name"] == found["choice"],
                "low": at(row[measure]["interval"][0]),
                "width": round(at(row[measure]["interval"][1]) - at(row[measure]["interval"][0]), 2),
                "value": at(row[measure]["value"]),
                "seeds": [at(value) for value in row[measure]["by_seed"]],
            }
            for row in there
        ],
    }


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _template(name: str) -> jinja2.Template:
    """A page's template. Everything that is put into it is text: nothing becomes markup."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tf_mmloss.runs", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "duration": run_folder.duration}
    return environment.get_template(name)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _summary(folder: Path) -> dict[str, Any]:
    """What every page says of a run."""
    config = run_folder.read_json(folder, "config.json", ["dataset", "imbalance", "ratio", "method", "seed"])
    metrics = None
    if run_folder.is_finished(folder):
        needed = ["error", "balanced_accuracy", "shot_accuracy", "per_class_error", "best_epoch", "evaluated_on"]
        needed += ["cls_counts", "class_names", "epochs", "seconds", "images_per_second"]
        metrics = run_folder.read_json(folder, "metrics.json", needed)
    return {
        "folder": folder,
        "quoted": shlex.quote(str(folder)),
        "data": run_folder.data_label(config),
        "method": run_folder.method_label(config["method"]),
        "config": config,
        "metrics": metrics,
    }


def _run(folder: Path) -> dict[str, Any]:
    """What the page of a run says of it."""
    run = _summary(folder)
    config, metrics = run["config"], run["metrics"]
    has = {name: (folder / name).exists() for name in ("environment.json", "history.csv", "data.json")}
    starts = []  # of a run that has only just begun there are none
    if metrics or has["environment.json"]:
        starts = run_folder.read_json(folder, "environment.json", ["starts"])["starts"]
    history = run_folder.read_history(folder) if has["history.csv"] else []
    data = run_folder.read_json(folder, "data.json") if has["data.json"] else {}
    if metrics is None:  # the page says how many epochs are planned
        run_folder.read_json(folder, "config.json", ["epochs"])
    return run | {
        "command": command_line("fit", config),
        "is_training": metrics is None and run_folder.is_busy(folder),
        "seconds": sum(row.get("seconds", 0) for row in history),
        "starts": starts,
        "report": [str(line) for line in data.get("report", [])] if isinstance(data.get("report"), list) else [],
        "curves": _curves(history, config),
        "classes": _classes(metrics) if metrics else [],
        "predictions": _predictions(folder, metrics) if metrics else None,
        "pictures": {name: _picture(folder / "plots" / f"{name}.png") for name in ("examples", "mistakes")},
        "epochs": len(history),
    }


def command_line(command: str, options: Mapping[str, Any]) -> str:
    """The command line that does a thing again, with every value that an option can give."""
    words = ["tf-mmloss", command]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            switched_off = [] if name in ("skip_broken", "accept_odd", "final") else [f"--no-{option[2:]}"]
            words += [option] if value else switched_off
        elif value is not None:
            words += [option, str(value)]
    return shlex.join(words)


def _curves(history: Sequence[Mapping[str, float]], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Errors by epoch as points of a drawing of 100 by 100, y downwards."""
    if not history:
        return None
    last = max(len(history), 2)
    errors = {
        label: [(row["epoch"] + 1, 1 - row[name]) for row in history if name in row]
        for label, name in (("training, augmented", "accuracy"), ("evaluation", "val_accuracy"))
    }
    top = max([error for points in errors.values() for _, error in points] or [1.0])
    top = max(math.ceil(10 * top) / 10, 0.1)
    start, frozen = config.get("start_epoch"), config.get("frozen_epochs")
    shaded = []  # first and last epoch, from 0, and what was done in them
    if frozen:
        shaded.append((0, min(frozen, len(history)) - 1, f"the head alone up to epoch {frozen}"))
    if isinstance(start, int) and start < len(history):
        stage = run_folder.last_stage(config["method"])
        shaded.append((start, len(history) - 1, f"{stage} from epoch {start + 1} on"))
    return {
        "lines": {
            label: " ".join(
                f"{100 * (epoch - 1) / (last - 1):.2f},{100 - 100 * error / top:.2f}" for epoch, error in points
            )
            for label, points in errors.items()
            if points
        },
        "last_values": {label: points[-1][1] for label, points in errors.items() if points},
        "ticks": [(100 - 25 * i, top * i / 4) for i in range(5)],
        "epochs": len(history),
        "shaded": [(100 * a / (last - 1), 100 * (b - a) / (last - 1), text) for a, b, text in shaded],
    }


def _classes(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a class: name, training images, error, and the lengths of their bars."""
    most = max(metrics["cls_counts"]) or 1
    return [
        {"name": name, "images": count, "error": error, "share": math.log1p(count) / math.log1p(most)}
        for name, count, error in zip(
            metrics["class_names"], metrics["cls_counts"], metrics["per_class_error"], strict=True
        )
    ]


def _predictions(folder: Path, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """What follows from the predictions: intervals, confusions, calibration."""
    names, cls_counts = metrics["class_names"], np.asarray(metrics["cls_counts"])
    found = predictions.read(folder, len(names))
    if found is None or not len(found.labels):
        return None
    count = len(names)
    measures = []
    if len(found.labels) <= _MOST_IMAGES:
        value, interval = by_predictions(found.labels, found.predicted, cls_counts, groups=found.groups)
        measures = [(text, value[name], interval[name]) for name, text in _MEASURES.items() if value[name] is not None]
    # Pairs of a true and a predicted class with images: of many classes the matrix is mostly zeros.
    pairs, images = np.unique(found.labels * count + found.predicted, return_counts=True)
    true, taken = np.divmod(pairs, count)
    shares = images / np.bincount(found.labels)[true]
    wrong = np.flatnonzero(true != taken)
    worst = wrong[np.argsort(-images[wrong], kind="stable")[:10]]
    order = np.argsort(-cls_counts, kind="stable")
    place = np.argsort(order)
    cells = sorted(zip(place[true].tolist(), place[taken].tolist(), images.tolist(), shares.tolist(), strict=True))
    matrix = [[(0, 0.0)] * count for _ in range(count)] if count <= NAMED_CLASSES else []
    for i, j, n, share in cells if matrix else ():
        matrix[i][j] = n, share
    return {
        "images": len(found.labels),
        "groups": None if found.groups is None else len(np.unique(found.groups)),
        "few": FEW if any(0 < n < FEW for n in drawn_from(found.labels, count, found.groups)) else None,
        "measures": measures,
        "names": [names[c] for c in order],
        "matrix": matrix,
        "cells": [(i, j, share) for i, j, _, share in cells if share > 0.005],
        "named": count <= NAMED_CLASSES,
        "worst": [
            {"true": names[true[p]], "as": names[taken[p]], "images": int(images[p]), "share": float(shares[p])}
            for p in worst
        ],
        "reliability": {
            label: _reliability(found.labels == found.predicted, confidence)
            for label, confidence in (("as trained", found.confidence), ("after temperature", found.calibrated))
            if confidence is not None
        },
    }


def _reliability(correct: np.ndarray, confidence: np.ndarray) -> dict[str, Any]:
    """Accuracy by confidence, in equal bins of those that have images, and the calibration error."""
    shares, accuracy, mean = reliability(correct, confidence)
    images = np.rint(shares * len(correct)).astype(int).tolist()
    points = [(100 * x, 100 - 100 * y, n) for x, y, n in zip(mean.tolist(), accuracy.tolist(), images, strict=True)]
    return {"points": points, "error": float(shares @ np.abs(accuracy - mean))}


def _picture(path: Path) -> str | None:
    """A PNG of the run folder as text for a page; None: there is none that fits."""
    try:
        content = read_bytes(path, limit=run_folder.PICTURE_BYTES)
    except (OSError, ValueError):
        return None
    return base64.b64encode(content).decode() if content.startswith(b"\x89PNG\r\n\x1a\n") else None
