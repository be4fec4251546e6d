"""Measure training on one GPU: the package on JAX, our own PyTorch beside it. On a CPU, `--quick` is a rehearsal.

Contestants take turns in processes of their own. The results are written after every turn: a run that is cut off loses
nothing. It needs JAX or PyTorch, and no TensorFlow.
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import subprocess
import sys
import threading
import time
from fnmatch import fnmatch
from pathlib import Path
from statistics import median
from typing import Any

from peer import HERE, Peer, PeerError
from run import hardware

EPOCHS, IMAGES = 200, 12_406  # of CIFAR-10, long-tailed 100:1, as the paper trains

# XLA's names of what it may record into a CUDA graph. An unknown flag ends the process, which is reported.
RECORDED = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"


@dataclasses.dataclass(frozen=True)
class Contestant:
    """What a `Peer` runs, in so many processes at once; `variables` are added to its environment."""

    module: str
    options: dict[str, Any]
    processes: int = 1
    variables: dict[str, str] = dataclasses.field(default_factory=dict)


def contestants(quick: bool) -> dict[str, Contestant]:
    """All of them, most wanted first. `quick` is tiny and only proves that everything runs."""
    depth, batch, largest = (8, 8, 6) if quick else (32, 128, 5000)

    def package(way: str, precision: str, runs: int = 1, processes: int = 1, flags: str = "") -> Contestant:
        options = {"way": way, "precision": precision, "depth": depth, "batch": batch, "largest_class": largest}
        # Several processes share the GPU: none may take its memory in advance.
        variables = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if flags:
            variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        return Contestant("device_step", {**options, "runs": runs}, processes, variables)

    def torch(bfloat16: bool, mode: str | None = None, compiled: bool = True) -> Contestant:
        options = {"channels_last": True, "bfloat16": bfloat16, "compiled": compiled, "mode": mode, "device": "auto"}
        steps = 2 if quick else math.ceil(IMAGES / batch)
        return Contestant("torch_step", {**options, "depth": depth, "batch": batch, "steps": steps})

    graphs, no_graphs = (f"--xla_gpu_enable_command_buffer={names}" for names in (RECORDED, ""))
    several = {
        f"tf_mmloss bfloat16, {runs} runs in one program": package("runs", "bfloat16", runs) for runs in (4, 8, 2)
    }
    together = {
        f"tf_mmloss bfloat16, a program an epoch, {n} processes": package("epoch", "bfloat16", processes=n)
        for n in (2, 3)
    }
    return {
        "tf_mmloss bfloat16, a program an epoch": package("epoch", "bfloat16"),
        "PyTorch bfloat16, compiled, CUDA graphs": torch(True, "reduce-overhead"),
        "tf_mmloss bfloat16, a program a step": package("device", "bfloat16"),
        "PyTorch bfloat16": torch(True, compiled=False),
        "tf_mmloss float32, a program an epoch": package("epoch", "float32"),
        "PyTorch float32, compiled, CUDA graphs": torch(False, "reduce-overhead"),
        **several,
        "tf_mmloss bfloat16, a program an epoch, all in CUDA graphs": package("epoch", "bfloat16", flags=graphs),
        "tf_mmloss bfloat16, a program an epoch, no CUDA graphs": package("epoch", "bfloat16", flags=no_graphs),
        **together,
        "tf_mmloss float32, a program a step": package("device", "float32"),
        "PyTorch float32": torch(False, compiled=False),
        "PyTorch bfloat16, compiled, max-autotune": torch(True, "max-autotune"),
        "tf_mmloss bfloat16, a program a step, all in CUDA graphs": package("device", "bfloat16", flags=graphs),
        "tf_mmloss float32, 4 runs in one program": package("runs", "float32", 4),
    }


class Busy:
    """The GPU's utilization as nvidia-smi tells it, five times a second; nothing where there is none."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0", "--loop-ms=200"]
        try:
            self.process = subprocess.Popen(["nvidia-smi", *query], stdout=subprocess.PIPE, text=True)
        except OSError:
            self.process = None
            return
        threading.Thread(target=self._read, daemon=True).start()

    def between(self, began: float, ended: float) -> list[float]:
        """Samples in percent of a span of `time.monotonic`."""
        return [value for moment, value in self.samples if began <= moment <= ended]

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()

    def _read(self) -> None:
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.samples.append((time.monotonic(), float(line)))


class Entrant:
    """A contestant's processes while they live, and its result."""

    def __init__(self, name: str, contestant: Contestant, python: str, result: dict[str, Any]) -> None:
        self.name, self.contestant, self.python, self.result = name, contestant, python, result
        self.peers: list[Peer] = []
        self.steps = 1

    def start(self, deadline: float) -> None:
        """Start, warm up, and note what it is."""
        c = self.contestant
        backend = "torch" if c.module == "torch_step" else "jax"
        began = time.monotonic()
        self.peers = [Peer(c.module, c.options, self.python, backend, c.variables) for _ in range(c.processes)]
        ready = [peer.ready(deadline - time.monotonic()) for peer in self.peers]
        self.result |= {**ready[0], "start_seconds": time.monotonic() - began}

    def turn(self, seconds: float, busy: Busy, deadline: float) -> None:
        """Train for about so long, and add the sample."""
        began = time.monotonic()
        for peer in self.peers:
            peer.begin(self.steps)
        answers = [peer.end(deadline - time.monotonic()) for peer in self.peers]
        ended = time.monotonic()
        slowest = max(answer["seconds"] for answer in answers)
        memory = [answer["device_memory"] for answer in answers]
        images = self.result["facts"]["images"] * self.contestant.processes
        sample = {
            "seconds": slowest,
            "images_per_second": images / slowest,
            "busy": busy.between(began, ended),
            "device_memory": None if None in memory else sum(memory),
        }
        self.result["samples"].append(sample)
        self.result["images_per_second"] = median(s["images_per_second"] for s in self.result["samples"])
        self.steps = max(1, round(seconds / slowest))

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.peers = []


def gpu() -> list[str]:
    """The GPUs as nvidia-smi tells them; none where there is none."""
    query = ["--query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm", "--format=csv,noheader"]
    try:
        done = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return done.stdout.strip().splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only proves that everything runs")
    parser.add_argument("--out", type=Path, default=HERE / "accelerator.json", help="where to write the results")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn, about")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="stop then, with what is measured")
    parser.add_argument("--only", action="append", metavar="NAME", help="a contestant's name, or a pattern; repeatable")
    parser.add_argument("--jax-python", default=sys.executable, help="interpreter that has JAX and Keras")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has PyTorch")
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    rounds, seconds = (2, 0.0) if args.quick else (args.rounds, args.seconds)
    report: dict[str, Any] = {
        "kind": "accelerator",
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": args.quick,
        "hardware": {**hardware(), "gpu": gpu()},
        "versions": {"python": platform.python_version()},
        "run": {"epochs": EPOCHS, "images": IMAGES},
        "rounds": 0,
        "contestants": {},
    }

    def write() -> None:
        for result in report["contestants"].values():
            report["versions"] |= result.get("facts", {}).get("versions", {})
        partial = args.out.with_name(f"{args.out.name}.partial")
        partial.write_text(json.dumps(report, indent=1) + "\n")
        os.replace(partial, args.out)

    write()
    busy, entrants = Busy(), []
    for name, contestant in contestants(args.quick).items():
        if not args.only or any(fnmatch(name, only) for only in args.only):
            python = args.torch_python if contestant.module == "torch_step" else args.jax_python
            result = {**dataclasses.asdict(contestant), "samples": []}
            report["contestants"][name] = result
            entrants.append(Entrant(name, contestant, python, result))
    try:
        for turn in range(rounds):
            for entrant in entrants:
                result = entrant.result
                if "missing" in result or "failed" in result or time.monotonic() > deadline:
                    continue
                try:
                    if not entrant.peers:
                        entrant.start(deadline)
                    if "missing" not in result:
                        entrant.turn(seconds, busy, deadline)
                        if not turn and seconds:  # the first turn was a single epoch, to know how many make a turn
                            result["samples"].clear()
                            entrant.turn(seconds, busy, deadline)
                except PeerError as error:
                    result["failed"] = str(error)
                if "missing" in result or "failed" in result:
                    entrant.close()
                write()
                speed = result.get("images_per_second")
                reason = result.get("failed") or f"{result.get('missing')} is missing"
                print(f"{entrant.name}: {f'{speed:,.0f} images/s' if speed else reason}", flush=True)
            report["rounds"] = turn + 1
        write()
    finally:
        busy.close()
        for entrant in entrants:
            entrant.close()


if __name__ == "__main__":
    main()
