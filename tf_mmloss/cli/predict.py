"""Say what is on pictures, with the model of a run.

    {command} RUN photo.jpg more_photos/ 'day*/*.png' --out predictions.csv

Pictures are files, folders with all that is below them, or patterns. The table has a row a picture: its file, its
class and probability, and the runner-up. Pictures that cannot be read are named, and the exit status is then 1.
"""

import argparse
import csv
import glob
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_mmloss.cli import program

if TYPE_CHECKING:
    from tf_mmloss.runs.model import RunModel

COLUMNS = ("file", "class", "probability", "runner_up", "runner_up_probability")  # of a hinge loss: scores
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
            raise FileNotFoundError(f"`images` must be files, folders or patterns of files. Received: {text}")
        found |= dict.fromkeys(here)
    return list(found)


def predict(model: "RunModel", images: Iterable[Path]) -> Iterator[tuple[Path, tuple[str, float, str, float] | str]]:
    """Give every picture with its class, probability, runner-up and its probability, or with why it cannot be read."""
    import numpy as np

    from tf_mmloss.data.images import decode
    from tf_mmloss.data.source import ImageError
    from tf_mmloss.runs.model import decode_options

    height, width, channels = model.image_shape
    paths = list(images)
    for start in range(0, len(paths), _CHUNK):
        chunk, pixels, why = paths[start : start + _CHUNK], [], {}
        for path in chunk:
            try:
                pixels.append(decode(path.read_bytes(), height, width, channels, **decode_options(model.config))[0])
            except (ImageError, OSError) as error:
                why[path] = str(error)
        probabilities = iter(model.probabilities(np.stack(pixels)) if pixels else ())
        for path in chunk:
            if path in why:
                yield path, why[path]
                continue
            row = next(probabilities)
            second, first = np.argsort(row, kind="stable")[-2:]
            yield path, (model.class_names[first], float(row[first]), model.class_names[second], float(row[second]))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = program("predict")
    main = argparse.ArgumentParser(
        prog=command,
        description=__doc__.format(command=command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main.add_argument("run", metavar="RUN", help="a finished run folder")
    main.add_argument("images", metavar="IMAGES", nargs="+", help="files, folders or patterns")
    main.add_argument("--out", metavar="FILE", help="the table, .csv; default: it is printed")
    main.add_argument("--backend", choices=("tensorflow", "jax", "torch"), help="of Keras")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(arguments)
    from tf_mmloss.files import atomic_path
    from tf_mmloss.runs.model import RunModel

    try:
        found = files(options.images)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        model = RunModel.load(options.run)
        columns = COLUMNS if model.probabilistic else [name.replace("probability", "score") for name in COLUMNS]
        writer.writerow(columns)
        unreadable = 0
        for path, result in predict(model, found):
            if isinstance(result, str):
                unreadable += 1
                print(f"not read: {path}: {result}", file=sys.stderr)
                continue
            name, probability, second, second_probability = result
            writer.writerow((path, name, f"{probability:.6f}", second, f"{second_probability:.6f}"))
        if options.out:
            out = Path(options.out).expanduser()
            out.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(out) as temporary:
                temporary.write_text(text.getvalue(), encoding="utf-8")
        else:
            print(text.getvalue(), end="")
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    read = len(found) - unreadable
    print(f"{read:,} of {len(found):,} pictures read{f', {options.out}' if options.out else ''}", file=sys.stderr)
    return 1 if unreadable else 0
