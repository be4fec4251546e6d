"""Search the options of a loss on held-out training images, with Keras Tuner.

    tf-mmloss tune --dataset cifar10 --ratio 100 --over beta=1.0:2.0 --trials 10
    tf-mmloss tune --over beta=1.4,1.5,1.6 --over delta_neg=0.5,0.6 --search grid
    tf-mmloss tune --dataset cifar100 --imbalance step --over tables-2-and-3
    tf-mmloss tune --dataset digits --ratio 20 --epochs 20 --over beta=1:2 --over scale=5:30 --trials 6
    tf-mmloss tune --over beta=1.0:2.0 --trials 20 --workers 2
    tf-mmloss tune --over beta=1.0:2.0 --trials 20 --workers 8 --ray auto

--over NAME=LOW:HIGH searches a range, NAME=A,B,C the values given; NAME is an option of the method's loss: beta,
delta_neg, scale, class_margin, ... --over tables-2-and-3 is the paper's grid over beta for the data set. Images of
every class are held out of the training split before it is made imbalanced, and the test split is never looked at.
Each trial is a run folder like any other. The same command continues a search that was stopped.

--workers N shares the search among N processes of this machine, with Keras Tuner's chief; with --ray, of the hosts of a
Ray cluster, which share a file system. Without Ray, on several machines with one file system, give the command to each
with KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT set to the chief's, and KERASTUNER_TUNER_ID to "chief" on one and
to a name of its own on every other.
"""

import argparse
import contextlib
import csv
import dataclasses
import io
import itertools
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import keras_tuner

from tf_mmloss import NonFiniteLossError, cli, methods
from tf_mmloss._validation import choice, integer
from tf_mmloss._validation import path as checked_path
from tf_mmloss.cli import backend, fit
from tf_mmloss.data.decoders import processors
from tf_mmloss.datasets import ImageDataset
from tf_mmloss.files import atomic_path, remove_partial, write_json
from tf_mmloss.runs import folder as run_folder
from tf_mmloss.runs import plots
from tf_mmloss.train import cluster, experiment, inputs, presets, progress, resolve
from tf_mmloss.train.config import Config

SEARCHES = ("bayesian", "random", "grid")
COMMAND = (sys.executable, "-P", "-m", "tf_mmloss", "tune")  # -P: nothing of the current folder is imported
# What a finished search leaves, beside its trials and Keras Tuner's state.
TABLE = ("trials.csv", "search.svg", "search.png")
# Of one command: each is a process with a framework of its own.
MAX_WORKERS = 1000


@dataclasses.dataclass(frozen=True)
class Dimension:
    """An option and the values to search: a range if `high` is set, else those given."""

    name: str
    values: tuple[float | str, ...] = ()
    low: float | None = None
    high: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Dimension":
        """Read NAME=LOW:HIGH or NAME=A,B,C.

        Raises:
            ValueError: another form, an unknown option, or LOW not below HIGH.
        """
        name, _, values = text.partition("=")
        name = choice("over", name.replace("-", "_"), methods.loss_options())
        try:
            if ":" in values:
                low, high = map(float, values.split(":"))
                if not low < high:
                    raise ValueError
                return cls(name, low=low, high=high)
            if any(option.type is str for option in methods.loss_options()[name].values()):
                return cls(name, tuple(values.split(",")))
            return cls(name, tuple(float(value) for value in values.split(",")))
        except ValueError:
            raise ValueError(f"`over` must be NAME=LOW:HIGH or NAME=A,B,C. Received: over={text!r}") from None


def ablation(config: Config) -> Dimension:
    """The grid of the paper's Tables 2 and 3 for the data set of a config.

    Raises:
        ValueError: a data set that is not in the tables.
    """
    setting = (config.dataset, config.imbalance, config.ratio)
    if setting not in presets.ABLATION_BETAS:
        known = "; ".join(f"{d} {i} {r}" for d, i, r in presets.ABLATION_BETAS)
        raise ValueError(f"`over` tables-2-and-3 is for {known}. Received: {setting[0]} {setting[1]} {setting[2]:g}")
    return Dimension("beta", presets.ABLATION_BETAS[setting])


class _Recorded(keras_tuner.Oracle):
    """Base of the oracles: its files are whole at every moment, and are believed only where they can be true.

    Keras Tuner writes its files in place, and a trial's before its own: what a kill leaves cannot be read, or has a
    trial that is never run.
    """

    def save(self) -> None:
        write_json(Path(self._get_oracle_fname()), self.get_state())

    def _save_trial(self, trial: Any) -> None:
        folder = Path(self._project_dir) / f"trial_{trial.trial_id}"
        _own_folder(folder).mkdir(exist_ok=True)
        write_json(folder / "trial.json", trial.get_state())

    def reload(self) -> None:
        root = Path(self._project_dir)
        try:
            state = run_folder.read_json(root, "oracle.json")
            self._reload(root, state)
        except Exception as error:  # it may hold anything
            reason = (
                str(error) if isinstance(error, run_folder.RunFolderError) else f"{root / 'oracle.json'} is damaged."
            )
            raise run_folder.RunFolderError(
                f"{reason} Without {root} the search begins anew, and takes its finished trials as they are."
            ) from error

    def _reload(self, root: Path, state: dict[str, Any]) -> None:
        self._check_space(root / "oracle.json", state["hyperparameters"])
        # A trial that is not in the order was begun by a process that died before it was recorded: it is begun again.
        self.trials = {trial_id: self._read_trial(root, trial_id) for trial_id in state["start_order"]}
        if len(self.trials) < len(state["start_order"]):
            raise run_folder.RunFolderError(f"{root / 'oracle.json'} is damaged: it has a trial twice.")
        finished = [trial_id for trial_id, trial in self.trials.items() if trial.status != "RUNNING"]
        ended = [trial_id for trial_id in dict.fromkeys(state["end_order"]) if trial_id in finished]
        begun = [trial_id for trial_id in self.trials if trial_id not in finished]
        self.set_state(
            {
                **state,
                "ongoing_trials": {},
                # One that ended is counted only when the oracle's own file is written, after the trial's.
                "run_times": {**dict.fromkeys(finished, 1), **state["run_times"]},
                "end_order": [*ended, *(trial_id for trial_id in finished if trial_id not in ended)],
                "retry_queue": begun[::-1],  # taken from its end
            }
        )

    def _check_space(self, path: Path, there: dict[str, Any]) -> None:
        space = json.loads(json.dumps(self.hyperparameters.get_config()["space"]))
        if there["space"] != space or not set(there["values"]) <= {p["config"]["name"] for p in space}:
            raise run_folder.RunFolderError(f"{path} is damaged: it is not of the options that are searched.")
        if not all(isinstance(value, (int, float, str)) for value in there["values"].values()):
            raise run_folder.RunFolderError(f"{path} is damaged: it has values that are neither number nor name.")

    def _read_trial(self, root: Path, trial_id: str) -> Any:
        if not isinstance(trial_id, str) or not re.fullmatch("[0-9]{1,9}", trial_id):
            raise run_folder.RunFolderError(f"{root / 'oracle.json'} is damaged: {trial_id!r:.100} is no trial.")
        folder = _own_folder(root / f"trial_{trial_id}")
        path = folder / "trial.json"
        state = run_folder.read_json(folder, path.name)
        try:
            self._check_space(path, state["hyperparameters"])
            trial = keras_tuner.engine.trial.Trial.from_state(state)
            scored = trial.status != "COMPLETED" or math.isfinite(trial.score)
            if trial.trial_id != trial_id or trial.status not in ("RUNNING", "COMPLETED", "FAILED") or not scored:
                raise run_folder.RunFolderError(f"{path} is damaged: its number, status or score cannot be.")
        except run_folder.RunFolderError:
            raise
        except Exception as error:
            raise run_folder.RunFolderError(f"{path} is damaged: {type(error).__name__}: {error}.") from error
        return trial


class BayesianOracle(_Recorded, keras_tuner.oracles.BayesianOptimizationOracle):
    """Keras Tuner's, see `_Recorded`."""


class RandomOracle(_Recorded, keras_tuner.oracles.RandomSearchOracle):
    """Keras Tuner's, see `_Recorded`."""


class GridOracle(_Recorded):
    """Every combination of the values, in order: trial N is the N-th.

    Keras Tuner's own does not save where it stands: a continued search would leave combinations out, or fail.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        names = [parameter.name for parameter in self.get_space().space]
        grid = itertools.product(*(parameter.values for parameter in self.get_space().space))
        row = next(itertools.islice(grid, int(trial_id), None), None)
        if row is None:
            return {"status": keras_tuner.engine.trial.TrialStatus.STOPPED}
        return {"status": keras_tuner.engine.trial.TrialStatus.RUNNING, "values": dict(zip(names, row, strict=True))}


class RunTuner(keras_tuner.engine.base_tuner.BaseTuner):
    """Keras Tuner over runs: each trial is a run folder like any other."""

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        config: Config,
        root: Path,
        data_dir: str | None,
        data: ImageDataset | None = None,
    ) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it is reloaded, also with --json and --quiet
            super().__init__(oracle, directory=str(root), project_name="tuner")
        self.config, self.root, self.data_dir, self.data = config, root, data_dir, data
        # A search that other processes began is reloaded too: Keras Tuner looks for a file of this one's name.
        if not self._is_worker() and not oracle.trials and Path(oracle._get_oracle_fname()).exists():
            self.reload()

    def save(self) -> None:
        if not self._is_worker():
            self.oracle.save()
        path = Path(self._get_tuner_fname())
        remove_partial(path.parent, {path.name})
        write_json(path, self.get_state())

    def reload(self) -> None:
        if not self._is_worker():
            self.oracle.reload()

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        chosen = trial.hyperparameters.values
        progress.tell(f"trial {trial.trial_id}: {chosen}")
        config, folder = dataclasses.replace(self.config, **chosen), self.root / f"trial-{trial.trial_id}"
        try:
            _own_folder(folder)
            metrics = experiment.run(config, folder, data_dir=self.data_dir, resume=True, data=self.data)
            return {"error": metrics["error"]}
        except NonFiniteLossError as error:
            progress.tell(str(error), "error")
            return {"error": 1.0}
        except (ValueError, OSError) as error:  # no fault of these values: another try would not help
            raise keras_tuner.errors.FatalRuntimeError(str(error)) from error


def search(
    config: Config,
    dimensions: list[Dimension],
    folder: str | os.PathLike[str],
    *,
    kind: str = "bayesian",
    trials: int | None = None,
    data_dir: str | None = None,
    data: ImageDataset | None = None,
) -> list[dict[str, Any]]:
    """Run or continue a search, and leave its table and plot.

    Args:
        config: what all trials share; `holdout` must be set.
        dimensions: the options searched.
        folder: trials go to FOLDER/trial-N, Keras Tuner's state to FOLDER/tuner, the table to FOLDER/trials.csv.
        kind: "bayesian", "random" or "grid".
        trials: number of trials at most. Default: 10; of a grid, all combinations.
        data_dir: where CIFAR is.
        data: images of one's own, if they are loaded already.

    Returns:
        The table, best trial first: trial, the searched options, held-out error; without trials that ended in an
        error. Empty in a worker of a shared search (see the top of this file): its chief has the table.

    Raises:
        ValueError: an unknown search, no dimension, one that the config fixes, no holdout, a grid over a range, a
            config that cannot be run, or a folder that holds another search.
        RuntimeError: no trial was finished.
    """
    choice("search", kind, SEARCHES)
    if trials is None:
        trials = math.prod(len(d.values) for d in dimensions) if kind == "grid" else 10
    resolve.check_holdout(config, at_least=1)
    if data is None and config.is_own:
        data = inputs.load(config, data_dir)
    config = _with_setting(config, data)
    if not dimensions or len({d.name for d in dimensions}) < len(dimensions):
        raise ValueError(f"`over` must name at least one option, each once. Received: {[d.name for d in dimensions]}")
    if kind == "grid" and any(d.high is not None for d in dimensions):
        raise ValueError("`search` grid needs values, NAME=A,B,C, for every option.")
    integer("trials", trials, at_least=1)
    for name in (d.name for d in dimensions):
        if getattr(config, name) is not None:
            raise ValueError(f"`over` must not search what is given. Received: {name}={getattr(config, name)!r}")
    for dimension in dimensions:  # every bound must be a config that can be run
        for value in dimension.values or (dimension.low, dimension.high):
            change: dict[str, Any] = {dimension.name: value}
            resolve.resolve(dataclasses.replace(config, **change), data)

    root = checked_path("folder", folder)
    space = keras_tuner.HyperParameters()
    for d in dimensions:
        if d.high is None:
            space.Choice(d.name, list(d.values))
        else:
            space.Float(d.name, d.low, d.high)
    oracles = {
        "bayesian": BayesianOracle,
        "random": RandomOracle,
        "grid": GridOracle,
    }
    objective = keras_tuner.Objective("error", "min")
    seed = config.seed + 1  # Keras Tuner takes 0 for none
    oracle = oracles[kind](objective=objective, max_trials=trials, hyperparameters=space, seed=seed)

    # Refuses what cannot be split before the folder is taken.
    inputs.split(inputs.load(config, data_dir) if data is None else data, config)
    over = [dataclasses.asdict(d) for d in dimensions]
    same = {"config": config.values(), "over": over, "search": kind}
    with contextlib.nullcontext() if _is_worker() else run_folder.locked(root):
        _check_folder(root, same | ({"fingerprint": data.fingerprint} if data is not None else {}))
        tuner = RunTuner(oracle, config, root, data_dir, data)
        tuner.save()
        tuner.search(verbose=0)
        if _is_worker():
            return []
        table = [
            {"trial": trial.trial_id, **trial.hyperparameters.values, "error": trial.score}
            for trial in oracle.trials.values()
            if trial.status == "COMPLETED"
        ]
        if failed := [trial_id for trial_id, trial in oracle.trials.items() if trial.status == "FAILED"]:
            why = f"ended in an error, see trial.json of each in {root / 'tuner'}"
            if not table:
                raise RuntimeError(f"no trial was finished: {', '.join(failed)} {why}.")
            progress.tell(f"trials {', '.join(failed)} {why}: they are not in the table", "error")
        table.sort(key=lambda row: (row["error"], row["trial"]))
        _write_table(root / TABLE[0], table)
        plots.search(table, root / Path(TABLE[1]).stem, title=_title(config))
        return table


def _title(config: Config) -> str:
    margin_space = config.values()["margin_space"]
    space = f", margin space {margin_space}" if margin_space else ""
    epochs = f", {config.epochs} epochs" if config.epochs else ""
    return f"{run_folder.data_label(vars(config))}: {run_folder.method_label(config.method)}{space}{epochs}"


def _with_setting(config: Config, data: ImageDataset | None) -> Config:
    """The config with its training set named in full."""
    resolved = resolve.resolve(config, data)
    return dataclasses.replace(config, imbalance=resolved.imbalance, ratio=resolved.ratio)


def share(arguments: list[str], workers: int, pool: cluster.Pool | None = None) -> int:
    """Run the command in a chief on this machine and in some workers.

    Args:
        arguments: of the command.
        workers: their number.
        pool: where the workers run; None: on this machine too.

    Returns:
        The exit status: the first that is not 0.

    Raises:
        ValueError: more workers than the pool can run at a time.
        LostError: a worker died too often.
    """
    if pool and workers > pool.slots():
        raise ValueError(f"`workers` must be at most {pool.slots()}, which the hosts can run. Received: {workers}")
    host = pool.host if pool else "127.0.0.1"
    with socket.create_server((host, 0)) as server:
        address = {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": str(server.getsockname()[1])}
    environment = {**os.environ, **address}
    environment.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, processors() // workers)))
    processes: list[subprocess.Popen[bytes]] = []
    tasks: list[Future[int]] = []
    # A scheduler's stop ends the processes too.
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        for name in ("chief", *(f"worker{i}" for i in range(workers))):
            own = {"KERASTUNER_TUNER_ID": name}
            if pool and name != "chief":
                tasks.append(pool.start(name, main, arguments, environment=address | own))
            else:
                command = [*COMMAND, *arguments]
                processes.append(subprocess.Popen(command, env=environment | own))
        while True:
            codes = [process.poll() for process in processes]
            if pool:
                codes += [pool.result(task) if task.done() else None for task in tasks]
            failed = [code for code in codes if code]
            if failed or None not in codes:
                return failed[0] if failed else 0
            time.sleep(0.2)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        signal.signal(signal.SIGTERM, previous)


def _is_worker() -> bool:
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" not in os.environ["KERASTUNER_TUNER_ID"]


def _own_folder(folder: Path) -> Path:
    """A folder of the search.

    Raises:
        RunFolderError: something else is there; a link might lead elsewhere.
    """
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise run_folder.RunFolderError(f"{folder} is no folder of a search: it is a link or no folder.")
    return folder


def _check_folder(root: Path, search: dict[str, Any]) -> None:
    _own_folder(root / "tuner")
    path = root / "search.json"
    if path.exists() and run_folder.read_json(root, path.name) != json.loads(json.dumps(search)):
        raise ValueError(f"{root} holds another search (see {path.name} there): choose another --out.")
    if _is_worker():  # the rest is the chief's, which alone holds the folder's lock
        return
    remove_partial(root, {path.name, *TABLE})
    remove_partial(root / "tuner", {"oracle.json"})
    for trial in (root / "tuner").glob("trial_*"):
        if not trial.is_symlink():
            remove_partial(trial, {"trial.json"})
    write_json(path, search)


def _write_table(path: Path, table: list[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        fit.open_method(arguments)
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    parser = cli.parser("tune", __doc__, argument_default=argparse.SUPPRESS)
    group = parser.add_argument_group("search")
    group.add_argument("--over", action="append", metavar="NAME=VALUES", help="what to search; default of MM beta=1:2")
    group.add_argument("--search", help="bayesian (default), random or grid")
    group.add_argument("--trials", type=int, default=None, help="at most; default 10; of a grid all combinations")
    group.add_argument("--workers", type=int, default=1, help="processes that share the search; default 1")
    group.add_argument(
        "--out", type=cli.path, metavar="DIR", help="the search's folder; default: runs/tune- and a name"
    )
    group.add_argument("--data-dir", type=cli.path, metavar="DIR", help="where CIFAR is, as for fit")
    backend.add_option(group)
    cli.add_progress_options(parser)
    cluster.add_options(parser.add_argument_group("cluster"))
    fit.add_config_options(parser)
    options = vars(parser.parse_args(arguments))
    with progress.shown(options.pop("how", "lines")):
        return _run(options, arguments)


def _default_over(config: Config) -> str:
    """What is searched where nothing is said.

    Raises:
        ValueError: a method that is not of MM: its options must be named.
    """
    method = methods.find(config.method)
    if method.loss != "MaxMarginLoss":
        known = dict.fromkeys(name for loss in method.losses for name in methods.signature(loss).options)
        raise ValueError(
            f"`over` must be given for method {config.method}: --over NAME=LOW:HIGH or NAME=A,B,C, of "
            f"{', '.join(known)}. Received: None"
        )
    return "beta=1:2"


def _run(options: dict[str, Any], arguments: list[str]) -> int:
    """Run the command with its options, of which `arguments` are the words."""
    workers, (ray, cpus, gpus) = options.pop("workers"), (options.pop(name) for name in ("ray", "cpus", "gpus"))
    over, kind, trials = options.pop("over", None), options.pop("search", None), options.pop("trials")
    out, data_dir, chosen = (options.pop(name, None) for name in ("out", "data_dir", "backend"))
    try:
        backend.check(chosen)
        cluster.check_options(ray, cpus, gpus)
        if out:
            cli.check_out(out)  # before images of one's own are read
        config = dataclasses.replace(Config(), **options)
        if over is None:
            over = [_default_over(config)]
        dimensions = [] if over == ["tables-2-and-3"] else [Dimension.parse(text) for text in over]
        data = inputs.load(config, data_dir) if config.is_own else None
        if data is not None:
            progress.tell("\n".join(data.report))
        if "holdout" in options:
            resolve.check_holdout(config, at_least=1)
        else:
            config = dataclasses.replace(config, holdout=resolve.holdout(config, data))
        config = _with_setting(config, data)
        if over == ["tables-2-and-3"]:
            if choice("search", kind or "grid", SEARCHES) != "grid":
                raise ValueError(f"`search` must be grid with --over tables-2-and-3, or left out. Received: {kind}")
            dimensions, kind = [ablation(config)], "grid"
        folder = out or Path(f"runs/tune-{config.name}")
        cli.check_out(folder)
        is_part = "KERASTUNER_ORACLE_IP" in os.environ
        if (integer("workers", workers, at_least=1, at_most=MAX_WORKERS) > 1 or ray) and not is_part:
            # A worker elsewhere starts in another folder.
            places = {"--out": folder, **({"--data-dir": data_dir} if data_dir else {})}
            there = [f"{option}={place.absolute()}" for option, place in places.items()]
            with cluster.connect(ray, cpus, gpus) if ray else contextlib.nullcontext() as pool:
                return share([*arguments, *there], workers, pool)
        table = search(config, dimensions, folder, kind=kind or "bayesian", trials=trials, data_dir=data_dir, data=data)
        if not table:
            return 0
    except KeyboardInterrupt:
        progress.tell("\nStopped. The same command continues the search.", "stopped")
        return 130
    except (*cli.USER_ERRORS, RuntimeError) as error:
        return cli.failed(error)
    names = list(table[0])
    lines = ["\n" + "  ".join(f"{name:>10}" for name in names)]
    for row in table:
        cells = (
            f"{row[name]:.2%}"
            if name == "error"
            else f"{row[name]:.4g}"
            if isinstance(row[name], float)
            else str(row[name])
            for name in names
        )
        lines.append("  ".join(f"{cell:>10}" for cell in cells))
    lines.append(f"Held-out error, best first. Everything is in {folder}")
    progress.tell("\n".join(lines), "result", folder=folder, trials=table)
    return 0
