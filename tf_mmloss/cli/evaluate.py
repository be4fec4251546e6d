"""Evaluate the model of a run, with intervals over the test images.

    tf-mmloss evaluate RUN                          # on the images that the run was evaluated on
    tf-mmloss evaluate RUN --dataset more_photos/   # on other images, with the same class names
    tf-mmloss evaluate RUN --decide logit-adjustment:1   # decided otherwise than by the run
    tf-mmloss evaluate RUN --out evaluation.json

Other images are evaluated on their test split where they have one, else all of them; the run's own, given by where they
are now, on what the run was evaluated on. The calibration error is given
before and after temperature scaling; the temperature of each half of the images is fitted on the other half, and so is
the strength of a decision on the held-out images that it is fitted on.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_mmloss import cli
from tf_mmloss.cli import backend

if TYPE_CHECKING:
    from tf_mmloss.runs.model import Evaluated, RunModel


def evaluate(
    run: str | os.PathLike[str],
    dataset: str | None = None,
    data_dir: str | None = None,
    draws: int = 1000,
    skip_broken: bool = False,
    accept_odd: bool = False,
    decide_by: str | None = None,
) -> dict[str, Any]:
    """Evaluate a run's model; return what `tf_mmloss.evaluation.evaluate` does, and what was evaluated and how decided.

    Args:
        run: a finished run folder.
        dataset: other images; default: those that the run was evaluated on, as with the function that the run is of.
        data_dir: where CIFAR or `tfds:NAME` is.
        draws: of the bootstrap.
        skip_broken, accept_odd: how other images are read, see `tf_mmloss.data.load_images`.
        decide_by: another decision than the run's, see `tf_mmloss.decide`.

    Raises:
        ValueError: no such run, other images than it was trained on, or images of classes that it does not know.
    """
    from tf_mmloss import decide, evaluation
    from tf_mmloss._validation import integer, path
    from tf_mmloss.metrics import expected_calibration_error
    from tf_mmloss.runs.folder import read_config
    from tf_mmloss.runs.model import RunModel, own_images
    from tf_mmloss.train.config import code_named

    integer("draws", draws, at_most=evaluation.MOST_DRAWS)
    # The function that the run is of gives what the run was evaluated on.
    called = dataset is not None and dataset == code_named(read_config(path("run", run))).get("dataset")
    model = RunModel.load(run, decide_by, data_dir, called=called, fit=False)
    asked = model.config.decide if decide_by is None else decide_by
    reading = {"skip_broken": skip_broken, "accept_odd": accept_odd}
    other = None if called else dataset
    if other is None and any(reading.values()):
        given = ", ".join(name for name in reading if reading[name])
        raise ValueError(f"`dataset` must be other images than the run's with {given}. Received: dataset={dataset!r}")
    if other is None:
        evaluated, own = own_images(run, model, data_dir, called=called), True
    else:
        evaluated, own = _other(other, run, model, data_dir, **reading)
        model = model if own else model.fitted(run, data_dir)
    labels = evaluated.labels
    # On the images that a strength is fitted on, each half is decided by the other.
    decided = decide.decided(asked if own else model.decide, model.trained, labels, model.logits(evaluated.images))
    scores = decided.scores
    counts, names = model.trained.cls_counts, model.class_names
    of: dict[str, Any] = {"cls_counts": counts, "class_names": names, "groups": evaluated.groups}
    found = evaluation.evaluate(labels, evaluation.softmax(scores), **of, draws=draws)
    if not decided.probabilistic:  # a hinge loss has scores
        del found["value"]["calibration_error"], found["value"]["mean_confidence"]
    if len(labels) > 1:
        after = evaluation.calibrated(labels, scores)
        found["value"]["calibration_error_after_temperature"] = expected_calibration_error(labels, after)
    by = model.decide if decide_by is None else decided.spec
    return {"run": str(run), "evaluated_on": evaluated.of, "decide": by, **found}


def _other(
    dataset: str, run: str | os.PathLike[str], model: "RunModel", data_dir: str | None, **reading: bool
) -> "tuple[Evaluated, bool]":
    """The images of a data set, and whether they are those that the run was evaluated on."""
    import dataclasses

    import numpy as np

    from tf_mmloss.data import load_images, open_source
    from tf_mmloss.data.source import DataError
    from tf_mmloss.datasets.rows import Rows
    from tf_mmloss.runs.folder import read_json
    from tf_mmloss.runs.model import Evaluated, decode_options, own_images

    source = open_source(dataset, data_dir)
    known = {name: label for label, name in enumerate(model.class_names)}
    unknown = [name for name in source.class_names if name not in known]
    if unknown:
        raise DataError(
            f"`dataset` must have the run's classes, {', '.join(model.class_names)}. Received: {', '.join(unknown)}"
        )
    height, width, channels = model.image_shape
    options = {**decode_options(model.config), **reading}
    images = load_images(source, image_size=(height, width), grey=channels == 1, test_share=None, **options)
    trained_on = ""
    if model.config.is_own:
        trained_on = read_json(Path(run).expanduser(), "data.json", ["fingerprint"])["fingerprint"]
    if trained_on.partition("-")[0] == images.fingerprint.partition("-")[0]:  # wherever they are now
        moved = dataclasses.replace(model, config=dataclasses.replace(model.config, dataset=dataset))
        return own_images(run, moved, data_dir, called=True), True
    part = "test split" if source.split is not None else "all images"
    labels = np.array([known[name] for name in source.class_names])[images.y[images.test]]
    groups = None if images.groups is None else images.groups[images.test]
    return Evaluated(f"{images.name}, {part}", Rows(images.x, images.test), labels, groups), False


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = cli.parser("evaluate", __doc__)
    main.add_argument("run", type=cli.path, metavar="RUN", help="a finished run folder")
    main.add_argument("--dataset", metavar="PATH", help="other images; default: what the run was evaluated on")
    main.add_argument("--skip-broken", action="store_true", help="other images: leave out what cannot be read")
    main.add_argument(
        "--accept-odd", action="store_true", help="other images: read files of another format than their name says"
    )
    main.add_argument("--data-dir", type=cli.path, metavar="DIR", help="where CIFAR is, as for fit")
    cli.add_decide_option(main)
    cli.add_code_options(main)
    main.add_argument("--draws", type=int, default=1000, help="of the bootstrap; default 1000")
    main.add_argument(
        "--out", type=cli.path, metavar="FILE", help="write what was found as JSON, the confusion matrix included"
    )
    backend.add_option(main)
    return main


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(arguments)
    try:
        if options.out:
            cli.check_out_file(options.out)
        with cli.imports():
            from tf_mmloss.evaluation import summary
            from tf_mmloss.files import write_json
            from tf_mmloss.runs import model  # noqa: F401
            from tf_mmloss.runs.folder import read_config
            from tf_mmloss.train.show import adjusted_twice
        backend.check(options.backend)
        cli.open_code(options.run, options.method, options.backbone)
        reading: dict[str, Any] = {"skip_broken": options.skip_broken, "accept_odd": options.accept_odd}
        reading["decide_by"] = options.decide
        found = evaluate(options.run, options.dataset, options.data_dir, options.draws, **reading)
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    config = read_config(options.run)
    if said := adjusted_twice(config, options.decide or config.decide):
        print(said)
    by = "" if found["decide"] == "none" else f", decided by {found['decide']}"
    print(f"{found['evaluated_on']}: {found['images']:,} images{by}\n{summary(found)}")
    if options.out:
        try:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.out, found)
        except OSError as error:  # what was found is printed
            return cli.failed(error)
    return 0
