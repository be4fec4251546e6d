"""Contestants in a process of their own, which waits until it is told to time some steps of one of them.

TensorFlow and PyTorch in one process fight over the threads; as children that sleep between their turns they
can be measured in turn: A B C A B C.
"""

import importlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).parent


class PeerError(RuntimeError):
    """A child ended without an answer."""


class Peer:
    """The parent's end of a child with some contestants: {name: (module, options of its `prepare`)}.

    The child has Keras' `backend`, and `variables` in its environment.
    """

    def __init__(
        self,
        contestants: dict[str, tuple[str, dict[str, Any]]],
        python: str = sys.executable,
        backend: str = "tensorflow",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend, **(variables or {})}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), environment.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [python, str(HERE / "peer.py"), json.dumps(contestants)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ready(self, timeout: float | None = None) -> dict[str, dict[str, Any]]:
        """Wait for the warm-up, the first step: {"facts", "warm_up": its seconds} of each contestant.

        One of which something is not installed says {"missing": what}.
        """
        return self._answer(timeout)

    def time(self, name: str, steps: int) -> dict[str, Any]:
        """Seconds a step by the clock and of the processor; peak memory so far, the device's too where it tells."""
        self.begin(name, steps)
        return self.end()

    def begin(self, name: str, steps: int) -> None:
        """The first half of `time`, for several children at once."""
        assert self.process.stdin is not None
        try:
            print(json.dumps([name, steps]), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            self._answer(None)

    def end(self, timeout: float | None = None) -> dict[str, Any]:
        """The second half."""
        return self._answer(timeout)

    def close(self) -> None:
        self.process.kill()  # libraries take their time to end
        self.process.communicate()

    def _answer(self, timeout: float | None) -> dict[str, Any]:
        assert self.process.stdout is not None
        # An answer is a line: what is there to read is all of it.
        if timeout is not None and not select.select([self.process.stdout], [], [], max(timeout, 0))[0]:
            raise PeerError("a contestant took too long")
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(f"a contestant ended with status {self.process.wait()}")
        return json.loads(line)


def main() -> None:
    """The child: contestants as its argument, then [name, steps] on each line of stdin."""
    # Whatever a library prints goes to stderr: stdout is the parent's.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    steps_of, memory_of, facts = {}, {}, {}
    for name, (module, options) in json.loads(sys.argv[1]).items():
        try:
            imported = importlib.import_module(module)
            steps_of[name], found = imported.prepare(**options)
        except ModuleNotFoundError as error:
            facts[name] = {"missing": error.name}
            continue
        memory_of[name] = getattr(imported, "device_memory", lambda: None)
        began = time.perf_counter()
        steps_of[name]()
        facts[name] = {"facts": found, "warm_up": time.perf_counter() - began}
    _send(answers, facts)
    for line in sys.stdin:
        name, steps = json.loads(line)
        step = steps_of[name]
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(steps):
            step()
        seconds, used = time.perf_counter() - wall, time.process_time() - processor
        answer = {"seconds": seconds / steps, "processor": used / steps, "peak": peak()}
        _send(answers, {**answer, "device_memory": memory_of[name]()})


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def _send(stream: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=stream, flush=True)


if __name__ == "__main__":
    main()
