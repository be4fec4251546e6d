"""A contestant in a process of its own, which waits until it is told to time some steps.

In one process TensorFlow and PyTorch fight over the threads, and one contestant's use of memory changes the speed of
the next; as children that sleep between their turns they can be measured in turn: A B C A B C.
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
    """The parent's end of a child that has the steps of `module.prepare(**options)`: a function, or several by name.

    The child has Keras' `backend`, and `variables` in its environment.
    """

    def __init__(
        self,
        module: str,
        options: dict[str, Any],
        python: str = sys.executable,
        backend: str = "tensorflow",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend, **(variables or {})}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), environment.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [python, str(HERE / "peer.py"), module, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ready(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the warm-up, the first step: {"facts", "warm_up": its seconds}.

        Or {"missing": what is not installed}.
        """
        return self._answer(timeout)

    def time(self, steps: int, name: str = "") -> dict[str, Any]:
        """What a step takes: seconds by the clock and of the processor, page faults; the peak of the memory so far.

        The device's too where it tells. `name` is that of the function, where there are several.
        """
        self.begin(steps, name)
        return self.end()

    def begin(self, steps: int, name: str = "") -> None:
        """The first half of `time`, for several children at once."""
        assert self.process.stdin is not None
        try:
            print(steps, name, file=self.process.stdin, flush=True)
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
    """The child: module and options as its arguments, then a number of steps, and of which, on each line of stdin."""
    # Whatever a library prints goes to stderr: stdout is the parent's.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        module = importlib.import_module(sys.argv[1])
        prepared, facts = module.prepare(**json.loads(sys.argv[2]))
    except ModuleNotFoundError as error:
        _send(answers, {"missing": error.name})
        return
    functions = prepared if isinstance(prepared, dict) else {"": prepared}
    began = time.perf_counter()
    for step in functions.values():
        step()
    _send(answers, {"facts": facts, "warm_up": time.perf_counter() - began})
    device_memory, peak_of = getattr(module, "device_memory", lambda: None), getattr(module, "peak", peak)
    for line in sys.stdin:
        number, _, name = line.strip().partition(" ")
        steps, step = int(number), functions[name]
        faults_before = _used().ru_minflt
        wall, processor = time.perf_counter(), _processor()
        for _ in range(steps):
            step()
        seconds, used = time.perf_counter() - wall, _processor() - processor
        faults = (_used().ru_minflt - faults_before) / steps
        answer = {"seconds": seconds / steps, "processor": used / steps, "page_faults": faults, "peak": peak_of()}
        _send(answers, {**answer, "device_memory": device_memory()})


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return _used().ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def use_threads(threads: int) -> None:
    """Have Keras' backend compute with so many threads; call it before anything is computed."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    elif keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(threads)
    else:
        os.environ["NPROC"] = str(threads)  # read by XLA


def _processor() -> float:
    """Seconds of the processor that this process has used, and those of its own that have ended."""
    import resource

    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _used() -> Any:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF)


def _send(stream: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=stream, flush=True)


if __name__ == "__main__":
    main()
