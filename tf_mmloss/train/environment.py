"""environment.json: versions, commit and machine of every start of a run."""

import os
import platform
import subprocess
import time
import tomllib
from pathlib import Path

import keras

import tf_mmloss
from tf_mmloss.files import write_json
from tf_mmloss.runs.folder import read_json
from tf_mmloss.train import processor, progress, strategy
from tf_mmloss.train.config import Config


def record(config: Config, folder: Path, first_epoch: int, backbone: Path | None) -> None:
    path = folder / "environment.json"
    starts = read_json(folder, path.name, ["starts"])["starts"] if path.exists() else []
    versions = {"python": platform.python_version(), "tf_mmloss": tf_mmloss.__version__, "keras": keras.__version__}
    backend = keras.backend.backend()
    versions[backend] = __import__(backend).__version__
    if first_epoch and starts and starts[-1]["backend"] != backend:
        progress.tell(f"begun on {starts[-1]['backend']}, continued on {backend}: the same run, but for rounding")
    start = {
        "first_epoch": first_epoch,
        **({"backbone": [backbone.name, read_json(backbone, "metrics.json")["checksum"]]} if backbone else {}),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "backend": backend,
        "versions": versions,
        "commit": _commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "processor": _processor(),
        "devices": strategy.num_devices(config),
        "processes": strategy.num_processes(),
    }
    write_json(path, {"starts": [*starts, start]})


def _commit() -> str | None:
    """The commit of this package's own checkout; None where it is installed, be it inside another repository."""
    here = Path(__file__).resolve()
    try:
        root = Path(_git(here.parent, "rev-parse", "--show-toplevel"))
        if tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"] != "tf-mmloss":
            return None
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, KeyError, TypeError, ValueError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    """What git says in a folder."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [f"model name: {platform.processor()}"]
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    vectors = processor.vectors()
    return ", ".join([*(found.name for found in strategy.accelerators()[:1]), name, *([vectors] if vectors else [])])
