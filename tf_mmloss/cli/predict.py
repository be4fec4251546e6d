"""Say what is on pictures, with the model of a run.

    tf-mmloss predict RUN photo.jpg more_photos/ 'day*/*.png' --out predictions.csv

Pictures are files, folders with all images that are below them, or patterns. The table has a row a picture: its file,
its class and probability, and the runner-up; the probabilities are left out of a run whose loss has none over the
classes together: a hinge, or a sigmoid of each class.
Pictures that cannot be read are named, and the exit status is then 1. A stop (ctrl-C) keeps the rows that are done.
"""

import argparse
import contextlib
import csv
import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tf_mmloss import cli
from tf_mmloss.cli import backend

if TYPE_CHECKING:
    from tf_mmloss.runs.model import RunModel

COLUMNS = ("file", "class", "probability", "runner_up", "runner_up_probability")
_CHUNK = 256


def files(wanted: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The files that paths, folders and patterns stand for, each once, in order; and files in folders, no images.

    Raises:
        FileNotFoundError: a path that is not there, a pattern without files, or a folder without images.
    """
    from tf_mmloss.data.sources.folder import image_files

    found: dict[Path, None] = {}
    others: list[Path] = []
    for text in wanted:
        if not text:  # to `Path`, the current folder
            raise FileNotFoundError("`images` must be files, folders or patterns of files. Received: ''")
        path = Path(os.path.expanduser(text))  # as it is where there is no such user, of which `Path` makes an error
        if path.is_dir():
            here, more = image_files(path)
            others += more
        elif path.exists():
            here = [path]
        else:
            here = [p for p in map(Path, sorted(glob.glob(str(path), recursive=True))) if p.is_file()]
        if not here:
            what = ", a folder without images" if path.is_dir() else ""
            raise FileNotFoundError(f"`images` must be files, folders or patterns of files. Received: {text}{what}")
        found |= dict.fromkeys(here)
    return list(found), others


def predict(
    run: str | os.PathLike[str], images: Iterable[Path], decide_by: str | None = None, data_dir: str | None = None
) -> Iterator[tuple[Path, tuple[str, float | None, str, float | None] | str]]:
    """Give every picture with its class, probability, runner-up and its probability, or with why it cannot be read.

    The model is loaded at once, the pictures are read as they are asked for. The probabilities are None of a run whose
    loss has none. `decide_by` is another decision than the run's, fitted, if
    it has no strength, on the run's held-out images, which `data_dir` has if they are CIFAR or `tfds:NAME`.
    """
    from tf_mmloss.runs.model import RunModel

    return _answers(RunModel.load(run, decide_by, data_dir), list(images))


def _answers(
    model: "RunModel", paths: list[Path]
) -> Iterator[tuple[Path, tuple[str, float | None, str, float | None] | str]]:
    import numpy as np

    from tf_mmloss.data.images import FILE_LIMIT, decode
    from tf_mmloss.files import read_bytes
    from tf_mmloss.runs.model import decode_options

    height, width, channels = model.image_shape
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
    cli.add_code_options(main)
    main.add_argument("--data-dir", type=cli.path, metavar="DIR", help="where CIFAR is, for a decision that is fitted")
    backend.add_option(main)
    return main


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(arguments)
    from tf_mmloss.data.source import named

    try:
        if options.out:
            cli.check_out_file(options.out)
        found, others = files(options.images)
        with cli.imports():
            import keras  # noqa: F401
        backend.check(options.backend)
        cli.open_code(options.run, options.method, options.backbone)
        results = predict(options.run, found, options.decide, options.data_dir)
        read, unreadable, stopped = 0, 0, False
        with _table(options.out) as table:
            writer = csv.writer(table, lineterminator="\n")
            writer.writerow(COLUMNS)
            try:
                for path, result in results:
                    if isinstance(result, str):
                        unreadable += 1
                        print(f"not read: {path}: {result}", file=sys.stderr)
                        continue
                    name, probability, second, second_probability = result
                    values = ("" if value is None else f"{value:.6f}" for value in (probability, second_probability))
                    writer.writerow((path, name, next(values), second, next(values)))
                    read += 1
            except KeyboardInterrupt:  # what was done is kept
                if not read:
                    raise
                stopped = True
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    if others:
        print(f"{len(others):,} files that are no images, left out: {named(map(str, others))}", file=sys.stderr)
    begin, end = "Stopped: " if stopped else "", f", {options.out}" if options.out else ""
    print(f"{begin}{read:,} of {len(found):,} pictures read{end}", file=sys.stderr)
    return 130 if stopped else 1 if unreadable else 0


@contextlib.contextmanager
def _table(out: Path | None) -> Iterator[TextIO]:
    """Where the table is written: a file that appears when all is written, or what is printed."""
    from tf_mmloss.files import atomic_path

    if out is None:
        yield sys.stdout
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    escaped = "backslashreplace"  # names of any bytes
    with atomic_path(out) as temporary, open(temporary, "w", newline="", encoding="utf-8", errors=escaped) as file:
        yield file
