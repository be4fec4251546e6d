"""Make results.csv and the tables of results from run folders.

    tf-mmloss report
    tf-mmloss report --check

Reads every run folder below --runs and writes results.csv beside them. The tables go into docs/results.md, and a small
one into README.md, between the markers <!-- results:begin --> and <!-- results:end -->; the figure of the error of each
class goes into results/figures. Of runs elsewhere than in results/ the tables go only where --page and --readme say,
and there is no figure. Unfinished runs are named and left out; a folder that is unclear is an error, and then nothing
is written. The same runs give the same bytes.
"""

import csv
import dataclasses
import functools
import io
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import stats

from reproduction.published_code import MM_DRW
from tf_mmloss import cli, comparison
from tf_mmloss.files import atomic_path
from tf_mmloss.imbalance import IMBALANCES
from tf_mmloss.methods import METHODS, open_function, signature
from tf_mmloss.runs import predictions
from tf_mmloss.runs.folder import (
    RunFolderError,
    data_label,
    differences,
    duration,
    is_finished,
    method_label,
    read_config,
    read_json,
    run_folders,
)
from tf_mmloss.runs.predictions import Predictions
from tf_mmloss.train.config import HOW, Config
from tf_mmloss.train.presets import RECIPES, TABLE_1
from tf_mmloss.train.resolve import OF_IMAGES, resolve

PUBLISHED = Path(__file__).with_name("published.csv")
PAPER = "MM paper Table 1"
# What others report: the beginning of its source there, its name in the tables, and the recipe that it is of.
ELSEWHERE = {
    "independent re-run": ("DDC", "paper"),
    "BagofTricks-LT gallery": ("BagofTricks-LT", "paper"),
    "Son et al., AAAI 2025": ("Son et al.", "strong"),
}
# Options that no table shows: the same run is made in many ways.
_UNSEEN = tuple(name for name in HOW if name != "precision")
# What a method brings with it: runs that differ in nothing else are at equal conditions.
_OF_METHOD = ("method", "loss_arguments", "weights", "pretraining", "start_epoch", "classifier", "decide")
# Of metrics.json.
_NEEDED = (
    *("error", "balanced_accuracy", "shot_accuracy", "per_class_error", "best_epoch", "cls_counts", "class_names"),
    *("epochs", "seconds", "images_per_second"),
)
_SOURCES = (
    "Elsewhere: the same training set, network and recipe with other code. DDC: runs of Wang et al. (NeurIPS 2023), "
    "epoch not stated. BagofTricks-LT: the gallery of Zhang et al. (AAAI 2021), best epoch. Son et al.: "
    "AAAI 2025, from whom the strong recipe is, epoch not stated."
)
RESULTS = Path("results")
PAGE, README = Path("docs/results.md"), Path("README.md")
FIGURE = Path("figures/per_class_error")  # below the runs
DRAWN = ("erm", "ldam-drw", "mm-drw", "balanced-softmax")
MARKERS = ("<!-- results:begin -->", "<!-- results:end -->")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder, config, metrics: its own.
        row: of results.csv.
        data: names its training set among those of the other runs.
        named: what of OF_IMAGES is named among its options.
    """

    folder: Path
    config: Config
    metrics: dict[str, Any]
    row: dict[str, Any]
    data: str
    named: tuple[str, ...] = ()


def read_runs(root: Path) -> tuple[list[Run], list[Path]]:
    """Read all run folders below a folder.

    Returns:
        The finished runs in the order of the tables, and the folders of the unfinished.

    Raises:
        RunFolderError: no finished run; a folder of another version; two folders of one name but two configs, or of
            one config.
    """
    open_function(MM_DRW)
    found = run_folders(root)
    unfinished = [folder for folder in found if not is_finished(folder)]
    runs = sorted((_read(folder, root) for folder in found if folder not in unfinished), key=_order)
    if not runs:
        raise RunFolderError(f"{root} has no finished run below it ({len(unfinished)} unfinished).")
    tested = [run for run in runs if not run.config.holdout]  # the trials of two searches share their names
    by_config: dict[Config, Run] = {}
    by_name: dict[str, Run] = {}
    for b in tested:
        a = by_config.setdefault(_made_alike(b.config), b)
        if a is not b:
            raise RunFolderError(f"{a.folder} and {b.folder} hold runs of the same config: one would count twice.")
        a = by_name.setdefault(b.folder.name, b)
        if a is not b:
            differing = differences(_made_alike(a.config), _made_alike(b.config))
            named = "; ".join(f"{name}: {there!r} and {here!r}" for name, (there, here) in differing.items())
            raise RunFolderError(f"{a.folder} and {b.folder} have one name, two configs ({named}).")
    return _told_apart(runs), unfinished


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs with names for images of one's own that no two sets share, and with the options that these differ in."""
    sets: dict[str, list[Run]] = {}
    for run in runs:
        sets.setdefault(run.data, []).append(run)
    return [_named(run, sets[run.data]) if run.config.is_own else run for run in runs]


def _named(run: Run, alike: Sequence[Run]) -> Run:
    """A run on images of one's own, told apart from those whose images have its name."""
    config, data = run.config, run.data
    if any(other.config.dataset != config.dataset for other in alike):
        data = config.dataset + data.removeprefix(Path(config.dataset).stem)
    same = [other for other in alike if other.config.dataset == config.dataset and not other.config.holdout]
    if len({repr([other.metrics[name] for name in ("class_names", "cls_counts")]) for other in same}) > 1:
        data += f", {sum(run.metrics['cls_counts']):,} training images"
    differing = [name for name in OF_IMAGES if len({getattr(other.config, name) for other in same}) > 1]
    named = ("image_size", *(name for name in differing if name not in ("epochs", "image_size")))
    row = {**run.row, "options": _options(config, named=named)}
    return dataclasses.replace(run, data=data, named=named, row=row)


def results_csv(runs: Sequence[Run]) -> str:
    """The content of results.csv: a row a run, errors and accuracies in %."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(runs[0].row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(run.row for run in runs)
    return text.getvalue()


def tables(runs: Iterable[Run], published: Sequence[dict[str, str]]) -> str:
    """The tables of the page, in Markdown. Runs that differ in nothing but the seed share a line.

    Args:
        runs: finished runs in order; those that predict rotations are left out, those evaluated on held-out training
            images have a table of their own.
        published: rows of published.csv.
    """
    runs = [run for run in runs if METHODS[run.config.method].task == "class"]
    groups = _groups(runs)
    datasets = {row["dataset"] for row in published}
    papers = [group for group in groups if group[0].config.dataset in datasets]
    full = [group for group in papers if _is_full(group[0].config)]
    blocks = [
        "Top-1 error on the test split in %, mean ± standard deviation over n seeds. Ours is that of the last epoch; "
        "the paper reports the best epoch on the test split, ours of k evaluated epochs stands beside it."
    ]
    head = ["Data set", "Method", "Ours (last epoch)", "Best epoch", "Time of the fastest run"]
    blocks += _matrices(full, published)
    if full:
        lines = [_compared(group, published) for group in full]
        blocks.append(_table([*head[:4], "Published (best epoch)", "Elsewhere", head[4]], lines))
        if any("†" in line[2] for line in lines):
            blocks.append("† More than 1 point from the published error.")
        if any(line[5] != "–" for line in lines):
            blocks.append(_SOURCES)
    blocks += _differences(full) + _same_images(full)
    for title, rest in (
        ("Runs shorter or longer than their recipe's:", [group for group in papers if group not in full]),
        ("Data sets that are not the paper's:", [g for g in groups if g not in papers and not g[0].config.is_own]),
    ):
        if rest:
            blocks += [title, _table(head, [_line(group) for group in rest])]
    own = [group for group in groups if group[0].config.is_own]
    blocks += _own(own) + _flattery(papers, [g for g in groups if g not in papers and g not in own], own)
    ten = [group for group in papers if len(group[0].metrics["class_names"]) == 10]
    for label, same_data in itertools.groupby(ten, lambda group: group[0].data):
        members = list(same_data)
        metrics = members[0][0].metrics
        lines = [["training images", *map(str, metrics["cls_counts"])]]
        for group in members:
            lines.append([_method(group[0]), *_percent_by_class(group)])
        title = f"{_escaped(label)}: error of each class in %, last epoch, mean over seeds:"
        blocks += [title, _table(["Method", *metrics["class_names"]], lines)]
    return "\n\n".join([*blocks, *_searches([run for run in runs if run.config.holdout]), *_commits(runs)])


def summary(runs: Iterable[Run], published: Sequence[dict[str, str]]) -> str:
    """The README's table, in Markdown: the paper's training sets at a recipe's length, the best of each first.

    Args:
        runs, published: see `tables`.
    """
    settings = {(row["dataset"], row["imbalance"], float(row["ratio"])) for row in published}
    groups = [group for group in _groups(runs) if _is_full(group[0].config) and _setting(group) in settings]
    lines = []
    for _, same_data in itertools.groupby(groups, _setting):
        members = list(same_data)
        named = zip(_without_precision(members), members, strict=True)
        for method, group in sorted(named, key=lambda item: np.mean([run.metrics["error"] for run in item[1]])):
            data, _, ours, _, theirs, others, _ = _compared(group, published)
            lines.append([data, method, ours.removesuffix(" †"), theirs, others])
    head = ["Training set", "Method", "Error in %, last epoch", "Published, best epoch", "Elsewhere"]
    return _table(head, lines)


def figure(runs: Iterable[Run]) -> dict[str, dict[str, Any]]:
    """What the figure of the errors by class shows: label to class names, counts and mean errors over the seeds.

    CIFAR-10, long-tailed 100:1, the paper's recipe; methods of `DRAWN` with their own options, in each margin space.
    """
    hidden = (*_UNSEEN, "precision", "margin_space")
    groups = [
        group
        for group in _groups(runs)
        if _setting(group) == ("cifar10", "longtail", 100)
        and group[0].config.method in DRAWN
        and _is_full(group[0].config)
        and not _options(group[0].config, hidden)
    ]
    drawn = {}
    for method, group in zip(_without_precision(groups), groups, strict=True):
        metrics = group[0].metrics
        drawn[f"{method} (n={len(group)})"] = {
            "class_names": metrics["class_names"],
            "cls_counts": metrics["cls_counts"],
            "per_class_error": _errors_by_class(group).round(6).tolist(),
        }
    return drawn


def _said(drawn: dict[str, dict[str, Any]]) -> str:
    """What the figure's file says of its content, by which `--check` knows it again."""
    return "\n".join(f"{label}: {' '.join(map(str, one['per_class_error']))}" for label, one in drawn.items())


def _is_drawn(path_stem: Path, drawn: dict[str, dict[str, Any]]) -> bool:
    """Whether the figure is there and shows this."""
    try:
        with Image.open(path_stem.with_suffix(".png")) as picture:
            said = picture.info.get("Description")
    except OSError:
        return False
    return said == _said(drawn) and path_stem.with_suffix(".svg").exists()


def _groups(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs in order, evaluated on the test split, that differ in nothing but the seed."""
    tested = (run for run in runs if not run.config.holdout and METHODS[run.config.method].task == "class")
    return [list(group) for _, group in itertools.groupby(tested, lambda run: _order(run)[:-1])]


def _draw(path_stem: Path, drawn: dict[str, dict[str, Any]]) -> None:
    from tf_mmloss.runs import plots

    path_stem.parent.mkdir(exist_ok=True)
    title = "CIFAR-10, long-tailed 100:1: error of each class, mean over n seeds"
    plots.per_class_error(drawn, path_stem, title=title, description=_said(drawn))


def _comparable(one: list[Run], other: list[Run]) -> bool:
    """Whether two groups are of two methods at equal conditions: images, network, recipe, length and precision."""

    def conditions(group: list[Run]) -> dict[str, Any]:
        config = vars(_made_alike(group[0].config))
        return {name: value for name, value in config.items() if name not in (*_OF_METHOD, "seed")}

    return conditions(one) == conditions(other)


def _differences(groups: Sequence[list[Run]]) -> list[str]:
    """The table of what seeds can tell apart: every two methods at equal conditions with several seeds each."""
    lines = []
    repeated = [group for group in groups if len(group) > 1]
    for one, other in itertools.combinations(repeated, 2):
        if _comparable(one, other):
            a, b = ([100 * run.metrics["error"] for run in group] for group in (one, other))
            test = stats.ttest_ind(a, b, equal_var=False)
            low, high = test.confidence_interval()
            seeds = f"{len(a)} and {len(b)}"
            difference = f"{np.mean(a) - np.mean(b):+.2f} [{low:+.2f}, {high:+.2f}]"
            cells = [one[0].data, _method(one[0]), _method(other[0]), seeds, difference]
            lines.append([*cells, _chance(test.pvalue)])
    title = (
        "Differences between methods at equal conditions, in points of error, with the 95 % interval of Welch's t-test "
        "over the seeds. An interval that holds 0 tells nothing apart. p is not corrected for the number of lines:"
    )
    head = ["Training set", "Method", "minus", "Seeds", "Difference", "p"]
    return [title, _table(head, lines)] if lines else []


def _same_images(groups: Sequence[list[Run]]) -> list[str]:
    """The table of what test images can tell apart: every two methods with stored predictions of the same seeds."""
    lines = []
    stored = [{run.config.seed: (run, found) for run in group if (found := _predictions(run))} for group in groups]
    for (one, by_one), (other, by_other) in itertools.combinations(zip(groups, stored, strict=True), 2):
        seeds = sorted(by_one.keys() & by_other.keys())
        if not seeds or not _comparable(one, other):
            continue
        first, of_first = by_one[seeds[0]]
        labels = of_first.labels
        for run, found in [by[seed] for by in (by_one, by_other) for seed in seeds]:
            if not np.array_equal(found.labels, labels):
                raise RunFolderError(f"{run.folder} has predictions of other images than {first.folder}.")
        predicted = np.array([[by[seed][1].predicted for seed in seeds] for by in (by_one, by_other)])
        few = np.zeros(len(one[0].metrics["class_names"]), bool)
        (pair,) = comparison.compare(labels, predicted, ["one", "other"], few=few, measure="error")["pairs"]
        sign = 1 if pair["better"] == "one" else -1
        low, high = sorted(100 * sign * bound for bound in pair["interval"])
        p = pair["p"]
        if p is None:  # McNemar's exact test
            wrong = predicted[:, 0] != labels
            only = [int((wrong[0] & ~wrong[1]).sum()), int((wrong[1] & ~wrong[0]).sum())]
            p = stats.binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
        difference = f"{100 * sign * pair['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
        cells = [one[0].data, _method(one[0]), _method(other[0]), ", ".join(map(str, seeds))]
        lines.append([*cells, difference, _chance(p)])
    title = (
        f"The same for the runs that stored what they predicted, {sum(map(len, stored))} of these "
        f"{sum(map(len, groups))}, image by image: points of error with the "
        "95 % interval over the test images, and over the seeds where there are several. Of one seed, p is McNemar's "
        "exact test, which is about these two networks: other seeds of the same two methods may say otherwise."
    )
    head = ["Training set", "Method", "minus", "Seeds", "Difference", "p"]
    return [title, _table(head, lines)] if lines else []


def _chance(p: float) -> str:
    return "< 0.01" if p < 0.01 else f"{p:.2f}"


def _predictions(run: Run) -> Predictions | None:
    """The stored predictions, which must have the error of metrics.json."""
    found = predictions.read(run.folder, len(run.metrics["class_names"]))
    if found is not None:
        error = float(np.mean(found.predicted != found.labels)) if len(found.labels) else np.nan
        if not abs(error - run.metrics["error"]) < 0.5 / len(found.labels):
            raise RunFolderError(
                f"{run.folder / predictions.NAME} is of another network than metrics.json: it has an error of "
                f"{100 * error:.2f} %, not {100 * run.metrics['error']:.2f} %."
            )
    return found


def _own(groups: Sequence[list[Run]]) -> list[str]:
    """The tables of images of one's own, as imbalanced as they are: a line a run, and the error of each class."""
    if not groups:
        return []
    head = ["Images", "Method", "Error", "Balanced accuracy", "Time of the fastest run"]
    lines = []
    for group in groups:
        data, method, error, _, time = _line(group)
        balanced = _mean_sd([100 * run.metrics["balanced_accuracy"] for run in group], f"n={len(group)}")
        lines.append([data, method, error, balanced, time])
    title = "Images of one's own, naturally imbalanced; a part of each class was held out to be evaluated, in %:"
    blocks = [title, _table(head, lines)]
    sets: dict[str, list[list[Run]]] = {}
    for group in groups:
        sets.setdefault(group[0].data, []).append(group)
    for data, members in sets.items():
        metrics = members[0][0].metrics
        stored = (_predictions(run) for group in members for run in group)
        tested = next((np.bincount(of.labels, minlength=len(metrics["class_names"])) for of in stored if of), None)
        images = map(str, metrics["cls_counts"]), ["–"] * len(metrics["class_names"]) if tested is None else tested
        rows = zip(metrics["class_names"], *images, *map(_percent_by_class, members), strict=True)
        title = f"{_escaped(data)}: error of each class in %, last epoch, mean over seeds:"
        short = [method_label(group[0].config.method) for group in members]
        methods = short if len(set(short)) == len(short) else [_method(group[0]) for group in members]
        head = ["Class", "Training images", "Test images", *methods]
        blocks += [title, _table(head, [[str(cell) for cell in row] for row in rows])]
    return blocks


def _flattery(papers: Sequence[list[Run]], others: Sequence[list[Run]], own: Sequence[list[Run]]) -> list[str]:
    """The table of what choosing the epoch on the test split would gain."""
    lines = []
    kinds = {"of the paper's data sets": papers, "of data sets that are not the paper's": others, "of one's own": own}
    for kind, groups in kinds.items():
        gains = [
            [100 * (run.metrics["error"] - run.metrics["best_epoch"]["error"]) for run in group] for group in groups
        ]
        if gains:
            means = [max(float(np.mean(of_seeds)), 0.0) for of_seeds in gains]
            most = max(0.0, *itertools.chain(*gains))
            lines.append([kind, f"{min(means):.2f} to {max(means):.2f}", f"{most:.2f}"])
    title = "By how much the best evaluated epoch on the test split is better than the last, in points of error:"
    head = ["Lines above", "Mean over a line's seeds", "At most in a run"]
    return [title, _table(head, lines)] if lines else []


def _errors_by_class(group: list[Run]) -> np.ndarray:
    # The seeds share their test images: a class without any has no error in all of them.
    return np.mean(np.array([run.metrics["per_class_error"] for run in group], float), axis=0)


def _percent_by_class(group: list[Run]) -> list[str]:
    return ["–" if np.isnan(error) else f"{100 * error:.1f}" for error in _errors_by_class(group)]


def _commits(runs: Sequence[Run]) -> list[str]:
    """What runs were made of more than the code of one commit."""
    kinds = {
        "begun under one commit and continued under another": [run for run in runs if "; " in run.row["commit"]],
        "made with changes that no commit has": [run for run in runs if "-dirty" in run.row["commit"]],
    }
    said = [f"{kind}: {', '.join(run.row['run'] for run in those)}" for kind, those in kinds.items() if those]
    return [_escaped(f"Runs {'. Runs '.join(said)}.")] if said else []


def _searches(runs: Sequence[Run]) -> list[str]:
    """The table of what was chosen on held-out images: a line a search, runs of one folder with other loss options."""
    searches: dict[tuple[Path, Config], list[Run]] = {}
    for run in runs:
        searched_over = dataclasses.replace(run.config, loss_arguments={})
        searches.setdefault((run.folder.parent, searched_over), []).append(run)
    lines = []
    for trials in searches.values():
        config = trials[0].config
        searched = [name for name in _of_loss(config) if len({run.config.values()[name] for run in trials}) > 1]
        if not searched:
            continue
        ranked = sorted(trials, key=lambda run: run.metrics["error"])
        errors = [f"{_values(run.config, searched)}: {100 * run.metrics['error']:.2f}" for run in ranked]
        fixed = ", ".join(filter(None, [method_label(config.method), _options(config, ["holdout", *searched])]))
        search = [trials[0].data, fixed, str(config.epochs), str(config.holdout)]
        lines.append([*search, "; ".join([f"**{errors[0]}**", *errors[1:]])])
    title = "Searched on training images held out before the set is made imbalanced, last epoch, best first:"
    head = ["Data set", "Method", "Epochs", "Images held out a class", "Held-out error in %"]
    return [title, _table(head, lines)] if lines else []


def _values(config: Config, names: Sequence[str]) -> str:
    """Options and their values, as text: "margin 0.2"."""
    values = ((name.replace("_", " "), config.values()[name]) for name in names)
    return ", ".join(f"{name} {f'{value:g}' if isinstance(value, float) else value}" for name, value in values)


def insert(path: Path, content: str) -> str:
    """The text of a page, with other content between its markers.

    Raises:
        ValueError: a marker is missing or there twice, or the end is before the beginning.
    """
    page = path.read_bytes().decode()
    begin, end = MARKERS
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"{path} must have the markers {begin} and, after it, {end}, each once.")
    before, rest = page.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def _read(folder: Path, root: Path) -> Run:
    config, metrics = read_config(folder), read_json(folder, "metrics.json", _NEEDED)
    starts = read_json(folder, "environment.json", ["starts"])["starts"]
    try:
        if metrics["epochs"] != config.epochs:
            raise ValueError(f"metrics.json has {metrics['epochs']} epochs, config.json {config.epochs}.")
        percent = {
            "last_epoch_error": float(metrics["error"]),
            "best_epoch_error": metrics["best_epoch"]["error"],
            "balanced_accuracy": metrics["balanced_accuracy"],
            **{f"{shot}_accuracy": metrics["shot_accuracy"][shot] for shot in ("many", "medium", "few")},
        }
        row = {
            "run": folder.relative_to(root).as_posix(),
            **{name: getattr(config, name) for name in ("dataset", "imbalance", "ratio", "method")},
            "options": _options(config),
            **{name: getattr(config, name) for name in ("precision", "depth", "epochs", "seed")},
            **{name: "" if value is None else f"{100 * value:.3f}" for name, value in percent.items()},
            "epochs_evaluated": metrics["best_epoch"]["evaluated"],
            "hours": f"{metrics['seconds'] / 3600:.4f}",
            "images_per_second": f"{metrics['images_per_second']:.0f}",
            "processor": _distinct(starts, lambda start: start["processor"]),
            "cores": _distinct(starts, lambda start: start["cores"]),
            "backend": _distinct(starts, lambda start: f"{start['backend']} {start['versions'][start['backend']]}"),
            "keras": _distinct(starts, lambda start: start["versions"]["keras"]),
            "commit": _distinct(starts, lambda start: start["commit"]),
        }
    except KeyError as error:
        raise RunFolderError(
            f"{folder} holds a run of another version: its metrics.json or environment.json has no {error}."
        ) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise RunFolderError(f"{folder} holds a run of another version: {error}") from error
    return Run(folder, config, metrics, row, data_label(vars(config)))


def _distinct(starts: list[dict[str, Any]], value: Callable[[dict[str, Any]], Any]) -> str:
    """What a run was on; a resumed run may have been on several."""
    return "; ".join(dict.fromkeys(str(value(start)) for start in starts if value(start) is not None))


def _order(run: Run) -> tuple[Any, ...]:
    config = run.config
    return (
        (*RECIPES, config.dataset).index(config.dataset),
        str(config.dataset),
        (*IMBALANCES, "none").index(config.imbalance),
        -config.ratio,
        _turn(config),
        -(config.epochs or 0),
        _options(config, _UNSEEN),
        repr(_made_alike(dataclasses.replace(config, seed=0))),
        config.seed,
    )


def _made_alike(config: Config) -> Config:
    """The config without what makes no other run of it, but for rounding; precision is more than that."""
    return dataclasses.replace(config, **{name: HOW[name] for name in _UNSEEN})


def _turn(config: Config) -> int:
    """Methods in Table 1's order, then the others."""
    return list(dict.fromkeys((*TABLE_1, *METHODS))).index(config.method)


def _is_full(config: Config) -> bool:
    return not config.is_own and config.epochs == _length(config.dataset, config.recipe)


@functools.cache
def _length(dataset: str, recipe: str) -> int | None:
    return resolve(Config(dataset, recipe=recipe)).epochs


def _options(config: Config, hidden: Sequence[str] = (), named: Sequence[str] = ()) -> str:
    """The recipe, if it is not the paper's, the options that are not its presets', and those in `named`.

    `eval_every` is seen in the number of evaluated epochs.
    """
    run = (config.dataset, config.imbalance, config.ratio, config.method)
    of_images = {name: getattr(config, name) for name in OF_IMAGES} if config.is_own else {}
    how: dict[str, Any] = {**of_images, "epochs": config.epochs, "recipe": config.recipe}
    differing = _differing(config, resolve(Config(*run, **how)))
    if "margin_space" in differing:  # its constants are a preset too
        of_space = resolve(Config(*run, **how, margin_space=config.values()["margin_space"]))
        differing = ["margin_space", *_differing(config, of_space)]
    differing += [name for name in named if name not in differing]
    hidden = ("seed", "eval_every", *(["backbone"] if config.depth is not None else []), *hidden)  # the depth says it
    values = _values(config, [name for name in differing if name not in hidden])
    return ", ".join(filter(None, [f"{config.recipe} recipe" if config.recipe != "paper" else "", values]))


def _of_loss(config: Config) -> list[str]:
    """The options of the method's loss, in its order: that of all methods' options changes with every new method."""
    return list(signature(METHODS[config.method].loss).options)


def _differing(config: Config, preset: Config) -> list[str]:
    of_loss = _of_loss(config)
    return sorted(differences(config, preset), key=lambda name: [*of_loss, name].index(name))


def _method(run: Run, hidden: Sequence[str] = _UNSEEN) -> str:
    epochs = "" if _is_full(run.config) else f"{run.config.epochs} epochs"
    return ", ".join(filter(None, [method_label(run.config.method), _options(run.config, hidden, run.named), epochs]))


def _without_precision(groups: Sequence[list[Run]]) -> list[str]:
    """Names of the groups' methods, with the precision where only it tells two of them apart."""
    short = [_method(group[0], (*_UNSEEN, "precision")) for group in groups]
    return [_method(group[0]) if short.count(name) > 1 else name for name, group in zip(short, groups, strict=True)]


def _mean_sd(values: Sequence[float], note: str) -> str:
    sd = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{sd} ({note})"


def _line(group: list[Run]) -> list[str]:
    """Data set, method, last and best error, and the least time of runs that differ in their seed."""
    run, n = group[0], len(group)
    fastest = min(group, key=lambda r: r.metrics["seconds"])
    evaluated = sorted({int(r.row["epochs_evaluated"]) for r in group})
    return [
        run.data,
        _method(run),
        _mean_sd([100 * r.metrics["error"] for r in group], f"n={n}"),
        _mean_sd([100 * r.metrics["best_epoch"]["error"] for r in group], f"k={' or '.join(map(str, evaluated))}"),
        f"{duration(fastest.metrics['seconds'])}, {fastest.row['processor']}, {fastest.row['cores']} cores",
    ]


def _setting(group: list[Run]) -> tuple[str, str, float]:
    config = group[0].config
    return config.dataset, config.imbalance, config.ratio


def _matrices(groups: Sequence[list[Run]], published: Sequence[dict[str, str]]) -> list[str]:
    """A table for each data set of several imbalances, as the paper's Table 1: our error and the published one."""
    blocks: list[str] = []
    for _, same_data in itertools.groupby(groups, lambda group: group[0].config.dataset):
        members = list(same_data)
        labels = {_setting(group): group[0].data.split(", ") for group in members}
        if len(labels) == 1:
            continue
        lines: dict[str, dict[Any, str]] = {}
        for group in sorted(members, key=lambda group: (_turn(group[0].config), group[0].row["options"])):
            config = group[0].config
            theirs = next(iter(_published(config, published, PAPER)), None)
            ours = _mean_sd([100 * run.metrics["error"] for run in group], f"n={len(group)}")
            cell = (f"{ours} / {float(theirs['top1_error']):.2f}" if theirs else f"{ours} / –") + _mark(group, theirs)
            lines.setdefault(_method(group[0]), {})[_setting(group)] = cell
        head = ["Method", *(imbalance for _, imbalance in labels.values())]
        rows = [[method, *(cells.get(setting, "") for setting in labels)] for method, cells in lines.items()]
        blocks += [f"{next(iter(labels.values()))[0]}, ours (last epoch) / published (best epoch):", _table(head, rows)]
    return blocks


def _published(
    config: Config, published: Sequence[dict[str, str]], source: str, recipe: str = "paper"
) -> list[dict[str, str]]:
    """The rows that a source has for a run's method and training set; none for a run of another recipe."""
    wanted = (method_label(config.method), config.dataset, config.imbalance, config.ratio)
    return [
        row
        for row in published
        if row["source"].startswith(source)
        and config.recipe == recipe
        and wanted == (row["method"], row["dataset"], row["imbalance"], float(row["ratio"]))
    ]


def _mark(group: list[Run], theirs: dict[str, str] | None) -> str:
    """The sign of runs more than 1 point from the published error."""
    ours = 100 * np.mean([run.metrics["error"] for run in group])
    return " †" if theirs and round(abs(ours - float(theirs["top1_error"])), 6) > 1 else ""


def _compared(group: list[Run], published: Sequence[dict[str, str]]) -> list[str]:
    """`_line`, with the published error and those that others report before the time."""
    config, (*line, time) = group[0].config, _line(group)
    theirs = next(iter(_published(config, published, PAPER)), None)
    line[2] += _mark(group, theirs)
    others = []
    for source, (name, recipe) in ELSEWHERE.items():
        for row in _published(config, published, source, recipe):
            sd = f" ± {float(row['std']):.2f}" if row["std"] else ""
            n = f", n={row['seeds']}" if row["seeds"] else ""
            others.append(f"{float(row['top1_error']):.2f}{sd} ({name}{n})")
    return [*line, f"{float(theirs['top1_error']):.2f}" if theirs else "–", "; ".join(others) or "–", time]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in rows)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status: 1 if --check finds something out of date, 2 for an error."""
    parser = cli.parser("report", __doc__)
    parser.add_argument("--runs", type=cli.path, default=RESULTS, metavar="DIR", help="default: results")
    for name, what, default in (("page", "the tables", PAGE), ("readme", "the small table", README)):
        help_text = f"where {what} go; default: {default} of the runs in results, nowhere of others"
        parser.add_argument(f"--{name}", type=cli.path, metavar="FILE", help=help_text)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is not up to date")
    options = parser.parse_args(arguments)
    try:
        runs, unfinished = read_runs(options.runs)
        for folder in unfinished:
            print(f"skipped: {folder} is unfinished, it has no metrics.json", file=sys.stderr)
        with open(PUBLISHED, newline="", encoding="utf-8") as file:
            published = list(csv.DictReader(file))
        wanted = {options.runs / "results.csv": results_csv(runs)}
        is_ours = options.runs.resolve() == RESULTS.resolve()
        for page, default, content in ((options.page, PAGE, tables), (options.readme, README, summary)):
            if page := page or (default if is_ours else None):
                wanted[page] = insert(page, content(runs, published))
        stale = [path for path, text in wanted.items() if not path.exists() or path.read_bytes() != text.encode()]
        drawn = figure(runs) if is_ours else {}
        is_stale = drawn and not _is_drawn(options.runs / FIGURE, drawn)
        if options.check:
            stale += [(options.runs / FIGURE).with_suffix(".png")] if is_stale else []
            for path in stale:
                print(f"{path} is not up to date: run {cli.program('report')}", file=sys.stderr)
            return 1 if stale else 0
        for path in stale:
            with atomic_path(path) as temporary:
                temporary.write_text(wanted[path], encoding="utf-8", newline="")
        if is_stale:
            _draw(options.runs / FIGURE, drawn)
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    print(f"{len(runs)} runs: {', '.join(map(str, wanted))}")
    return 0
