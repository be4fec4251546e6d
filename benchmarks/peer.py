"""One contestant in a process of its own, which waits until it is told to time some steps.

TensorFlow and PyTorch in one process fight over the threads; as children that sleep between their turns they
can be measured in turn: A B C A B C.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).parent


class PeerError(RuntimeError):
    """A child ended without an answer."""


class Peer:
    """The parent's end of a child that runs `module.prepare(**options)` and times the function it returns."""

    def __init__(self, name: str, module: str, options: dict[str, Any], python: str = sys.executable) -> None:
        self.name = name
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), environment.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [python, str(HERE / "peer.py"), module, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ready(self) -> dict[str, Any]:
        """Wait for the child's warm-up: {"facts": ...}, or {"missing": the package}."""
        return self._answer()

    def time(self, steps: int) -> dict[str, float]:
        """Seconds a step of wall clock and of processor time, and the peak memory so far."""
        print(steps, file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(f"{self.name} ended with status {self.process.wait()}")
        return json.loads(line)


def main() -> None:
    """The child: `peer.py MODULE OPTIONS`; a number of steps on each line of stdin."""
    # Whatever a library prints goes to stderr: stdout is the parent's.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        step, facts = importlib.import_module(sys.argv[1]).prepare(**json.loads(sys.argv[2]))
        step()
    except ModuleNotFoundError as error:
        _send(answers, {"missing": error.name})
        return
    _send(answers, {"facts": facts})
    for line in sys.stdin:
        steps = int(line)
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(steps):
            step()
        seconds = (time.perf_counter() - wall) / steps
        _send(answers, {"seconds": seconds, "processor": (time.process_time() - processor) / steps, "peak": peak()})


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def _send(stream: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=stream, flush=True)


if __name__ == "__main__":
    main()
