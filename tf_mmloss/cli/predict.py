"""Say what is on pictures, with the model of a run.

    tf-mmloss predict RUN photo.jpg more_photos/ 'day*/*.png' --out predictions.csv

Pictures are files, folders with all that is below them, or patterns. The table has a row a picture: its file, its
class and probability, and the runner-up; the probabilities are left out of a run whose loss has none, a hinge.
Pictures that cannot be read are named, and the exit status is then 1.
"""

import argparse
import csv
import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tf_mmloss import cli
from tf_mmloss.cli import backend

COLUMNS = ("file", "class", "probability", "runner_up", "runner_up_probability")
_CHUNK = 256


def files(wanted: Sequence[str]) -> list[Path]:
    """The files that paths, folders and patterns stand for, each once, in order.

    Raises:
        FileNotFoundError: a path that is not there, or a pattern or folder without files.
    """
    found: dict[Path, None] = {}
    for text in wanted:
        path = Path(text).expanduser()
        if path.is_dir():
            here = [p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith(".")]
        elif path.exists():
            here = [path]
        else:
            here = [p for p in map(Path, sorted(glob.glob(str(path), recursive=True))) if p.is_file()]
        if not here:
            what = ", a folder without files" if path.is_dir() else ""
            raise FileNotFoundError(f"`images` must be files, folders or patterns of files. Received: {text}{what}")
        found |= dict.fromkeys(here)
    return list(found)


def predict(
    run: str | os.PathLike[str], images: Iterable[Path], decide_by: str | None = None, data_dir: str | None = None
) -> Iterator[tuple[Path, tuple[str, float | None, str, float | None] | str]]:
    """Give every picture with its class, probability, runner-up and its probability, or with why it cannot be read.

    The probabilities are None of a run whose loss has none. `decide_by` is another decision than the run's, fitted, if
    it has no strength, on the run's held-out images, which `data_dir` has if they are CIFAR or `tfds:NAME`.
    """
    import numpy as np

    from tf_mmloss.data.images import FILE_LIMIT, decode
    from tf_mmloss.files import read_bytes
    from tf_mmloss.runs.model import RunModel, decode_options

    model = RunModel.load(run, decide_by, data_dir)
    height, width, channels = model.image_shape
    paths = list(images)
    for start in range(0, len(paths), _CHUNK):
        chunk, pixels, why = paths[start : start + _CHUNK], [], {}
        for path in chunk:
            try:
                content = read_bytes(path, limit=FILE_LIMIT, links=True)
                pixels.append(decode(content, height, width, channels, **decode_options(model.config))[0])
            except (ValueError, OSError) as error:
                why[path] = str(error)
        answer = model.probabilities if model.probabilistic else model.scores
        rows = iter(answer(np.stack(pixels)) if pixels else ())
        for path in chunk:
            if path in why:
                yield path, why[path]
                continue
            row = next(rows)
            first, second = (int(i) for i in np.argsort(-row, kind="stable")[:2])
            one, other = (float(row[i]) if model.probabilistic else None for i in (first, second))
            yield path, (model.class_names[first], one, model.class_names[second], other)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = cli.parser("predict", __doc__)
    main.add_argument("run", type=cli.path, metavar="RUN", help="a finished run folder")
    main.add_argument("images", metavar="IMAGES", nargs="+", help="files, folders or patterns")
    main.add_argument("--out", type=cli.path, metavar="FILE", help="the table, .csv; default: it is printed")
    cli.add_decide_option(main)
    cli.add_method_option(main)
    main.add_argument("--data-dir", type=cli.path, metavar="DIR", help="where CIFAR is, for a decision that is fitted")
    backend.add_option(main)
    return main


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(arguments)
    from tf_mmloss.files import atomic_path

    try:
        if options.out:
            cli.check_out_file(options.out)
        found = files(options.images)
        with cli.imports():
            import keras  # noqa: F401
        backend.check(options.backend)
        cli.open_method(options.method, options.run)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        unreadable = 0
        for path, result in predict(options.run, found, options.decide, options.data_dir):
            if isinstance(result, str):
                unreadable += 1
                print(f"not read: {path}: {result}", file=sys.stderr)
                continue
            name, probability, second, second_probability = result
            shown = ("" if value is None else f"{value:.6f}" for value in (probability, second_probability))
            writer.writerow((path, name, next(shown), second, next(shown)))
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(options.out) as temporary:
                temporary.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")  # names of any bytes
        else:
            print(text.getvalue(), end="")
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    read = len(found) - unreadable
    print(f"{read:,} of {len(found):,} pictures read{f', {options.out}' if options.out else ''}", file=sys.stderr)
    return 1 if unreadable else 0
