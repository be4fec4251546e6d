"""Make results.csv and the tables of results from run folders.

    tf-mmloss report
    tf-mmloss report --check

Reads every run folder below --runs and writes results.csv beside them. The tables go into docs/results.md, and a small
one into README.md, between the markers <!-- results:begin --> and <!-- results:end -->. Of runs elsewhere than in
results/ they go only where --page and --readme say. Unfinished runs are named and left out; a folder that is unclear is
an error, and then nothing is written. The same runs give the same bytes.
"""

import csv
import dataclasses
import io
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from reproduction.published_code import MM_DRW
from tf_mmloss import cli, comparison
from tf_mmloss.files import atomic_path
from tf_mmloss.imbalance import IMBALANCES
from tf_mmloss.methods import loss_options, open_function
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
from tf_mmloss.train.presets import HOW, METHODS, OF_IMAGES, RECIPES, TABLE_1, Config, resolve

PUBLISHED = Path(__file__).with_name("published.csv")
PAPER, RERUN = "MM paper Table 1", ("independent re-run", "BagofTricks-LT gallery")
# Options that no table shows: the same run is made in many ways.
_UNSEEN = tuple(name for name in HOW if name != "precision")
# Of metrics.json.
_NEEDED = (
    *("error", "balanced_accuracy", "shot_accuracy", "per_class_error", "best_epoch", "cls_counts", "class_names"),
    *("epochs", "seconds", "images_per_second"),
)
RESULTS = Path("results")
PAGE, README = Path("docs/results.md"), Path("README.md")
MARKERS = ("<!-- results:begin -->", "<!-- results:end -->")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its folder, config, metrics.json, and row of results.csv."""

    folder: Path
    config: Config
    metrics: dict[str, Any]
    row: dict[str, Any]


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
    for a, b in itertools.combinations(tested, 2):
        differing = differences(_made_alike(a.config), _made_alike(b.config))
        if not differing:
            raise RunFolderError(f"{a.folder} and {b.folder} hold runs of the same config: one would count twice.")
        if a.folder.name == b.folder.name:
            named = "; ".join(f"{name}: {there!r} and {here!r}" for name, (there, here) in differing.items())
            raise RunFolderError(f"{a.folder} and {b.folder} have one name, two configs ({named}).")
    return runs, unfinished


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
    head = ["Data set", "Method", "Ours (last epoch)", "Best epoch", "Time"]
    blocks += _matrices(full, published)
    if full:
        lines = [_compared(group, published) for group in full]
        blocks.append(_table([*head[:4], "Published (best epoch)", "Independent re-run", "Time"], lines))
        if any("†" in line[2] for line in lines):
            blocks.append("† More than 1 point from the published error.")
    blocks += _differences(full) + _same_images(full)
    for title, rest in (
        ("Runs shorter or longer than the paper's:", [group for group in papers if group not in full]),
        ("Data sets that are not the paper's:", [g for g in groups if g not in papers and not g[0].config.is_own]),
    ):
        if rest:
            blocks += [title, _table(head, [_line(group) for group in rest])]
    blocks += _own([group for group in groups if group[0].config.is_own])
    ten = [group for group in papers if len(group[0].metrics["class_names"]) == 10]
    for label, same_data in itertools.groupby(ten, lambda group: data_label(vars(group[0].config))):
        members = list(same_data)
        metrics = members[0][0].metrics
        lines = [["training images", *map(str, metrics["cls_counts"])]]
        for group in members:
            lines.append([_method(group[0]), *_percent_by_class(group)])
        title = f"{label}: error of each class in %, last epoch, mean over seeds:"
        blocks += [title, _table(["Method", *metrics["class_names"]], lines)]
    return "\n\n".join([*blocks, *_searches([run for run in runs if run.config.holdout])])


def summary(runs: Iterable[Run], published: Sequence[dict[str, str]]) -> str:
    """The README's table, in Markdown: the paper's training sets at its length, the best of each first.

    Args:
        runs, published: see `tables`.
    """
    settings = {(row["dataset"], row["imbalance"], float(row["ratio"])) for row in published}
    groups = [group for group in _groups(runs) if _is_full(group[0].config) and _setting(group) in settings]
    lines = []
    for _, same_data in itertools.groupby(groups, _setting):
        for group in sorted(same_data, key=lambda group: np.mean([run.metrics["error"] for run in group])):
            data, method, ours, _, theirs, rerun, _ = _compared(group, published)
            method = method.removesuffix(", precision bfloat16")
            lines.append([data, method, ours.removesuffix(" †"), theirs, rerun])
    head = ["Training set", "Method", "Error in %, last epoch", "Published, best epoch", "Independent re-run"]
    return _table(head, lines)


def _groups(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs in order, evaluated on the test split, that differ in nothing but the seed."""
    tested = (run for run in runs if not run.config.holdout and METHODS[run.config.method].task == "class")
    return [list(group) for _, group in itertools.groupby(tested, lambda run: _order(run)[:-1])]


def _differences(groups: Sequence[list[Run]]) -> list[str]:
    """The table of what seeds can tell apart: every two methods of one training set with several seeds each."""
    lines = []
    repeated = [group for group in groups if len(group) > 1]
    for one, other in itertools.combinations(repeated, 2):
        if _setting(one) == _setting(other):
            a, b = ([100 * run.metrics["error"] for run in group] for group in (one, other))
            test = stats.ttest_ind(a, b, equal_var=False)
            low, high = test.confidence_interval()
            seeds = f"{len(a)} and {len(b)}"
            difference = f"{np.mean(a) - np.mean(b):+.2f} [{low:+.2f}, {high:+.2f}]"
            cells = [data_label(vars(one[0].config)), _method(one[0]), _method(other[0]), seeds, difference]
            lines.append([*cells, f"{test.pvalue:.2f}"])
    title = (
        "Differences between methods in points of error, with the 95 % interval of Welch's t-test over the seeds. An "
        "interval that holds 0 tells nothing apart. p is not corrected for the number of lines:"
    )
    head = ["Training set", "Method", "minus", "Seeds", "Difference", "p"]
    return [title, _table(head, lines)] if lines else []


def _same_images(groups: Sequence[list[Run]]) -> list[str]:
    """The table of what test images can tell apart: every two methods with stored predictions of the same seeds."""
    lines = []
    for one, other in itertools.combinations(groups, 2):
        if _setting(one) != _setting(other) or one[0].config.recipe != other[0].config.recipe:
            continue
        stored = [{run.config.seed: found for run in group if (found := _predictions(run))} for group in (one, other)]
        seeds = sorted(stored[0].keys() & stored[1].keys())
        if not seeds:
            continue
        labels = stored[0][seeds[0]].labels
        predicted = np.array([[of[seed].predicted for seed in seeds] for of in stored])
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
        cells = [data_label(vars(one[0].config)), _method(one[0]), _method(other[0]), ", ".join(map(str, seeds))]
        lines.append([*cells, difference, f"{p:.2f}" if p >= 0.01 else "< 0.01"])
    title = (
        "The same for the runs of one recipe that stored what they predicted, image by image: points of error with the "
        "95 % interval over the test images, and over the seeds where there are several. Of one seed, p is McNemar's "
        "exact test, which is about these two networks: other seeds of the same two methods may say otherwise."
    )
    head = ["Training set", "Method", "minus", "Seeds", "Difference", "p"]
    return [title, _table(head, lines)] if lines else []


def _predictions(run: Run) -> Predictions | None:
    return predictions.read(run.folder, len(run.metrics["class_names"]))


def _own(groups: Sequence[list[Run]]) -> list[str]:
    """The tables of images of one's own, as imbalanced as they are: a line a run, and the error of each class."""
    if not groups:
        return []
    head = ["Images", "Method", "Error", "Balanced accuracy", "Time"]
    lines = []
    for group in groups:
        data, method, error, _, time = _line(group)
        balanced = _mean_sd([100 * run.metrics["balanced_accuracy"] for run in group], f"n={len(group)}")
        lines.append([data, method, error, balanced, time])
    title = "Images of one's own, naturally imbalanced; a part of each class was held out to be evaluated, in %:"
    blocks = [title, _table(head, lines)]
    for label, same_data in itertools.groupby(groups, lambda group: data_label(vars(group[0].config))):
        members = list(same_data)
        metrics = members[0][0].metrics
        columns = [_percent_by_class(group) for group in members]
        rows = zip(metrics["class_names"], map(str, metrics["cls_counts"]), *columns, strict=True)
        title = f"{label}: error of each class in %, last epoch, mean over seeds:"
        short = [method_label(group[0].config.method) for group in members]
        methods = short if len(set(short)) == len(short) else [_method(group[0]) for group in members]
        blocks += [title, _table(["Class", "Training images", *methods], list(rows))]
    return blocks


def _percent_by_class(group: list[Run]) -> list[str]:
    # The seeds share their test images: a class without any has no error in all of them.
    errors = 100 * np.mean(np.array([run.metrics["per_class_error"] for run in group], float), axis=0)
    return ["–" if np.isnan(error) else f"{error:.1f}" for error in errors]


def _searches(runs: Sequence[Run]) -> list[str]:
    """The table of what was chosen on held-out images: a line a search, runs of one folder with other loss options."""
    searches: dict[tuple[Path, Config], list[Run]] = {}
    for run in runs:
        searched_over = dataclasses.replace(run.config, loss_arguments={})
        searches.setdefault((run.folder.parent, searched_over), []).append(run)
    lines = []
    for trials in searches.values():
        config = trials[0].config
        searched = [name for name in loss_options() if len({run.config.values()[name] for run in trials}) > 1]
        if not searched:
            continue
        ranked = sorted(trials, key=lambda run: run.metrics["error"])
        errors = [f"{_values(run.config, searched)}: {100 * run.metrics['error']:.2f}" for run in ranked]
        fixed = ", ".join(filter(None, [method_label(config.method), _options(config, ["holdout", *searched])]))
        search = [data_label(vars(config)), fixed, str(config.epochs), str(config.holdout)]
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
    return Run(folder, config, metrics, row)


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
    return not config.is_own and config.epochs == RECIPES[config.dataset].epochs


def _options(config: Config, hidden: Sequence[str] = ()) -> str:
    """The recipe, if it is not the paper's, and the options that are not its presets'.

    `eval_every` is seen in the number of evaluated epochs.
    """
    named = (config.dataset, config.imbalance, config.ratio, config.method)
    of_images = {name: getattr(config, name) for name in OF_IMAGES} if config.is_own else {}
    how: dict[str, Any] = {**of_images, "epochs": config.epochs, "recipe": config.recipe}
    differing = list(differences(config, resolve(Config(*named, **how))))
    if "margin_space" in differing:  # its constants are a preset too
        of_space = resolve(Config(*named, **how, margin_space=config.values()["margin_space"]))
        differing = ["margin_space", *differences(config, of_space)]
    hidden = ("seed", "eval_every", *(["backbone"] if config.depth is not None else []), *hidden)  # the depth says it
    values = _values(config, [name for name in differing if name not in hidden])
    return ", ".join(filter(None, [f"{config.recipe} recipe" if config.recipe != "paper" else "", values]))


def _method(run: Run) -> str:
    epochs = "" if _is_full(run.config) else f"{run.config.epochs} epochs"
    return ", ".join(filter(None, [method_label(run.config.method), _options(run.config, _UNSEEN), epochs]))


def _mean_sd(values: Sequence[float], note: str) -> str:
    sd = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{sd} ({note})"


def _line(group: list[Run]) -> list[str]:
    """Data set, method, last and best error, and time of runs that differ in their seed."""
    run, n = group[0], len(group)
    time = duration(float(np.mean([r.metrics["seconds"] for r in group])))
    evaluated = sorted({int(r.row["epochs_evaluated"]) for r in group})
    machines = dict.fromkeys(f"{r.row['processor']}, {r.row['cores']} cores" for r in group)
    return [
        data_label(vars(run.config)),
        _method(run),
        _mean_sd([100 * r.metrics["error"] for r in group], f"n={n}"),
        _mean_sd([100 * r.metrics["best_epoch"]["error"] for r in group], f"k={' or '.join(map(str, evaluated))}"),
        f"{time}{' a run' if n > 1 else ''}, {'; '.join(machines)}",
    ]


def _setting(group: list[Run]) -> tuple[str, str, float]:
    config = group[0].config
    return config.dataset, config.imbalance, config.ratio


def _matrices(groups: Sequence[list[Run]], published: Sequence[dict[str, str]]) -> list[str]:
    """A table for each data set of several imbalances, as the paper's Table 1: our error and the published one."""
    blocks: list[str] = []
    for _, same_data in itertools.groupby(groups, lambda group: group[0].config.dataset):
        members = list(same_data)
        labels = {_setting(group): data_label(vars(group[0].config)).split(", ") for group in members}
        if len(labels) == 1:
            continue
        lines: dict[str, dict[Any, str]] = {}
        for group in sorted(members, key=lambda group: (_turn(group[0].config), group[0].row["options"])):
            config = group[0].config
            theirs = _published(config, published, PAPER)
            ours = _mean_sd([100 * run.metrics["error"] for run in group], f"n={len(group)}")
            cell = (f"{ours} / {float(theirs['top1_error']):.2f}" if theirs else f"{ours} / –") + _mark(group, theirs)
            lines.setdefault(_method(group[0]), {})[_setting(group)] = cell
        head = ["Method", *(imbalance for _, imbalance in labels.values())]
        rows = [[method, *(cells.get(setting, "") for setting in labels)] for method, cells in lines.items()]
        blocks += [f"{next(iter(labels.values()))[0]}, ours (last epoch) / published (best epoch):", _table(head, rows)]
    return blocks


def _published(
    config: Config, published: Sequence[dict[str, str]], source: str | tuple[str, ...]
) -> dict[str, str] | None:
    """The first row that a source, or one of several, has for a method and training set: the paper's recipe."""
    if config.recipe != "paper":
        return None
    wanted = (method_label(config.method), config.dataset, config.imbalance, config.ratio)
    for row in published:
        here = (row["method"], row["dataset"], row["imbalance"], float(row["ratio"]))
        if row["source"].startswith(source) and here == wanted:
            return row
    return None


def _mark(group: list[Run], theirs: dict[str, str] | None) -> str:
    """The sign of runs more than 1 point from the published error."""
    ours = 100 * np.mean([run.metrics["error"] for run in group])
    return " †" if theirs and round(abs(ours - float(theirs["top1_error"])), 6) > 1 else ""


def _compared(group: list[Run], published: Sequence[dict[str, str]]) -> list[str]:
    """`_line`, with the published error and the independent re-run's before the time."""
    config, (*line, time) = group[0].config, _line(group)
    line[2] += _mark(group, _published(config, published, PAPER))
    cells = []
    for source in (PAPER, RERUN):
        row = _published(config, published, source)
        if row:
            sd = f" ± {float(row['std']):.2f}" if row["std"] else ""
            n = f" (n={row['seeds']})" if row["seeds"] else ""
            cells.append(f"{float(row['top1_error']):.2f}{sd}{n}")
        else:
            cells.append("–")
    return [*line, *cells, time]


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
        if options.check:
            for path in stale:
                print(f"{path} is not up to date: run {cli.program('report')}", file=sys.stderr)
            return 1 if stale else 0
        for path in stale:
            with atomic_path(path) as temporary:
                temporary.write_text(wanted[path], encoding="utf-8", newline="")
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    print(f"{len(runs)} runs: {', '.join(map(str, wanted))}")
    return 0
