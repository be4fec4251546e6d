"""Function calls as tasks: here, one after the other, or on the hosts of a Ray cluster, many at a time.

Ray is imported when a cluster is asked for: `pip install "tf-mmloss[cluster]"`. Its hosts share a file system, on which
this checkout, the run folders and the data have the same paths everywhere; nothing is uploaded. A task is a process of
its own, so that its memory is given back and Keras begins anew.
"""

import contextlib
import importlib
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import keras

from tf_mmloss._validation import integer, number

# How often a task is begun again whose process or host died, and the seconds that a stop waits for the tasks.
RETRIES = 3
PATIENCE = 20
# Ray counts resources in ten-thousandths.
LEAST_GPUS = 1e-4


class LostError(RuntimeError):
    """The process or the host of a task died, more often than RETRIES."""


class Pool(Protocol):
    """Where tasks run. `host` is its address for the tasks."""

    host: str

    def slots(self) -> int:
        """The number of tasks that can run at a time."""

    def start(
        self, name: str, function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None
    ) -> Future[Any]:
        """Call a module's function as the task `name`, in the current folder, with more environment variables."""

    def result(self, task: Future[Any]) -> Any:
        """What a task that is over returned or raised.

        Raises:
            LostError: nothing, because it died.
        """


class Here:
    """A `Pool` of one: `start` returns when the call, in this process, is over."""

    host = "127.0.0.1"

    def slots(self) -> int:
        return 1

    def start(
        self, name: str, function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None
    ) -> Future[Any]:
        task: Future[Any] = Future()
        try:
            task.set_result(function(*arguments))
        except Exception as error:
            task.set_exception(error)
        return task

    def result(self, task: Future[Any]) -> Any:
        return task.result()


class RayPool:
    """A `Pool` of the hosts of a Ray cluster to which this process is connected."""

    def __init__(self, cpus: int, gpus: float) -> None:
        import ray

        self.cpus, self.gpus, self.host = cpus, gpus, ray.util.get_node_ip_address()
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES, max_calls=1)(_call)
        self._tasks: dict[Any, Future[Any]] = {}

    def slots(self) -> int:
        import ray

        return sum(_fits(node["Resources"], self.cpus, self.gpus) for node in ray.nodes() if node["Alive"])

    def start(
        self, name: str, function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None
    ) -> Future[Any]:
        variables = {"env_vars": {**self._variables(), **(environment or {})}}
        reference = self._remote.options(name=name, runtime_env=variables).remote(
            os.getcwd(), function.__module__, function.__name__, *arguments
        )
        self._tasks[reference] = task = reference.future()
        return task

    def result(self, task: Future[Any]) -> Any:
        import ray

        try:
            return task.result()
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            first_line = str(error).partition("\n")[0]
            raise LostError(f"The task's process or host died {RETRIES + 1} times: {first_line}") from error

    def stop(self) -> None:
        """Interrupt the tasks that are not over, as ctrl-C does, and wait for them."""
        import ray

        left = [reference for reference, task in self._tasks.items() if not task.done()]
        for reference in left:
            ray.cancel(reference)
        if left:
            ray.wait(left, num_returns=len(left), timeout=PATIENCE)

    def _variables(self) -> dict[str, str]:
        """Where the code is, Keras' backend, as many threads as CPUs, and memory for the others on a shared GPU.

        Of the last two, what the command's own environment says wins.
        """
        threads = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "NPROC")  # of TensorFlow, OpenMP, and XLA on a CPU
        shared = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        wanted = dict.fromkeys(threads, str(self.cpus)) | (shared if 0 < self.gpus < 1 else {})
        folders = [str(Path(__file__).parents[2])]
        return {
            "KERAS_BACKEND": keras.backend.backend(),
            "PYTHONPATH": os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a task that was given no GPU sees none
            **{name: os.environ.get(name, value) for name, value in wanted.items()},
        }


@contextlib.contextmanager
def connect(address: str, cpus: int | None = None, gpus: float | None = None) -> Iterator[RayPool]:
    """Connect to a Ray cluster, and stop the tasks and leave it when the block is over.

    Args:
        address: HOST:PORT; "auto" for the cluster that this host belongs to; "local" for one of this machine alone
            that is started now and ends with the block.
        cpus: CPUs of a task, and its threads.
        gpus: GPUs of a task: a whole number, or a fraction for tasks that share one. None: 1 where a host has any,
            else 0.

    Raises:
        ValueError: Ray is not installed, bad arguments, or no host has so many CPUs and GPUs.
        ConnectionError: no cluster answers at the address.
    """
    cpus = integer("cpus", 1 if cpus is None else cpus, at_least=1)
    if gpus is not None and number("gpus", gpus, at_least=0) > 1 and gpus % 1:
        raise ValueError(f"`gpus` above 1 must be a whole number. Received: gpus={gpus!r}")
    if gpus is not None and 0 < gpus < LEAST_GPUS:
        raise ValueError(f"`gpus` must be 0 or >= {LEAST_GPUS:g}, Ray's unit. Received: gpus={gpus!r}")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # epochs of several runs look alike
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # no end, otherwise
    try:
        import ray
    except ImportError:
        raise ValueError('`ray` needs Ray: pip install "tf-mmloss[cluster]"') from None
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 80 * 2**20} if address == "local" else {}
    ray.init(_answering(address), logging_level=logging.WARNING, **own)
    try:
        hosts = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if gpus is None:
            gpus = 1 if any(host.get("GPU", 0) for host in hosts) else 0
        pool = RayPool(cpus, gpus)
        if not pool.slots():
            have = "; ".join(f"{host.get('CPU', 0):g} CPUs, {host.get('GPU', 0):g} GPUs" for host in hosts)
            raise ValueError(f"No host of the cluster has {cpus} CPUs and {gpus:g} GPUs for a task, but {have}.")
        try:
            yield pool
        finally:
            pool.stop()
    finally:
        ray.shutdown()


def check_options(ray: str | None, cpus: int | None, gpus: float | None) -> None:
    """Refuse `--cpus` and `--gpus` without `--ray`."""
    for name, value in (("cpus", cpus), ("gpus", gpus)):
        if ray is None and value is not None:
            raise ValueError(f"`{name}` is an option of a cluster, which needs --ray. Received: {name}={value}")


def add_options(parser: Any) -> None:
    """Add `--ray`, `--cpus` and `--gpus` to a command."""
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        default=None,
        metavar="ADDRESS",
        help="work on a Ray cluster: HOST:PORT or auto; without an address on one of this machine",
    )
    parser.add_argument("--cpus", type=int, default=None, metavar="N", help="with --ray: CPUs of a run; default 1")
    parser.add_argument(
        "--gpus",
        type=float,
        default=None,
        metavar="F",
        help="with --ray: GPUs of a run, 0.5 for two runs on each; default 1 where there are any",
    )


def _call(folder: str, module: str, function: str, *arguments: Any) -> Any:
    """Call a module's function in the folder in which the command was given, where paths without a root begin."""
    with contextlib.suppress(OSError):  # a host that has no such folder can do what is named in full
        os.chdir(folder)
    return getattr(importlib.import_module(module), function)(*arguments)


def _answering(address: str) -> str:
    """An address that something answers at: Ray tries for minutes, and ends the process then."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    if address in ("local", "auto"):  # Ray looks for its own processes, and says so if there are none
        return address
    found = re.fullmatch(r"(?:\[[^]]+]|[^:/]+):(\d{1,5})", address)
    if not found or int(found[1]) > 65535:  # the system takes a larger one by its last 16 bits
        raise ValueError(f"`ray` must be auto or HOST:PORT. Received: ray={address!r}")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise ConnectionError(f"No Ray cluster answers at {address}: {error}") from None
    return address


def _fits(resources: Mapping[str, float], cpus: int, gpus: float) -> int:
    """The number of tasks that fit on a host."""
    fit = int(resources.get("CPU", 0) // cpus)
    if gpus:
        have = int(resources.get("GPU", 0))
        fit = min(fit, have * int(1 / gpus + 1e-6) if gpus < 1 else have // int(gpus))
    return fit
