"""Train a network on an imbalanced data set.

    tf-mmloss fit --dataset cifar100 --ratio 10
    tf-mmloss fit --dataset cifar10 --imbalance step --method ldam-drw --seed 1
    tf-mmloss fit --dataset digits --ratio 20 --backend jax
    tf-mmloss fit --resume runs/cifar100-longtail10-mm-drw-seed0

A run leaves a folder with its config, versions, history, metrics, models and plots. It can be stopped at any
moment, with ctrl-C or harder, and continued with --resume; it then ends as if it had not been stopped. With more
--epochs, --resume makes a run of --schedule constant longer.
"""

import argparse
import dataclasses
import errno
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_mmloss import _entry_points, cli, methods
from tf_mmloss.cli import backend
from tf_mmloss.runs import folder as run_folder
from tf_mmloss.train import presets, progress, resolve, show
from tf_mmloss.train.config import Config, code_named


def parser(description: str | None = __doc__, command: str = "fit") -> argparse.ArgumentParser:
    """The command line. Options that are not given are absent, so that --resume can tell."""
    main = cli.parser(command, description, argument_default=argparse.SUPPRESS)
    add_config_options(main)
    main.add_argument("--show", action="store_true", help="print what the options stand for, and stop")
    backend.add_option(main)
    cli.add_progress_options(main)
    folder = main.add_argument_group("files")
    folder.add_argument(
        "--data-dir",
        type=cli.path,
        metavar="DIR",
        help="where CIFAR is: the public python version as archive or folder, or a TFDS folder; default: the caches "
        "of Keras and TFDS, then a download",
    )
    folder.add_argument(
        "--out", type=cli.path, metavar="DIR", help="the run's folder; default: runs/ and a name from the options"
    )
    folder.add_argument(
        "--resume",
        type=cli.path,
        metavar="RUN",
        nargs="?",
        const=True,
        help="continue the run in this folder, with the options it was started with; without a folder, continue the "
        "one of --out, or start it",
    )
    return main


def add_config_options(main: argparse.ArgumentParser) -> None:
    """Options of a `Config`, for every command that trains."""
    data = main.add_argument_group("training set")
    data.add_argument(
        "--dataset",
        help=f"{', '.join(presets.RECIPES)}, or images of your own: a folder with a folder a class, a table (.csv, "
        f".parquet) of path and label, arrays (.npz), tfds:NAME, {_installed(_entry_points.SOURCES, ':...')}"
        "package.module:function; default cifar10",
    )
    data.add_argument(
        "--imbalance", help="none (default of your own images): as it is; longtail (default of the others) or step"
    )
    data.add_argument("--ratio", type=float, help="largest over smallest class, >= 1; default 100")
    data.add_argument("--image-size", metavar="N", help="own images: 64, or 40x24, height by width; default: theirs")
    data.add_argument("--fit", help="own images: crop (default) or pad them to that size")
    data.add_argument("--grey", action=argparse.BooleanOptionalAction, help="own images: without colour")
    data.add_argument(
        "--test-share", type=float, metavar="F", help="own images without a test split: evaluated part; default 0.2"
    )
    data.add_argument(
        "--group-by", metavar="REGEX", help="own images: those whose names agree in what it finds are not split up"
    )
    data.add_argument("--skip-broken", action="store_true", help="own images: leave out what cannot be read")
    data.add_argument(
        "--accept-odd", action="store_true", help="own images: read files of another format than their name says"
    )
    data.add_argument("--subset-seed", type=int, help="choice of the images kept; default 0")
    data.add_argument(
        "--holdout",
        type=_images_or_share,
        metavar="N",
        help="evaluate on N training images a class, held out, or on a share of each, as 0.2 (of own images)",
    )

    loss = main.add_argument_group("method and loss (defaults: the method's published constants)")
    loss.add_argument(
        "--method", help=f"{', '.join(methods.METHODS)}, or a package.module:function of your own; default mm-drw"
    )
    for name, by_loss in methods.loss_options().items():
        kind = next(iter(by_loss.values())).type
        form: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        loss.add_argument(f"--{name.replace('_', '-')}", help=_said_of(by_loss).replace("%", "%%"), **form)
    loss.add_argument(
        "--weights", help="class weights of re-weighting and re-sampling: effective (default of most) or inverse"
    )
    loss.add_argument(
        "--start-epoch",
        type=int,
        help="first epoch of the method's last stage, where it has several; default of -drw, -drs: first drop of the "
        "rate",
    )
    loss.add_argument(
        "--decide",
        metavar="NAME[:X]",
        help=f"what is made of the network's outputs: none (default); {cli.said('tf_mmloss.decide')}; the strength X "
        "is fitted on the images of --holdout where it is left out",
    )
    loss.add_argument(
        "--pretraining",
        help="none (default but of -ssp), or rotation: start from the backbone that "
        "`pretrain` makes, which is run first if it is not there",
    )

    loss.add_argument("--classifier", help="dense or cosine head, of a method that has both; default: the method's")

    train = main.add_argument_group("training")
    train.add_argument(
        "--recipe",
        help="what fills in the options that are not given: paper (default), or strong: AutoAugment and Cutout, a "
        "cosine rate, batches of 64 of CIFAR, and a cosine head of balanced-softmax and vs; or record: AutoAugment and "
        "Cutout, SAM, that head, and twice the epochs of a data set that is not your own",
    )
    train.add_argument(
        "--epochs",
        type=int,
        help="default 200 (digits 60); of your own images from their number; warm-up and drops of the rate scale",
    )
    train.add_argument(
        "--batch-size",
        type=int,
        help="default 128 (digits 16), or that of --recipe; of your own images from their number",
    )
    train.add_argument(
        "--learning-rate",
        type=float,
        help="default 0.1 (digits 0.03), of your own images in proportion to their default batch; of adamw 0.001; of "
        "pretrained weights a tenth",
    )
    train.add_argument(
        "--schedule", help="of the learning rate: step (the paper's), cosine, or constant; default of --recipe"
    )
    train.add_argument("--momentum", type=float, help="of sgd; default 0.9")
    train.add_argument("--weight-decay", type=float, help="default of sgd 2e-4, coupled; of adamw 0.05, decoupled")
    train.add_argument("--pad", type=int, help="zeros around an image before its crop; default an eighth of the side")
    train.add_argument(
        "--augment",
        help=f"more for training images, with commas between: {cli.said('tf_mmloss.augment')}; "
        f"{_installed(_entry_points.AUGMENTATIONS)}package.module:Class; default of --recipe",
    )
    train.add_argument(
        "--sam",
        type=float,
        metavar="RHO",
        help="sharpness-aware minimisation in that radius, as 0.05; default of --recipe",
    )
    train.add_argument(
        "--sam-late",
        type=float,
        metavar="RHO",
        help="its radius after 4/5 of the epochs; default that of --sam where it is given, else of --recipe",
    )
    train.add_argument(
        "--mix", help=f"mix training images with one another: none (default); {cli.said('tf_mmloss.mix')}"
    )
    train.add_argument("--mix-alpha", type=float, metavar="A", help="of the Beta distribution of --mix; default 1")
    train.add_argument(
        "--ema",
        type=float,
        metavar="DECAY",
        help="evaluate and save a moving average of the weights with that decay a step, as 0.999; default none",
    )
    train.add_argument("--flip", action=argparse.BooleanOptionalAction, help="mirror at random; default yes, digits no")
    train.add_argument("--optimizer", help="sgd (default) or adamw")
    train.add_argument(
        "--backbone",
        help="resnet32 (default; any 6n+2), keras:NAME of keras.applications, hub:PRESET of KerasHub's image "
        f"classifiers or the folder of one, {_installed(_entry_points.BACKBONES)}or package.module:function",
    )
    train.add_argument(
        "--pretrained",
        help="weights of a keras:NAME backbone: none (default), imagenet, or a file; of a "
        "hub:PRESET: preset (default) or none",
    )
    train.add_argument(
        "--frozen-epochs",
        type=int,
        metavar="N",
        help="with --pretrained: first epochs, in which the head alone is trained, at ten times the rate of the whole "
        "network; default a tenth of the epochs, 0 switches off",
    )
    train.add_argument("--depth", type=int, help="of the ResNet, 6n+2; default 32")
    train.add_argument("--seed", type=int, help="initial weights, order and augmentation; default 0")
    train.add_argument("--eval-every", type=int, metavar="N", help="evaluate every N epochs and at the end; default 1")
    train.add_argument("--precision", help="float32 (default), bfloat16 or float16")
    train.add_argument(
        "--input",
        help="host (default): tf.data; device: the images lie on the device and are augmented in the compiled step; "
        "epoch: the same, an epoch being one program (JAX)",
    )
    train.add_argument("--jit", help="XLA: auto (default), on or off")
    train.add_argument(
        "--strategy",
        help="none (default): one device; mirrored: all devices of this host (TensorFlow); data-parallel: all devices "
        "of all processes (JAX); the batch is shared, and the result is one device's",
    )


def _installed(group: str, more: str = "") -> str:
    """The names that installed packages add, for a list."""
    return "".join(f"{name.replace('%', '%%')}{more}, " for name in sorted(_entry_points.entry_points(group)))


def _said_of(by_loss: Mapping[str, methods.Option]) -> str:
    """What the losses say of an option, and the methods for which they say it."""
    said: dict[str, list[str]] = {}
    for loss, option in by_loss.items():
        for name in methods.of_loss(loss):
            preset = methods.METHODS[name].defaults().get(option.name, option.default)
            here = "" if preset == option.default else f" Here {preset}."
            said.setdefault(f"{option.help}{here}", []).append(name)
    return " ".join(f"{', '.join(names)}: {text}" for text, names in said.items())


def _images_or_share(text: str) -> int | float:
    """What `--holdout` is given.

    Raises:
        argparse.ArgumentTypeError: it is neither a whole number nor one with a point.
    """
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"`holdout` must be a number of images, or a share as 0.2. Received: holdout={text!r}"
        ) from None


def open_method(arguments: list[str] | None) -> None:
    """Open the function that a command line names as its method, so that its options are known.

    Raises:
        ValueError: it is none.
    """
    named = argparse.ArgumentParser(add_help=False, exit_on_error=False, argument_default=argparse.SUPPRESS)
    named.add_argument("--method", nargs="?")
    method: Any = getattr(named.parse_known_args(arguments)[0], "method", None)
    if methods.is_function(method):
        methods.open_function(method)


def main(
    arguments: list[str] | None = None,
    description: str | None = __doc__,
    command: str = "fit",
    method: str | None = None,
) -> int:
    """Run the command, or one that is this command with its method fixed; return its exit status."""
    try:
        open_method(arguments)
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    options: dict[str, Any] = vars(parser(description, command).parse_args(arguments))
    with progress.shown(options.pop("how", "lines")):
        return _run(options, command, method)


def _run(options: dict[str, Any], command: str, method: str | None) -> int:
    """Run the command with its options."""
    try:
        with cli.imports():  # here: --help needs no Keras
            from tf_mmloss import NonFiniteLossError
            from tf_mmloss.train import experiment, inputs, result, strategy
    except cli.USER_ERRORS as error:
        return cli.failed(error)

    folder: Path | None = None
    names = ("data_dir", "out", "resume", "show", "backend")
    data_dir, out, resume, only_show, chosen = (options.pop(name, None) for name in names)

    def again() -> str | None:
        """The command that continues the run; None: nothing was begun."""
        if folder is None or not (folder / "config.json").exists():
            return None
        return cli.resuming(command, folder, data_dir=data_dir, backend=chosen, **code_named(config))

    try:
        backend.check(chosen)
        if method and options.setdefault("method", method) != method:
            raise ValueError(f"`method` is always {method} here. Received: method={options['method']!r}")
        if out:
            cli.check_out(out)  # before images of one's own are read
        named = isinstance(resume, Path)
        if named and out:
            raise ValueError(
                f"`out` must not be given with --resume RUN, which names the folder. Received: out={str(out)!r}"
            )
        config = run_folder.read_config(resume) if named else Config()
        asked = dataclasses.replace(config, **options)
        if named and (asked.epochs or 0) > (config.epochs or 0):
            asked = resolve.lengthened(config, **options)
        if named:
            run_folder.check_same(resume, config, asked, or_longer=True)
            for name, value in code_named(config).items():
                if name not in options:
                    raise ValueError(
                        f"`{name}` of {resume} is code that the run would call: give --{name} {value} again to "
                        "say that you trust it."
                    )
        data = None
        if resolve.has_gaps(asked):
            resolve.check_before_data(asked)
            if not (resume or only_show or asked.strategy == "data-parallel"):  # of it, others may have begun
                experiment.check_free(out or Path("runs") / asked.name)
            data = inputs.load(asked, data_dir)
            progress.tell("\n".join((*data.report, *show.why(asked, data))))
        config = resolve.resolve(asked, data)
        if only_show:
            shown = show.show(config)
            progress.tell(shown) if progress.how() == "json" else print(shown)
            return 0
        folder = resume if named else out or Path("runs") / config.name
        cli.check_out(folder)
        strategy.join(config)
        if strategy.is_leader():
            progress.tell(f"{config.name}: {folder}", event=None)
        metrics = experiment.run(config, folder, data_dir=data_dir, resume=bool(resume), data=data)
    except KeyboardInterrupt:
        line = again()
        if line is None:
            print("\nStopped: nothing was begun.", file=sys.stderr)
            return 130
        progress.tell(f"\nStopped. Every complete epoch is saved. Continue: {line}", "stopped")
        return 130
    except NonFiniteLossError as error:
        cli.failed(ValueError(f"{error} The last complete epoch is kept in {folder}."))
        return 1
    except cli.USER_ERRORS as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        if full and (line := again()):
            text = f"{error}, in {folder}. Every complete epoch is saved. Make room, then continue: {line}"
            return cli.failed(OSError(text))
        return cli.failed(error)
    if strategy.is_leader():
        progress.tell(f"{result.summary(metrics)}\nEverything is in {folder}", event=None)
    return 0
