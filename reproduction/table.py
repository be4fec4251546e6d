"""Work through the paper's Table 1: 14 systems, 8 training sets, 3 seeds, and a few variants.

    tf-mmloss table plan
    tf-mmloss table run --hours 8 --precision bfloat16 --eval-every 5
    tf-mmloss table run --systems mm-drw,ldam-drw --datasets cifar10 --seeds 0
    tf-mmloss table run --backend jax --input epoch --data-dir DIR
    tf-mmloss table run --ray auto --gpus 0.5 --data-dir DIR
    tf-mmloss table status
    tf-mmloss table report

A cell of the plan is a run folder below --results. A run is a cell's if its config is, whatever its folder's name, its
precision, XLA, input, strategy, and how often it was evaluated. `run` trains the cells that are not done, in the
plan's order. It can be stopped at any moment, with ctrl-C or harder; the same command continues. Several of them, on
hosts with one file system, share the work; with --ray one of them trains on all hosts of a Ray cluster, which share a
file system too. A cell that fails is noted in its folder (failed.json) and left out until --retry.

Several can share a GPU too: there JAX gives the memory to the first unless XLA_PYTHON_CLIENT_PREALLOCATE is false.
"""

import argparse
import contextlib
import dataclasses
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

import keras
import numpy as np

from reproduction import report
from tf_mmloss import cli
from tf_mmloss._validation import choice, integer, number
from tf_mmloss.cli import backend
from tf_mmloss.datasets import load
from tf_mmloss.imbalance import imbalanced_counts
from tf_mmloss.runs.folder import (
    FAILED,
    RunBusyError,
    RunFolderError,
    differences,
    epochs_saved,
    is_busy,
    is_failed,
    is_finished,
    locked,
    note_failure,
    read_config,
    read_json,
    run_folders,
)
from tf_mmloss.train import cluster, experiment, strategy
from tf_mmloss.train.config import HOW, INPUTS, PRECISIONS, STRATEGIES, Config
from tf_mmloss.train.inputs import check_input
from tf_mmloss.train.presets import TABLE_1
from tf_mmloss.train.resolve import resolve

# What the paper leaves open: other readings of the same systems; and the rival that it leaves out.
VARIANTS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("mm-drw", {"margin_space": "cosine"}),
    ("mm-drw", {"weights": "inverse"}),
    ("ldam-drw", {"weights": "inverse"}),
    ("balanced-softmax", {}),
)
# Most wanted first; FIRST and `_turn` order the cells of the first.
SETTINGS = (
    ("cifar10", "longtail", 100.0),
    ("cifar100", "longtail", 100.0),
    ("cifar10", "longtail", 10.0),
    ("cifar10", "step", 100.0),
    ("cifar10", "step", 10.0),
    ("cifar100", "longtail", 10.0),
    ("cifar100", "step", 100.0),
    ("cifar100", "step", 10.0),
)
FIRST = ("erm", "ldam-drw", "mm-drw", "mm-drw-margin_space_cosine", "mm-ldam-drw", "m-drw", "mm", "ldam")
SEEDS = (0, 1, 2)

# Images of each class, and classes, before the training split is made imbalanced.
SIZES = {"cifar10": (5000, 10), "cifar100": (500, 100)}
STATES = ("done", "running", "partial", "failed", "missing")
# Seconds between two looks for hosts that joined the cluster.
HOSTS_EVERY = 10


@dataclasses.dataclass(frozen=True)
class Cell:
    """A run of the plan: the system or variant that it is of, and its resolved config."""

    system: str
    config: Config

    @property
    def setting(self) -> tuple[str, str, float]:
        """Data set, imbalance and ratio."""
        return self.config.dataset, self.config.imbalance, self.config.ratio

    @property
    def name(self) -> str:
        """Name of the cell's folder: the run's, with the options of a variant."""
        return dataclasses.replace(self.config, method=self.system).name


COLUMNS: dict[str, Callable[[Cell], str]] = {
    "systems": lambda cell: cell.system,
    "datasets": lambda cell: cell.config.dataset,
    "seeds": lambda cell: str(cell.config.seed),
}


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a cell is: one of STATES, its folder, and the complete epochs of its run."""

    cell: Cell
    state: str
    folder: Path
    epochs: int


def systems() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Method and options of every system and variant: FIRST, then in Table 1's order."""
    rows: list[tuple[str, Mapping[str, Any]]] = [(method, {}) for method in TABLE_1]
    named = {
        "-".join([method, *(f"{name}_{value}" for name, value in options.items())]): (method, options)
        for method, options in (*rows, *VARIANTS)
    }
    return {name: named[name] for name in dict.fromkeys((*FIRST, *named))}


def plan() -> list[Cell]:
    """All cells, most wanted first."""
    cells = [
        Cell(name, resolve(Config(*setting, method, seed=seed, **options)))
        for setting in SETTINGS
        for seed in SEEDS
        for name, (method, options) in systems().items()
        if not ("hg" in method.split("-") and setting[0] == "cifar100")  # not in Table 1
    ]
    return sorted(cells, key=_turn)


def select(cells: Sequence[Cell], wanted: Mapping[str, Sequence[str]]) -> list[Cell]:
    """The cells of some systems, datasets and seeds; of all where none is named.

    Raises:
        ValueError: a system, data set or seed that no cell has.
    """
    for argument, values in wanted.items():
        known = dict.fromkeys(map(COLUMNS[argument], cells))
        kept = [choice(argument, value, known) for value in values] or known
        cells = [cell for cell in cells if COLUMNS[argument](cell) in kept]
    return list(cells)


def survey(cells: Sequence[Cell], results: Path) -> list[Progress]:
    """Find the runs of cells below a folder, by their configs.

    Raises:
        RunFolderError: a run of another version, a cell's folder that holds another run, or two unfinished runs of
            one cell.
    """
    configs = {folder: read_config(folder) for folder in run_folders(results)}
    found: dict[Config, list[Path]] = {}
    for folder, config in configs.items():
        found.setdefault(_what(config), []).append(folder)
    return [_progress(cell, results / cell.name, found.get(_what(cell.config), []), configs) for cell in cells]


def work(
    cells: Sequence[Cell],
    results: Path,
    *,
    how: Mapping[str, Any] | None = None,
    data_dir: str | None = None,
    hours: float | None = None,
    limit: int | None = None,
    retry: bool = False,
    pool: cluster.Pool | None = None,
) -> list[Path]:
    """Train the cells that are not done, in order, and leave out those that other processes train.

    Args:
        cells: the plan, or a part of it.
        results: where the cells' folders are.
        how: values of HOW for runs that are begun; a run that is continued keeps its own.
        data_dir: where CIFAR is.
        hours: stop at the end of the epoch in which this time is over; one epoch is always trained.
        limit: train so many cells at most.
        retry: take the failed cells too.
        pool: where cells are trained; None: here, one after the other.

    Returns:
        The folders of the cells that failed.

    Raises:
        ValueError: bad arguments, a strategy or an input that the backend lacks, a process that is one of several of a
            run, what `survey` refuses, a data set that is not what it should be.
        OSError: a data set is nowhere to be found, or the disk is full: no fault of a cell, the next would fail too.
    """
    until = time.time() + 3600 * number("hours", hours, above=0) if hours is not None else None
    cells = [Cell(cell.system, resolve(dataclasses.replace(cell.config, **(how or {})))) for cell in cells]
    if strategy.variables_given():
        raise ValueError(
            "A plan is shared among processes that each train whole runs: start `run` in each without "
            f"{', '.join(strategy.VARIABLES)}. Received: {strategy.variables_given()}"
        )
    for cell in cells[:1]:  # `how` is one for all of them
        strategy.join(cell.config)
        if pool is None:  # a cluster's hosts have devices of their own
            strategy.check(cell.config)
            check_input(cell.config)
    takes = ("missing", "partial", "failed") if retry else ("missing", "partial")
    # A task elsewhere starts in another folder.
    data_dir = os.path.abspath(os.path.expanduser(data_dir)) if data_dir is not None else None
    pool = pool or cluster.Here()

    failed: list[Path] = []
    busy: list[Path] = []
    running: dict[Future[float | None], Progress] = {}
    checked: set[str] = set()
    trained, stopped = 0, False
    while True:
        stopped = stopped or (until is not None and time.time() >= until and trained + len(running) > 0)
        free = not stopped and (limit is None or trained + len(running) < limit) and len(running) < pool.slots()
        # Anew for every cell: other processes work too.
        taken = {*failed, *busy, *(progress.folder for progress in running.values())}
        waiting = [p for p in survey(cells, results) if p.state in takes and p.folder not in taken] if free else []
        if waiting:
            cell, folder = waiting[0].cell, waiting[0].folder
            print(f"\n{cell.name}: {folder}", flush=True)
            if cell.config.dataset not in checked:
                load(cell.config.dataset, data_dir)  # what is wrong with the data is no fault of the cell
                checked.add(cell.config.dataset)
            running[pool.start(cell.name, train, cell.config, folder.absolute(), data_dir, until, retry)] = waiting[0]
            continue
        if not running:
            return failed
        for task in wait(running, timeout=HOSTS_EVERY, return_when=FIRST_COMPLETED).done:
            progress = running.pop(task)
            trained += 1
            try:
                error = pool.result(task)
                if error is None:
                    failed.append(progress.folder)
                said = "failed" if error is None else f"top-1 error {error:.2%}"
            except RunBusyError as caught:
                busy.append(progress.folder)
                trained -= 1
                said = str(caught)
            except experiment.RunStoppedError as caught:
                stopped = True
                said = str(caught)
            except cluster.LostError as caught:
                said = f"failed: {caught}"
                try:
                    with locked(progress.folder):
                        note_failure(progress.folder, caught)
                    failed.append(progress.folder)
                except RunBusyError:  # another process goes on there
                    busy.append(progress.folder)
            print(f"{progress.cell.name}: {said}", flush=True)


def train(config: Config, folder: Path, data_dir: str | None, until: float | None, retry: bool) -> float | None:
    """Train a cell, or what is left of it.

    Args:
        config: the cell's, for a run that is begun.
        folder: the cell's.
        data_dir: where CIFAR is.
        until: stop at the end of the epoch in which this time is reached; seconds since 1970.
        retry: whether to try again what another process noted as failed meanwhile.

    Returns:
        The error; None if the cell failed: failed.json says why.

    Raises:
        RunBusyError: another process trains it.
        RunStoppedError: the time is over.
        ValueError: this process cannot run it: it lacks the input or the strategy.
        RunFolderError, OSError: it is no fault of the cell.
    """
    keras.utils.clear_session()
    with locked(folder):
        if is_failed(folder) and not retry:
            return None
        if (folder / "config.json").exists():
            config = read_config(folder)
        # What this process lacks is no fault of the cell either.
        strategy.join(config)
        strategy.check(config)
        check_input(config)
        try:
            metrics = experiment.run(
                config,
                folder,
                data_dir=data_dir,
                resume=True,
                stop=lambda: until is not None and time.time() >= until,
                held=True,
            )
        except (OSError, RunFolderError, experiment.RunStoppedError):
            raise
        except Exception as error:
            traceback.print_exc()
            note_failure(folder, error)
            return None
        return float(metrics["error"])


def status(found: Sequence[Progress]) -> str:
    """Counts, the cells that are neither done nor missing, and the hours left at the speed of the finished runs.

    Raises:
        RunFolderError: a finished run of another version.
    """
    lines = [f"{len(found)} cells: " + ", ".join(f"{_count(found, state)} {state}" for state in STATES)]
    for progress in found:
        if progress.state in ("running", "partial", "failed"):
            failure = f"  {_failure(progress.folder)}" if progress.state == "failed" else ""
            of = f"epoch {progress.epochs} of {progress.cell.config.epochs}"
            lines.append(f"{progress.state:8} {progress.cell.name}  {of}{failure}")
    speeds = [_seconds_an_image(progress.folder) for progress in found if progress.state == "done"]
    if speeds:
        left = sum(_images(p.cell.config) * ((p.cell.config.epochs or 0) - p.epochs) for p in found)
        lines.append(
            f"about {left * np.mean(speeds) / 3600:.1f} hours of one process left, "
            f"at the speed of the finished runs ({len(speeds)})"
        )
    return "\n".join(lines)


def _turn(cell: Cell) -> int:
    """Of the first setting: FIRST with seed 0, then its re-weighted ones with the other seeds, then the rest."""
    if cell.setting != SETTINGS[0]:
        return 3
    if cell.system not in FIRST:
        return 2
    return 0 if cell.config.seed == 0 else 1 if cell.config.method.endswith("-drw") else 2


def _what(config: Config) -> Config:
    return dataclasses.replace(config, **HOW)


def _progress(cell: Cell, own: Path, runs: Sequence[Path], configs: Mapping[Path, Config]) -> Progress:
    if own in configs and own not in runs:
        differing = differences(_what(configs[own]), _what(cell.config)).items()
        named = "; ".join(f"{name}: {there!r} there, {here!r} in the plan" for name, (there, here) in differing)
        raise RunFolderError(f"{own} holds another run than this cell of the plan ({named}).")
    finished = [folder for folder in runs if is_finished(folder)]
    if finished:
        return Progress(cell, "done", finished[0], cell.config.epochs or 0)
    if len(runs) > 1:
        raise RunFolderError(f"{runs[0]} and {runs[1]} hold unfinished runs of the same cell: remove one.")
    folder = runs[0] if runs else own
    if is_busy(folder):
        state = "running"
    elif is_failed(folder):
        state = "failed"
    else:
        state = "partial" if runs else "missing"
    return Progress(cell, state, folder, epochs_saved(folder))


def _count(found: Sequence[Progress], state: str) -> int:
    return sum(progress.state == state for progress in found)


def _failure(folder: Path) -> str:
    failure = read_json(folder, FAILED)
    return f"{failure.get('error')}: {failure.get('message')}"


def _seconds_an_image(folder: Path) -> float:
    metrics = read_json(folder, "metrics.json")
    try:
        return float(metrics["seconds"] / (metrics["epochs"] * sum(metrics["cls_counts"])))
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise RunFolderError(f"{folder} holds a run of another version: {error!r}.") from error


def _images(config: Config) -> int:
    return int(imbalanced_counts(*SIZES[config.dataset], config.imbalance, config.ratio).sum())


def _names(text: str) -> list[str]:
    return text.split(",")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = cli.parser("table", __doc__)
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    results = argparse.ArgumentParser(add_help=False)
    results.add_argument("--results", type=cli.path, default=Path("results"), metavar="DIR", help="default: results")
    part = argparse.ArgumentParser(add_help=False)
    part.add_argument("--systems", type=_names, default=[], metavar="A,B", help="only these, as `plan` names them")
    part.add_argument("--datasets", type=_names, default=[], metavar="A,B", help="only these: cifar10, cifar100")
    part.add_argument("--seeds", type=_names, default=[], metavar="A,B", help="only these: 0, 1, 2")
    commands.add_parser("plan", parents=[results, part], help="print the cells in order, and how far they are")
    commands.add_parser("status", parents=[results, part], help="count the cells, and estimate the time left")
    commands.add_parser("report", parents=[results], help="the command report on the same folder")
    run = commands.add_parser("run", parents=[results, part], help="train the cells that are not done")
    run.add_argument("--hours", type=float, metavar="H", help="stop at the end of the epoch in which H hours are over")
    run.add_argument("--cells", type=int, metavar="N", help="train N cells at most")
    run.add_argument("--retry", action="store_true", help="take the cells that failed, too")
    run.add_argument("--data-dir", type=cli.path, metavar="DIR", help="where CIFAR is, as for fit")
    backend.add_option(run)
    run.add_argument("--precision", default="float32", help=f"of runs that are begun: {', '.join(PRECISIONS)}")
    run.add_argument("--eval-every", type=int, default=1, metavar="N", help="of runs that are begun; default 1")
    run.add_argument("--input", default="host", help=f"of runs that are begun: {', '.join(INPUTS)}")
    run.add_argument("--strategy", default="none", help=f"of runs that are begun: {', '.join(STRATEGIES)}")
    cluster.add_options(run.add_argument_group("cluster"))
    return main


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status: 1 if a cell failed, 2 for an error, 130 after ctrl-C."""
    options = parser().parse_args(arguments)
    if options.command == "report":
        return report.main(["--runs", str(options.results)])
    try:
        cells = select(plan(), {name: getattr(options, name) for name in COLUMNS})
        if options.command == "run":
            backend.check(options.backend)
            cli.check_out(options.results)
            limit = options.cells if options.cells is None else integer("cells", options.cells, at_least=1)
            ray = options.ray
            cluster.check_options(ray, options.cpus, options.gpus)
            with cluster.connect(ray, options.cpus, options.gpus) if ray else contextlib.nullcontext() as pool:
                failed = work(
                    cells,
                    options.results,
                    how={name: getattr(options, name) for name in ("precision", "eval_every", "input", "strategy")},
                    data_dir=options.data_dir,
                    hours=options.hours,
                    limit=limit,
                    retry=options.retry,
                    pool=pool,
                )
            print()
            for folder in failed:
                print(f"failed: {folder}: {_failure(folder)}", file=sys.stderr)
        found = survey(cells, options.results)
        if options.command == "plan":
            for turn, progress in enumerate(found, 1):
                elsewhere = "" if progress.folder.name == progress.cell.name else f"  in {progress.folder}"
                print(f"{turn:3d}  {progress.state:8} {progress.cell.name}{elsewhere}")
        else:
            print(status(found))
    except KeyboardInterrupt:
        print("\nStopped. Every complete epoch is saved, and the same command continues.")
        return 130
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    return 1 if options.command == "run" and failed else 0
