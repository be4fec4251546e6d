"""Draw the figures of a run, or the per-class error of several runs side by side.

    tf-mmloss plots runs/cifar10-longtail100-erm-seed0 runs/cifar10-longtail100-mm-drw-seed0 --out plots

A run draws its own figures into its folder when it ends. Every figure is written as SVG and as PNG; the same
numbers give the same bytes.
"""

import io
import os
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from tf_mmloss import cli
from tf_mmloss.datasets.rows import Rows
from tf_mmloss.files import atomic_path
from tf_mmloss.runs import folder as run_folder
from tf_mmloss.runs.predictions import Predictions

# Okabe and Ito's colours, told apart by every kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# For letters that Matplotlib's own font lacks, those of these that the system has.
_MORE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Hiragino Sans", "PingFang SC", "Microsoft YaHei", "Malgun Gothic"),
    *("Noto Sans Arabic", "Noto Sans Devanagari", "Arial Unicode MS", "Segoe UI Symbol"),
)
NAMED_CLASSES = 20  # more have no room for names: thin bars, and means over neighbouring classes
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans", *(font for font in _MORE_FONTS if font in font_manager.get_font_names())],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "svg.hashsalt": "tf_mmloss",
    "text.parse_math": False,  # a "$" in a class name is a dollar
}


def class_distribution(
    cls_counts: Sequence[int], class_names: Sequence[str], path_stem: str | Path, *, title: str = "Training set"
) -> None:
    """Draw the training images of each class (Fig. 1 of the paper), on a log scale from a ratio of 10.

    Args:
        cls_counts, class_names: (C,) each.
        path_stem: where to; .svg and .png are appended.
        title: names the training set; the number of images is added.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure()
        named = len(cls_counts) <= NAMED_CLASSES
        bars = axes.bar(range(len(cls_counts)), cls_counts, width=0.8 if named else 1.0, color=COLOURS[0])
        if max(cls_counts) >= 10 * min(cls_counts):
            axes.set_yscale("log")
            axes.set_ylim(0.5 if 1 in cls_counts else 1, 2 * max(cls_counts))  # a bar of one image has a height too
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("training images" + (" (log scale)" if axes.get_yscale() == "log" else ""))
        if named:
            axes.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=9)
        _class_axis(axes, class_names)
        axes.set_title(_wrapped(f"{title}, {sum(cls_counts):,} images"))
        _save(figure, path_stem)


def learning_curves(
    history_rows: Sequence[Mapping[str, float]],
    path_stem: str | Path,
    start_epoch: int | None = None,
    *,
    title: str = "Learning curves",
    stage: str = "the last stage",
    frozen_epochs: int = 0,
) -> None:
    """Draw training and evaluated error by epoch, drops of the learning rate and the last of several stages.

    Args:
        history_rows: rows of `run_folder.read_history`; epochs count from 0 there, from 1 in the figure.
        path_stem: where to; .svg and .png are appended.
        start_epoch: first epoch of the last stage; None: there is one stage.
        title: names the run.
        stage: what is done from `start_epoch` on, in words.
        frozen_epochs: first epochs, in which the head alone is trained.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure()
        for name, label, colour in (
            ("accuracy", "training (augmented)", COLOURS[1]),
            ("val_accuracy", "evaluation", COLOURS[0]),
        ):
            points = [(row["epoch"] + 1, 100 * (1 - row[name])) for row in history_rows if name in row]
            if points:
                sparse = len(points) < len(history_rows) or len(points) == 1
                axes.plot(*zip(*points, strict=True), label=label, color=colour, lw=1.5, marker="." if sparse else "")
        last = history_rows[-1]["epoch"] + 1
        if start_epoch is not None and start_epoch < last:
            axes.axvspan(start_epoch + 0.5, last + 0.5, color="#F0E442", alpha=0.3, lw=0, label=stage)
        if frozen_epochs:
            axes.axvspan(0.5, min(frozen_epochs, last) + 0.5, color="#56B4E9", alpha=0.3, lw=0, label="the head alone")
        rates = [(row["epoch"], row["learning_rate"]) for row in history_rows if "learning_rate" in row]
        threes = zip(rates[:1] + rates, rates, rates[1:], strict=False)
        # A drop comes after a rate that stayed: that of a cosine never does.
        drops = [epoch for (_, first), (_, before), (epoch, rate) in threes if first == before and rate < before / 2]
        for epoch in drops:
            hidden = "" if epoch == drops[0] else "_"  # from the legend
            axes.axvline(epoch + 0.5, color="#666666", lw=1, ls="--", label=f"{hidden}drop of learning rate")
        axes.set_xlim(0.5, last + 0.5)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("top-1 error (%)")
        axes.grid(axis="y")
        axes.set_title(_wrapped(title))
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
        _save(figure, path_stem)


def per_class_error(
    runs: Mapping[str, Mapping[str, Any]],
    path_stem: str | Path,
    *,
    title: str = "Error of each class",
    description: str | None = None,
) -> None:
    """Draw the error of each class of one or several runs, side by side (Fig. 3 of the paper).

    Args:
        runs: the content of metrics.json by the run's label; a class without test images has None for its error.
        path_stem: where to; .svg and .png are appended.
        title: names what the runs share.
        description: kept in the files' metadata.

    Raises:
        ValueError: no runs, more than 7, or runs of different classes.
    """
    if not 1 <= len(runs) <= len(COLOURS):
        raise ValueError(f"From 1 to {len(COLOURS)} runs can be drawn side by side. Received: {len(runs)} runs")
    names = [list(run["class_names"]) for run in runs.values()]
    if any(other != names[0] for other in names):
        raise ValueError(f"Runs drawn side by side must have the same classes. Received: {', '.join(runs)}")
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure()
        classes, width = np.arange(len(names[0])), 0.8 / len(runs)
        for i, (label, run) in enumerate(runs.items()):
            errors = 100 * np.asarray(run["per_class_error"], dtype=float)
            if len(classes) <= NAMED_CLASSES:
                offset = (i - (len(runs) - 1) / 2) * width
                bars = axes.bar(classes + offset, errors, width, color=COLOURS[i], label=label)
                if len(runs) == 1:
                    labels = ["" if np.isnan(error) else f"{error:.1f}" for error in errors]
                    axes.bar_label(bars, labels, padding=2, fontsize=9)
            else:
                axes.plot(classes, errors, ".", ms=4, alpha=0.5, color=COLOURS[i])
                edges = np.append(np.arange(0, len(classes), 10), len(classes))
                tens = [errors[a:b][~np.isnan(errors[a:b])] for a, b in pairwise(edges)]
                means = [ten.mean() if len(ten) else np.nan for ten in tens]
                axes.stairs(means, edges - 0.5, baseline=None, lw=2, color=COLOURS[i], label=f"{label}, mean of 10")
        axes.set_ylim(0, 105)
        axes.set_ylabel("top-1 error (%)")
        axes.grid(axis="y")
        counts = [list(run["cls_counts"]) for run in runs.values()]
        _class_axis(axes, names[0], counts[0] if all(other == counts[0] for other in counts) else None)
        axes.set_title(_wrapped(title))
        if len(runs) > 1 or len(classes) > NAMED_CLASSES:
            longest = max(map(len, runs))
            columns = 3 if longest < 36 else 2 if longest < 56 else 1
            figure.legend(loc="outside lower center", ncols=columns, frameon=False)
        _save(figure, path_stem, description)


def examples(images: np.ndarray | Rows, labels: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Draw up to eight training images of each class, a row a class.

    Args:
        images: uint8 (N, height, width, channels), or `Rows` of them.
        labels: (N,).
        class_names: C names.
        path: of the PNG.
    """
    chosen = [np.flatnonzero(labels == c)[:8] for c in range(min(len(class_names), NAMED_CLASSES))]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 0.7 * len(chosen)))
        sheet = _sheet(figure)
        for row, (positions, name) in enumerate(zip(chosen, class_names, strict=False)):
            sheet.text(0.03, 0.7 * row + 0.13, _short(name), fontsize=7)
            for column, image in enumerate(np.asarray(images[positions])):
                _tile(sheet, image, (column + 0.03, 0.7 * row + 0.16, 0.94, 0.52))
        _save_images(figure, path)


def mistakes(
    images: np.ndarray | Rows, found: Predictions, class_names: Sequence[str], path: Path, *, most: int = 12
) -> None:
    """Draw the images that a network is most sure of and wrong about.

    Args:
        images: uint8 (N, height, width, channels) of the predictions, or `Rows` of them, whose names are shown.
        found: what was predicted for them, with a confidence.
        class_names: C names.
        path: of the PNG.
        most: as many images at most.
    """
    confidence = found.calibrated if found.confidence is None else found.confidence
    if confidence is None:
        return
    order = np.argsort(-confidence, kind="stable")
    wrong = order[found.labels[order] != found.predicted[order]][:most]
    if not len(wrong):
        return
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 1.7 * -(-len(wrong) // 6)))
        sheet, width = _sheet(figure), 8 / 6
        for place, (i, image) in enumerate(zip(wrong, np.asarray(images[wrong]), strict=True)):
            left, top = place % 6 * width, place // 6 * 1.7
            true, taken = (class_names[c] for c in (found.labels[i], found.predicted[i]))
            lines = [_short(true), f"taken for {_short(taken, 16)}", f"{confidence[i]:.0%} sure"]
            if isinstance(images, Rows) and images.names is not None:
                lines.append(_end(os.path.basename(images.names[images.positions[i]])))
            sheet.text(left + 0.06, top + 0.47, "\n".join(lines), fontsize=6, va="bottom")
            _tile(sheet, image, (left + 0.06, top + 0.5, width - 0.12, 1.17))
        _save_images(figure, path)


def _sheet(figure: Figure) -> Axes:
    """All of a figure, in inches from its upper left: many images in one such are drawn sooner than each in axes."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, figure.get_figwidth()), ylim=(figure.get_figheight(), 0))
    return axes


def _tile(sheet: Axes, image: np.ndarray, box: tuple[float, float, float, float]) -> None:
    """Show an image, uint8 (height, width, channels), as large as it goes into a box, from its upper left.

    The box is left, top, width and height.
    """
    left, top, width, height = box
    scale = min(width / image.shape[1], height / image.shape[0])
    extent = (left, left + image.shape[1] * scale, top + image.shape[0] * scale, top)
    grey = image.shape[-1] == 1
    cmap = "gray" if grey else None
    sheet.imshow(image[..., 0] if grey else image, cmap=cmap, vmin=0, vmax=255, extent=extent, aspect="auto")


def _short(name: str, most: int = 20) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _end(name: str) -> str:
    return name if len(name) <= 24 else f"…{name[-23:]}"


def plot_run(folder: str | Path) -> None:
    """Draw class distribution, learning curves and per-class error of a finished run into its plots/.

    Raises:
        RunFolderError: no finished run folder, or one of another version.
    """
    for draw in figures(folder).values():
        draw()


def figures(folder: str | Path) -> dict[str, Callable[[], None]]:
    """What `plot_run` draws of a finished run into its plots/, which is made: a function a figure, by its name.

    Raises:
        RunFolderError: no finished run folder, or one of another version.
    """
    folder = Path(folder)
    config, metrics = _read(folder)
    history = run_folder.read_history(folder)
    plots, (data, method, seed, *kind) = folder / "plots", _labels(config)
    title = f"{data}: {', '.join(filter(None, [method, *kind, seed]))}"
    run_folder.check_own(folder, files=(), folders=[plots.name])
    run_folder.make_folder(plots)
    return {
        "class_distribution": lambda: class_distribution(
            metrics["cls_counts"], metrics["class_names"], plots / "class_distribution", title=data
        ),
        "learning_curves": lambda: learning_curves(
            history,
            plots / "learning_curves",
            config["start_epoch"],
            title=title,
            stage=run_folder.last_stage(config["method"]),
            frozen_epochs=config.get("frozen_epochs") or 0,
        ),
        "per_class_error": lambda: per_class_error({method: metrics}, plots / "per_class_error", title=title),
    }


def compare(folders: Sequence[str | Path], out: str | Path) -> None:
    """Draw the per-class error of finished runs side by side: OUT/per_class_error.svg and .png.

    What all runs share is in the title, what tells them apart in the legend.

    Raises:
        RunFolderError: no finished run folder, or one of another version.
        ValueError: runs that cannot be drawn side by side.
    """
    read = [_read(Path(folder)) for folder in folders]
    evaluated = {str(folder): metrics.get("evaluated_on") for folder, (_, metrics) in zip(folders, read, strict=True)}
    if len(set(evaluated.values())) > 1:
        named = ", ".join(f"{folder}: {images}" for folder, images in evaluated.items())
        raise ValueError(f"Runs drawn side by side must be evaluated on the same images. Received: {named}")
    configs = [config for config, _ in read]
    parts = [(*_labels(config), _options(config, configs)) for config in configs]
    shared = [part for part, *others in zip(*parts, strict=True) if all(other == part for other in others)]
    labels = [", ".join(part for part in labels if part and part not in shared) or labels[1] for labels in parts]
    if len(set(labels)) < len(labels):
        labels = [f"{label} ({folder})" for label, folder in zip(labels, folders, strict=True)]
    runs = {label: metrics for label, (_, metrics) in zip(labels, read, strict=True)}
    run_folder.make_folder(Path(out))
    per_class_error(runs, Path(out) / "per_class_error", title=", ".join(filter(None, shared)) or "Error of each class")


def search(table: Sequence[Mapping[str, Any]], path_stem: str | Path, *, title: str) -> None:
    """Draw the held-out error of a search against each option searched (the paper's Tables 2 and 3 as a picture).

    Args:
        table: rows with `trial`, the options, and `error` as a fraction; best first.
        path_stem: where to; .svg and .png are appended.
        title: names the training set and the method; the number of trials is added.
    """
    options = [name for name in table[0] if name not in ("trial", "error")]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 4), layout="constrained")
        panels = figure.subplots(1, len(options), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, options, strict=True):
            rows = sorted(table, key=lambda row: row[name])
            axes.plot([row[name] for row in rows], [100 * row["error"] for row in rows], "o", color=COLOURS[0])
            axes.plot(table[0][name], 100 * table[0]["error"], "*", ms=14, color=COLOURS[1], label="best")
            axes.set_xlabel(name.replace("_", " "))
            axes.grid(axis="y")
        panels[0].set_ylabel("held-out top-1 error (%)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False)
        figure.suptitle(_wrapped(f"{title}, {len(table)} trials", 7.7), fontsize=11)
        _save(figure, path_stem)


def comparison(found: Mapping[str, Any], path_stem: str | Path, *, title: str) -> None:
    """Draw error, balanced accuracy and few-shot accuracy of several methods, with their intervals and seeds.

    Args:
        found: what `tf_mmloss.comparison.compare` returns.
        path_stem: where to; .svg and .png are appended.
        title: names the data.
    """
    panels = {"error": "error", "balanced_accuracy": "balanced accuracy", "few_accuracy": "few-shot accuracy"}
    rows = found["methods"]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 1.6 + 0.4 * len(rows)), layout="constrained")
        for axes, (name, label) in zip(figure.subplots(1, 3, sharey=True), panels.items(), strict=True):
            for y, row in enumerate(rows):
                if row[name] is None:
                    continue
                colour = COLOURS[1] if row["name"] == found["choice"] else COLOURS[0]
                low, high = (100 * end for end in row[name]["interval"])
                axes.plot([low, high], [y, y], color=colour, lw=2)
                axes.plot(100 * row[name]["value"], y, "o", color=colour)
                seeds = [100 * value for value in row[name]["by_seed"]]
                axes.plot(seeds, [y] * len(seeds), "|", color="black", ms=7, alpha=0.6)
            axes.set_xlabel(f"{label} (%)", fontweight="bold" if name == found["measure"] else "normal")
            axes.grid(axis="x")
            axes.set_yticks(range(len(rows)), [run_folder.method_label(row["name"]) for row in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
        over = "seeds and images" if found["seeds"] > 1 else "images alone"
        said = f"{title}: 95 % intervals over {over}; | a seed; orange: the choice"
        figure.suptitle(_wrapped(said, 7.7), fontsize=11)
        _save(figure, path_stem)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    config = ("dataset", "imbalance", "ratio", "method", "seed", "start_epoch")
    metrics = ("cls_counts", "class_names", "per_class_error")
    return run_folder.read_json(folder, "config.json", config), run_folder.read_json(folder, "metrics.json", metrics)


def _labels(config: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Names of the training set, the method, the seed, the recipe if it is not the paper's, and the margin space."""
    recipe, space = config.get("recipe", "paper"), config.get("margin_space")
    return (
        run_folder.data_label(config),
        run_folder.method_label(config["method"]),
        f"seed {config['seed']}",
        f"{recipe} recipe" if recipe != "paper" else "",
        f"margin space {space}" if space else "",
    )


def _options(config: Mapping[str, Any], configs: Sequence[Mapping[str, Any]]) -> str:
    """What else tells a config apart from others of its method: "beta 1.2"."""
    method = [other for other in configs if other["method"] == config["method"]]
    named = ("dataset", "imbalance", "ratio", "seed", "recipe", "margin_space", "start_epoch")
    return ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in config.items()
        if name not in named and value is not None and any(other.get(name, value) != value for other in method)
    )


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4), layout="constrained")
    return figure, figure.add_subplot()


def _class_axis(axes: Axes, names: Sequence[str], cls_counts: Sequence[int] | None = None) -> None:
    axes.set_xlim(-0.6, len(names) - 0.4)
    if len(names) > NAMED_CLASSES:
        axes.set_xlabel("class number")
        return
    turned: dict[str, Any] = {}
    names = [_short(name) for name in names]
    if not _fit(names, len(names)):
        turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axes.tick_params(axis="x", length=0, labelsize=9)
    axes.set_xlabel("class")
    if cls_counts is not None:
        between = ", " if turned else "\n"
        names = [f"{name}{between}{count:,}" for name, count in zip(names, cls_counts, strict=True)]
        axes.set_xlabel("class, and its training images")
    axes.set_xticks(range(len(names)), names, **turned)


def _fit(names: Sequence[str], places: int) -> bool:
    """Whether names of 9 points stand side by side below the axis of `_figure` without touching."""
    widths = [_width(name, 9) for name in names]
    return all((a + b) / 2 + 1 < 7.3 * 72 / places for a, b in pairwise(widths))


def _width(text: str, size: float) -> float:
    """Of a line of text, in points."""
    font = font_manager.FontProperties(size=size)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def _wrapped(title: str, inches: float = 7.2) -> str:
    """A title of 11 points, in several lines where it is too long for one: above the axes of `_figure`, by default."""
    lines, wrapped = 1, title
    while any(_width(line, 11) > 72 * inches for line in wrapped.splitlines()):
        lines += 1
        wrapped = textwrap.fill(title, len(title) // lines + 8)
    return wrapped


def _savefig(figure: Figure, target: str | io.BytesIO, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # no font has the letter: a box stands for it
        figure.savefig(target, **options)


def _save(figure: Figure, path_stem: str | Path, description: str | None = None) -> None:
    said = {} if description is None else {"Description": description}
    with atomic_path(Path(f"{path_stem}.svg")) as temporary:
        _savefig(figure, str(temporary), metadata={"Date": None, "Creator": None, **said})
    with atomic_path(Path(f"{path_stem}.png")) as temporary:
        _savefig(figure, str(temporary), metadata={"Software": None, **said}, dpi=150)


def _save_images(figure: Figure, path: Path) -> None:
    """Save a picture of images, with fewer colours and then smaller where it is too large for a page."""
    for dpi, colours in ((150, None), (150, 256), (100, 256), (70, 128)):
        content = io.BytesIO()
        _savefig(figure, content, format="png", metadata={"Software": None}, dpi=dpi)
        if colours:
            picture = Image.open(content).convert("RGB").quantize(colours)
            content = io.BytesIO()
            picture.save(content, format="png", optimize=True)
        if len(content.getvalue()) <= run_folder.PICTURE_BYTES:
            break
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = cli.parser("plots", __doc__)
    parser.add_argument("runs", nargs="+", type=cli.path, metavar="RUN", help="a finished run folder")
    parser.add_argument(
        "--out", type=cli.path, required=True, metavar="DIR", help="folder of the figure; made if missing"
    )
    options = parser.parse_args(arguments)
    try:
        cli.check_out(options.out)
        compare(options.runs, options.out)
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    print(f"{options.out}/per_class_error.svg and .png")
    return 0
