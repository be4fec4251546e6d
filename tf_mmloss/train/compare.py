"""Several methods on one data set: the plan, its runs, and what they say.

OUT/
  compare.json         the plan
  METHOD-seedN/        a run, as `fit` leaves it; failed.json if its loss became NaN
  comparison.md        the table and the answer
  comparison.csv       the table for programs
  comparison.html      the page, with all of it
  comparison.svg, .png the picture
  .lock                held while the plan or the comparison is written
"""

import csv
import dataclasses
import io
import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_mmloss import NonFiniteLossError, cli, comparison, decide
from tf_mmloss._validation import choice, integer, number, received
from tf_mmloss.datasets import ImageDataset
from tf_mmloss.files import atomic_path, remove_partial, write_json
from tf_mmloss.markdown import escaped
from tf_mmloss.methods import METHODS
from tf_mmloss.metrics import shot_masks
from tf_mmloss.runs import page, plots, predictions
from tf_mmloss.runs.folder import (
    RunBusyError,
    RunFolderError,
    check_same,
    data_label,
    differences_in_words,
    duration,
    is_failed,
    is_finished,
    locked,
    method_label,
    read_config,
    read_json,
)
from tf_mmloss.runs.model import RunModel
from tf_mmloss.train import experiment, inputs, progress, strategy
from tf_mmloss.train.config import Config, code_named, of_a_method
from tf_mmloss.train.resolve import check_before_data, pretraining, resolve
from tf_mmloss.train.show import adjusted_twice

PLAN, VERSION = "compare.json", 1
MOST_METHODS, MOST_SEEDS = 20, 100


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        methods: keys of METHODS, or METHOD+DECISION: the runs of METHOD, decided by DECISION; see `tf_mmloss.decide`.
        seeds: so many of each method, from the config's seed on.
        config: what all runs share; `holdout` is 0 for the test split.
        measure: a key of `tf_mmloss.comparison.MEASURES`.
    """

    methods: tuple[str, ...]
    seeds: int
    config: Config
    measure: str = "balanced_accuracy"

    @property
    def trained(self) -> tuple[str, ...]:
        """The methods without their decisions, each once."""
        return tuple(dict.fromkeys(comparison.bare(name) for name in self.methods))

    def cells(self) -> list[Config]:
        """The configs of the runs: all methods with the first seed, then with the next, so that any stop is fair."""
        return [
            dataclasses.replace(self.config, method=method, seed=self.config.seed + seed)
            for seed in range(self.seeds)
            for method in self.trained
        ]

    def resolve(self, data: ImageDataset | None = None, holdout: int | None = None) -> dict[str, Config]:
        """Check the config of every method and decision; return those of the last seed by the names in `methods`.

        Args:
            data: the images, if they are one's own.
            holdout: another one than the config's.

        Raises:
            ValueError: see `tf_mmloss.train.resolve.resolve`.
        """
        held = self.config.holdout if holdout is None else holdout
        return {name: resolve(config, data) for name, config in self._last(held).items()}

    def check_before_data(self, holdout: int) -> None:
        """Refuse what can be refused before images of one's own are read.

        Args:
            holdout: see `resolve`.

        Raises:
            ValueError: see `tf_mmloss.train.resolve.resolve`.
        """
        for config in self._last(holdout).values():
            check_before_data(config)

    def _last(self, holdout: int | float) -> dict[str, Config]:
        """The configs of the last seed, as they are given, by the names in `methods`."""
        given = dataclasses.replace(self.config, seed=self.config.seed + self.seeds - 1, holdout=holdout)
        return {
            name: dataclasses.replace(given, method=comparison.bare(name), decide=decision(name))
            for name in self.methods
        }


def remarks(configs: dict[str, Config]) -> list[str]:
    """Sentences about what tells methods apart beside their names.

    Args:
        configs: see `Plan.resolve`.
    """
    heads: dict[str | None, dict[str, None]] = {}
    for name, config in configs.items():
        heads.setdefault(config.classifier, {})[comparison.bare(name)] = None
    said = {name: adjusted_twice(config, config.decide) for name, config in configs.items()}
    twice = [f"{name}: {remark}." for name, remark in said.items() if remark]
    of_heads = "; ".join(f"{head} of {', '.join(names)}" for head, names in heads.items())
    return [f"Heads: {of_heads}.", *twice] if len(heads) > 1 else twice


def additions(name: str) -> int:
    """How much METHOD or METHOD+DECISION adds to plain training: see `tf_mmloss.methods.Method.additions`."""
    return METHODS[comparison.bare(name)].additions + (name != comparison.bare(name))


def decision(name: str) -> str:
    """What METHOD+DECISION is decided by; "none" of a METHOD."""
    return name.removeprefix(comparison.bare(name)).removeprefix("+") or "none"


def check(methods: Sequence[str], seeds: int, measure: str, options: dict[str, Any]) -> None:
    """Refuse what cannot be compared, before images are read.

    Args:
        methods, seeds, measure: of the plan.
        options: of the config, those that are given.

    Raises:
        ValueError: an unknown method or decision, fewer than two or one twice, seeds or a measure out of range, an
            option of a method.
    """
    known = [name for name, method in METHODS.items() if method.task == "class"]
    named = set()
    for name in methods:
        method, plus, spec = str(name).partition("+")
        if ":" in method:
            raise ValueError(
                "`methods` must be names of methods; one's own is a name too where an installed package adds it (an "
                f"entry point of the group tf_mmloss.methods). {received('methods', name)}"
            )
        choice("methods", method if plus else name, known)
        try:
            found, strength = decide.parse(spec) if plus else (None, None)
            if plus and found is None:
                raise ValueError(f"the decision none is {method} alone.")
            if found is not None and not found.changes_answers:
                raise ValueError(f"the answers are those of {method} alone, and answers are what is compared.")
        except ValueError as error:
            raise ValueError(f"`methods` {name}: {error}") from None
        named.add((method, found, strength))
    if not 2 <= len(methods) <= MOST_METHODS or len(named) < len(methods):
        raise ValueError(
            f"`methods` must be two to {MOST_METHODS}, each once: NAME,NAME. {received('methods', ','.join(methods))}"
        )
    integer("seeds", seeds, at_least=1, at_most=MOST_SEEDS)
    choice("measure", measure, comparison.MEASURES)
    if "decide" in options:
        raise ValueError(
            "`decide` is part of a method's name in a comparison: METHOD+DECISION, as in --methods "
            f"erm,erm+logit-adjustment. {received('decide', options['decide'])}"
        )
    for name in sorted(of_a_method() & set(options)):
        raise ValueError(
            f"`{name}` is an option of single methods, which are compared with their own constants. "
            f"{received(name, options[name])}"
        )


def begin(folder: Path, plan: Plan, data: ImageDataset) -> str:
    """Check a plan and write it, or refuse a folder that has another one; return the plan in words.

    Raises:
        ValueError: a run that could not be trained, or images that cannot be split.
        RunFolderError: a folder with another plan or a finished run of another config, or whose images changed.
    """
    if strategy.variables_given():
        raise ValueError(
            "A comparison is shared among processes that each train whole runs: start it in each without "
            f"{', '.join(strategy.VARIABLES)}. Received: {strategy.variables_given()}"
        )
    configs = plan.resolve(data if plan.config.is_own else None)
    resolved = next(iter(configs.values()))
    strategy.join(resolved)
    strategy.check(resolved)
    inputs.check_input(resolved)
    splits = inputs.split(data, resolved)
    evaluated = np.bincount(splits.eval_labels, minlength=len(splits.class_names))
    if evaluated.sum() < 2 or (plan.measure == "few_accuracy" and not evaluated[rarest(splits.cls_counts)].any()):
        raise ValueError(
            f"`measure` {plan.measure} needs evaluated images, few_accuracy of the rarest classes: raise --holdout. "
            f"Received: {evaluated.sum()} images"
        )
    if splits.eval_groups is not None and len(np.unique(splits.eval_groups)) < 2:
        raise ValueError(
            "`group_by`, or the groups of a table, must leave two groups or more among the evaluated images, as one "
            f"says nothing of others: raise --holdout. Received: {evaluated.sum()} images of one group"
        )
    missing = [splits.class_names[c] for c in np.flatnonzero(evaluated == 0)]
    if missing and plan.measure != "error" and not os.path.lexists(folder / PLAN):
        raise ValueError(
            f"`measure` {plan.measure} needs an evaluated image of every class: leave the others out, or compare by "
            f"--measure error, in which they have no part. Received: none of {comparison.listed(missing)}"
        )
    if missing:
        progress.tell(
            f"classes too small for an evaluated image, left out of every number: {comparison.listed(missing)}"
        )
    content: dict[str, Any] = {
        "version": VERSION,
        "methods": list(plan.methods),
        "seeds": plan.seeds,
        "measure": plan.measure,
        "options": _options(plan),
        "fingerprint": data.fingerprint,
    }
    with locked(folder, patience=600):
        remove_partial(folder)  # what a killed command left: all of them write under this lock
        if os.path.lexists(folder / PLAN):
            there = read_json(folder, PLAN)
            differing = [name for name in {**content, **there} if there.get(name) != content.get(name)]
            differing = [name for name in differing if name not in _longer(there, content)]
            options = _changed(there.get("options"), content["options"])
            if "fingerprint" in differing and "dataset" not in options:
                raise RunFolderError(
                    f"The images of {data.name}, or their groups, changed since {folder} began: choose another --out."
                )
            if differing:
                named = [name for name in differing if name not in ("options", "fingerprint")]
                changed = {name: (there.get(name), content.get(name)) for name in named} | options
                raise RunFolderError(
                    f"{folder} holds another comparison ({differences_in_words(changed)}): choose another --out, or "
                    "continue that one with --resume, to which --seeds and --methods may add."
                )
        for cell in plan.cells():
            own = cell_folder(folder, cell)
            if is_finished(own):  # it would be compared as it is; `run` refuses the others
                asked = resolve(cell, data if cell.is_own else None)
                check_same(own, read_config(own), asked)
                experiment.check_data(own, data)
        write_json(folder / PLAN, content)
    trained = "" if len(plan.trained) == len(plan.methods) else f", {len(plan.trained)} of them trained,"
    measure = comparison.MEASURES[plan.measure]
    lines = [
        f"{len(plan.methods)} methods{trained} by {plan.seeds} seed{'s' * (plan.seeds > 1)}: {folder}",
        f"{len(plan.cells())} runs of {resolved.epochs} epochs on {_training_set(splits.cls_counts)}.",
        f"{measure.capitalize()} on {_evaluated(plan, int(evaluated.sum()))} decides.",
        *remarks(configs),
    ]
    return "\n".join(lines)


def _changed(there: Any, options: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options of a plan that are others now, with what they were and are; None: the default."""
    before = there if isinstance(there, dict) else {}
    pairs = {name: (before.get(name), options.get(name)) for name in {**before, **options}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _longer(there: dict[str, Any], content: dict[str, Any]) -> list[str]:
    """What of a plan may become more: seeds, and methods beside those that are there."""
    methods, seeds = there.get("methods"), there.get("seeds")
    more = ["methods"] if isinstance(methods, list) and set(map(str, methods)) <= set(content["methods"]) else []
    return [*more, "seeds"] if isinstance(seeds, int) and seeds <= content["seeds"] else more


def _options(plan: Plan) -> dict[str, Any]:
    """What of a plan's config is not a default."""
    return {
        field.name: value
        for field in dataclasses.fields(Config)
        if field.name not in of_a_method() and (value := getattr(plan.config, field.name)) != field.default
    }


def _again(plan: Plan) -> dict[str, Any]:
    """The options of the command that makes a plan again."""
    options = {"methods": ",".join(plan.methods), "seeds": plan.seeds, "measure": plan.measure.replace("_", "-")}
    return {**options, "final": not plan.config.holdout, **_options(plan)}


def read_plan(folder: Path) -> Plan:
    """The plan of a folder.

    Raises:
        RunFolderError: none there, or one that cannot be.
    """
    if not os.path.lexists(folder / PLAN):
        raise RunFolderError(f"{folder} holds no comparison: it has no {PLAN}.")
    content = read_json(folder, PLAN, ("version", "methods", "seeds", "measure", "options"))
    try:
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']!r}, not {VERSION}")
        methods, options = content["methods"], content["options"]
        if not isinstance(methods, list) or not isinstance(options, dict):
            raise ValueError("methods must be a list, options an object")
        unknown = set(options) - set(Config.__dataclass_fields__) - of_a_method()
        if unknown:
            raise ValueError(f"unknown options {', '.join(sorted(unknown))[:200]}")
        check(methods, content["seeds"], content["measure"], options)
        integer("seed", options.get("seed", 0))
        return Plan(tuple(methods), content["seeds"], Config(**options), content["measure"])
    except (TypeError, ValueError) as error:
        raise RunFolderError(f"{folder / PLAN} is of another version: {error}") from error


def cell_folder(folder: Path, cell: Config) -> Path:
    """Where a run of the comparison is."""
    return folder / f"{cell.method}-seed{cell.seed}"


def work(
    folder: Path, plan: Plan, data: ImageDataset, *, data_dir: str | None = None, hours: float | None = None
) -> list[str]:
    """Train what is not finished, in order, and leave out what other processes train.

    What is finished is compared before every further seed: a process that is killed leaves that.

    Args:
        folder: of the comparison, see `begin`.
        plan: its plan.
        data: its images.
        data_dir: where CIFAR is.
        hours: stop at the end of the epoch in which this time is over.

    Returns:
        Names of the runs that are not finished: the time was over, or other processes train them.

    Raises:
        ValueError, OSError: what `tf_mmloss.train.experiment.run` raises.
    """
    until = None if hours is None else time.time() + 3600 * number("hours", hours, above=0)
    cells = plan.cells()
    taken: list[float] = []
    for position, cell in enumerate(cells):
        if until is not None and time.time() >= until and taken:
            break
        own = cell_folder(folder, cell)
        if is_failed(own):
            line = cli.resuming("fit", own, data_dir=data_dir, **code_named(cell))
            progress.tell(f"{own.name} failed in an earlier try, and stays left out. To try it again: {line}")
        if position % len(plan.trained) == 0 and taken:
            try:
                report(folder, data)
            except RunFolderError as error:  # of a run that is damaged: the others go on, and the end says it again
                progress.tell(str(error), "error")
        without = _without(folder, plan)
        if _is_done(own) or cell.method in without:
            continue
        left = [one for one in cells[position:] if one.method not in without and not _is_done(cell_folder(folder, one))]
        about = f", about {duration(float(np.median(taken)) * len(left))} left" if taken else ""
        progress.tell(f"\nrun {position + 1} of {len(cells)}: {cell.method}, seed {cell.seed}{about}")
        began = time.perf_counter()
        try:
            keras.utils.clear_session()
            experiment.run(
                cell,
                own,
                data_dir=data_dir,
                resume=True,
                stop=lambda: until is not None and time.time() >= until,
                data=data,
            )
        except RunBusyError:
            progress.tell("another process trains it")
            continue
        except NonFiniteLossError as error:
            progress.tell(str(error), "error")
            continue
        except experiment.RunStoppedError as error:
            progress.tell(str(error))
            break
        except (ValueError, OSError, ImportError):  # what a user can mend
            raise
        except Exception as error:  # of one run, an accelerator's memory say: the others go on
            traceback.print_exc()
            progress.tell(
                f"{own.name} ended in {type(error).__name__}, and is tried again by the next command", "error"
            )
            continue
        taken.append(time.perf_counter() - began)
        found = read_json(own, "metrics.json", ("error", "balanced_accuracy"))
        line = f"{own.name}: error {found['error']:.2%}, balanced accuracy {found['balanced_accuracy']:.2%}"
        progress.tell(line, event=None)
    without = _without(folder, plan)
    return [own.name for cell in cells if cell.method not in without and not _is_done(own := cell_folder(folder, cell))]


def _without(folder: Path, plan: Plan) -> set[str]:
    """Methods that are left out, as the loss of one of their runs became NaN."""
    return {cell.method for cell in plan.cells() if is_failed(cell_folder(folder, cell))}


def failed_methods(folder: Path, plan: Plan) -> list[str]:
    """The methods of a plan of which a run's loss became NaN."""
    without = _without(folder, plan)
    return [name for name in plan.methods if comparison.bare(name) in without]


def report(folder: Path, data: ImageDataset) -> dict[str, Any] | None:
    """Compare what is finished, and write comparison.md, .csv, .html, .svg and .png.

    The plan is that of the folder, to which other processes may have added. Compared are the seeds that all methods
    finished; a method with a run whose loss became NaN is left out and named. Where that leaves fewer than two methods,
    the five files are removed.

    Args:
        folder: of the comparison.
        data: its images.

    Returns:
        What `tf_mmloss.comparison.compare` does, with `seconds` of a run in `methods`, `failed` methods, and `text`,
        the content of comparison.md; None: there is no such seed, or no two methods.

    Raises:
        RunFolderError: a run that is damaged.
    """
    with locked(folder, patience=600):  # of several processes, the last one writes last
        plan = read_plan(folder)
        cells = plan.cells()
        failed = failed_methods(folder, plan)
        without = set(map(comparison.bare, failed))
        methods = [name for name in plan.methods if name not in failed]
        by_seed: dict[int, list[bool]] = {}
        for cell in cells:
            if cell.method not in without:
                by_seed.setdefault(cell.seed, []).append(is_finished(cell_folder(folder, cell)))
        seeds = [seed for seed, done in by_seed.items() if all(done)]
        if len(methods) < 2:  # an answer from before names methods that are left out now
            for suffix in ("md", "csv", "html", "svg", "png"):
                (folder / f"comparison.{suffix}").unlink(missing_ok=True)
        if len(methods) < 2 or not seeds:
            return None
        configs = plan.resolve(data if plan.config.is_own else None)
        config = configs[methods[0]]
        splits = inputs.split(data, config)
        folders = {(cell.method, cell.seed): cell_folder(folder, cell) for cell in cells}
        predicted: dict[tuple[str, int], np.ndarray] = {}
        for method in dict.fromkeys(map(comparison.bare, methods)):
            names = [name for name in methods if comparison.bare(name) == method]
            for seed in seeds:
                found_of = _predictions(folders[method, seed], names, splits)
                predicted.update({(name, seed): classes for name, classes in found_of.items()})
        found = comparison.compare(
            splits.eval_labels,
            np.stack([[predicted[name, seed] for seed in seeds] for name in methods]),
            methods,
            few=rarest(splits.cls_counts),
            class_names=splits.class_names,
            measure=plan.measure,
            additions=[additions(name) for name in methods],
            shares=np.bincount(data.test_labels, minlength=data.num_classes),
            groups=splits.eval_groups,
        )
        for row in found["methods"]:
            own = [folders[comparison.bare(row["name"]), seed] for seed in seeds]
            row["seconds"] = float(np.mean([_seconds(one) for one in own]))
            row["additions"] = additions(row["name"])
        found["failed"], found["planned_seeds"] = failed, plan.seeds
        found["on"] = _evaluated(plan, found["images"])
        chosen = [folders[comparison.bare(found["choice"]), seed].name for seed in seeds]
        found["choice_runs"] = ", ".join(chosen)
        compared = [folders[method, seed] for seed in seeds for method in dict.fromkeys(map(comparison.bare, methods))]
        found["remarks"] = remarks({name: configs[name] for name in methods}) + _unlike(compared)
        found["how"] = _how(found, len(methods))
        found["fit"] = page.command_line("fit", _fit(plan, found["choice"])) if plan.config.holdout else ""
        label = data_label(vars(config))
        found["trained_on"] = _training_set(splits.cls_counts)
        found["text"] = text(found, label)
        with atomic_path(folder / "comparison.md") as temporary:
            temporary.write_text(found["text"], encoding="utf-8")
        with atomic_path(folder / "comparison.csv") as temporary:
            temporary.write_text(_csv(found), encoding="utf-8")
        try:
            plots.comparison(found, folder / "comparison", title=label)
        except Exception as error:  # no font, say: the numbers stay
            progress.tell(f"warning: {folder}/comparison.svg cannot be drawn ({type(error).__name__}: {error})")
        found |= {
            "label": label,
            "command": page.command_line("compare", _again(plan)),
        }
        page.write_comparison(compared, folder / "comparison.html", found)
        return found


def rarest(cls_counts: np.ndarray) -> np.ndarray:
    """The classes of the few-shot accuracy: with fewer than 20 training images, or the rarest third.

    The third is taken where no class, or every class, is below 20.

    Args:
        cls_counts: (C,) training images.

    Returns:
        (C,) bool.
    """
    few = shot_masks(cls_counts)["few"]
    if few.any() and not few.all():
        return few
    third = np.argsort(cls_counts, kind="stable")[: max(len(cls_counts) // 3, 1)]
    return np.isin(np.arange(len(cls_counts)), third)


def text(found: dict[str, Any], label: str) -> str:
    """The comparison as Markdown: the answer, the table, the differences, and how to read them."""
    best = found["best"]
    against = {pair["worse"]: pair for pair in found["pairs"] if pair["better"] == best}
    names = [row["name"] for row in found["methods"]]
    neighbours = dict(zip(names[1:], names, strict=False))
    rows = []
    for row in found["methods"]:
        pair = against.get(row["name"])
        cells = [_cell(row[name]) for name in comparison.MEASURES]
        differs = "best" if pair is None else _difference(pair)
        before = neighbours.get(row["name"])
        above = next((p for p in found["pairs"] if (p["better"], p["worse"]) == (before, row["name"])), None)
        to_above = _difference(above) if above else ""
        label_of = f"**{method_label(row['name'])}**" if row["name"] == found["choice"] else method_label(row["name"])
        rows.append([label_of, *cells, differs, to_above, duration(row["seconds"])])
    values = [f"{name} (%)" for name in comparison.MEASURES.values()]
    head = ["method", *values, "difference to the best (points)", "to the one above", "time of a run"]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    measure = comparison.MEASURES[found["measure"]]
    seeds = f"{found['seeds']} seed{'s' * (found['seeds'] > 1)}"
    of = f" of {found['planned_seeds']} planned" if found["seeds"] < found["planned_seeds"] else ""
    spread = (
        "seeds and images both" if found["seeds"] > 1 else "the images alone, as one seed says nothing of other seeds"
    )
    chance = (
        "; then the chance of one as large between two methods that are equally good, corrected for the number of "
        "pairs (Holm)"
        if found["seeds"] > 1
        else ""
    )
    shared = (
        " METHOD+DECISION shares the training of METHOD; where its strength is fitted, each half of the images is "
        "decided by that of the other half."
        if any(name != comparison.bare(name) for name in names)
        else ""
    )
    left_out = f"\n\nLeft out, as a loss became NaN: {', '.join(found['failed'])}." if found["failed"] else ""
    remarked = "".join(f"\n\n{remark}" for remark in found["remarks"])
    how = _how({**found, "few": [escaped(name) for name in found["few"]]}, len(names))
    return (
        f"# {escaped(label)}: which method?\n\n"
        + escaped(" ".join(found["answer"]))
        + f"{left_out}{remarked}\n\n{table}\n\n"
        + f"{seeds}{of} of each method, {found['on']}; {found['trained_on']}. "
        f"In brackets: 95 % intervals over {spread}. Bold: the choice. Differences are in {measure}, paired by seeds "
        f"and images, with intervals that hold for all pairs at once{chance}. {how} From the simplest: "
        f"{', '.join(found['from_simplest'])}.{shared}\n\n{_trained(found)}\n"
    )


def _trained(found: dict[str, Any]) -> str:
    """How the choice is trained on all training images."""
    if found["fit"]:
        return f"To train the choice on all training images:\n\n    {found['fit']}"
    return f"All of these runs are trained on all training images: those of the choice are {found['choice_runs']}."


def _how(found: dict[str, Any], methods: int) -> str:
    """How the numbers are to be read."""
    return (
        f"Few-shot accuracy is that of the rarest classes, {comparison.listed(found['few'])}. Error is of images that "
        "come from the classes as often as in the test split. The best was picked as the best of "
        f"{methods} on these images, which flatters its values. What other training images would change is part of no "
        "interval."
    )


def _fit(plan: Plan, chosen: str) -> dict[str, Any]:
    """The options of `fit` that train the choice on all training images, evaluated on the test split."""
    options = {name: value for name, value in _options(plan).items() if name not in ("holdout", "eval_every", "method")}
    name = decision(chosen)
    if name != "none" and decide.parse(name)[1] is None:  # its strength is fitted on held-out images
        options["holdout"] = plan.config.holdout
    decided = {} if name == "none" else {"decide": name}
    return {**options, "method": comparison.bare(chosen), **decided}


def _evaluated(plan: Plan, images: int) -> str:
    """What is evaluated, in words."""
    return f"{images:,} {'held-out training images' if plan.config.holdout else 'images of the test split'}"


def _training_set(cls_counts: np.ndarray) -> str:
    """Its size in words."""
    return (
        f"{cls_counts.sum():,} training images of {len(cls_counts):,} classes, {cls_counts.max():,} of the largest and "
        f"{cls_counts.min():,} of the smallest"
    )


def _cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    low, high = value["interval"]
    return f"{100 * value['value']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _difference(pair: dict[str, Any]) -> str:
    low, high = pair["interval"]
    chance = "" if pair["p_corrected"] is None else f", {comparison.chance(pair['p_corrected'])}"
    # Taken from 0: the negative of none would be -0.0.
    return f"{100 * (0 - pair['difference']):+.1f} ({100 * (0 - high):+.1f} to {100 * (0 - low):+.1f}){chance}"


def _csv(found: dict[str, Any]) -> str:
    """The table with a row for each method; a blank is what is not known."""
    against = {pair["worse"]: pair for pair in found["pairs"] if pair["better"] == found["best"]}
    rows = []
    for row in found["methods"]:
        pair = against.get(row["name"])
        line: dict[str, Any] = {"method": row["name"], "seeds": found["seeds"], "images": found["images"]}
        for name in comparison.MEASURES:
            low, high = row[name]["interval"] if row[name] else (None, None)
            line |= {name: row[name] and row[name]["value"], f"{name}_low": low, f"{name}_high": high}
        line |= {"measure": found["measure"], "difference_to_best": 0.0 if pair is None else 0 - pair["difference"]}
        low, high = (0 - end for end in reversed(pair["interval"])) if pair else (0.0, 0.0)
        line |= {"difference_to_best_low": low, "difference_to_best_high": high}
        line |= {"p": pair and pair["p"], "p_corrected": pair and pair["p_corrected"]}
        line |= {"seconds": row["seconds"], "choice": int(row["name"] == found["choice"])}
        line["additions"] = row["additions"]
        rows.append(line)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _unlike(folders: Sequence[Path]) -> list[str]:
    """Sentences about what runs were trained by, where that is not one for all."""
    there = [one for one in folders if os.path.lexists(one / "environment.json")]
    starts = [start for one in there for start in read_json(one, "environment.json", ["starts"])["starts"]]
    several = {
        what: values
        for what, of in (
            ("version", lambda start: start["versions"].get("tf_mmloss")),
            ("commit", lambda start: start.get("commit")),
            ("backend", lambda start: start.get("backend")),
            ("processor", lambda start: start.get("processor")),
        )
        if len(values := {str(of(start) or "unknown"): None for start in starts}) > 1
    }
    processors = several.pop("processor", None)
    lines = [f"Times are of several processors: {', '.join(processors)}."] if processors else []
    if several:
        found = "; ".join(f"{what} {', '.join(values)}" for what, values in several.items())
        lines.insert(0, f"The runs were not all trained by the same program, which may make a difference: {found}.")
    return lines


def _seconds(own: Path) -> float:
    """Of training a run, and the backbone that it starts from."""
    folders = [own]
    pretrained = pretraining(read_config(own))
    if pretrained is not None and is_finished(own.parent / pretrained.name):
        folders.append(own.parent / pretrained.name)
    return float(sum(read_json(one, "metrics.json", ("seconds",))["seconds"] for one in folders))


def _predictions(own: Path, names: Sequence[str], splits: inputs.Splits) -> dict[str, np.ndarray]:
    """The classes that a finished run predicted for the evaluated images, by each of the names that share it."""
    found = predictions.read(own, len(splits.class_names))
    if found is None or not np.array_equal(found.labels, splits.eval_labels):
        raise RunFolderError(f"{own / predictions.NAME} is not of the images of this comparison: remove {own}.")
    classes = {name: found.predicted for name in names if decision(name) == "none"}
    if len(classes) < len(names):
        model = RunModel.load(own)
        logits = model.logits(splits.eval_images)
        for name in names:
            if name not in classes:
                decided = decide.decided(decision(name), model.trained, splits.eval_labels, logits)
                classes[name] = decided.scores.argmax(axis=1)
    return classes


def _is_done(own: Path) -> bool:
    return is_finished(own) or is_failed(own)
