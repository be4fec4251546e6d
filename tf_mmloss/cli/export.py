"""Export a run for TensorFlow, ONNX or LiteRT.

    tf-mmloss export runs/cifar10-longtail100-mm-drw-seed0
    tf-mmloss export runs/cifar10-longtail100-mm-drw-seed0 --format onnx

The exported model takes any number of uint8 images, normalises them, and returns class probabilities at the scale of
the training loss, or, as a hinge loss has no probabilities, its scores; its class names and a model card travel with
it. Before the command says done, a new process (of TensorFlow, onnxruntime or ai-edge-litert) has loaded it and
returned what the run's model returns for images that the run was evaluated on, or random ones where those are gone.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tf_mmloss
from tf_mmloss import cli
from tf_mmloss.cli import backend
from tf_mmloss.markdown import escaped
from tf_mmloss.methods import METHODS
from tf_mmloss.methods.base import loss_class
from tf_mmloss.runs import folder as run_folder
from tf_mmloss.train import presets
from tf_mmloss.train.config import Config, code_named

if TYPE_CHECKING:
    from tf_mmloss import LongTailLoss

_IMAGES = 64  # of the check

CARD = """# {method} on {data}

A {network} that tells {classes} classes of small images apart, trained on imbalanced classes. This card is
generated from the run's folder.

```python
{usage}
```

## Data

- {origin}
- {images} training images, {data}, subset seed {config.subset_seed}; evaluated on the {metrics[evaluated_on]}

## Recipe

- {config.method}: {loss}({options})
- {config.epochs} epochs, batch {config.batch_size}, learning rate {config.learning_rate}, weight decay
  {config.weight_decay}, seed {config.seed}, trained in {config.precision}, served in float32{training}{decided}
- commit {commit}; {versions}; {machine}; {duration}
- checksum of the weights {metrics[checksum]}

## Results

Top-1 error of the last epoch {metrics[error]:.2%}: one run, so no spread. {confidence}

| class | training images | error |
|-|-|-|
{rows}

## Limits

- The rarest class had {rarest} training images; the table shows what that costs.
- Only images like those of the data set, in size and framing, give meaningful {output}; anything else is given a
  class too. {calibration}
- A research model: not for decisions about people or safety.

## Licence

{licence} What the terms of the images say of models trained on them is for
the user to judge.
"""

_PROBABILITIES = {
    "output": "probabilities",
    "confidence": "Mean confidence\n{metrics[mean_confidence]:.2%}, expected calibration error "
    "{metrics[calibration_error]:.2%} (15 bins).",
    "calibration": "The probabilities were not calibrated after the training.",
}
_SCORES = {
    "output": "scores",
    "confidence": "A hinge loss has no\nprobabilities: the model returns a score a class, the highest is its answer.",
    "calibration": "A softmax of the scores is no probability.",
}


# How a model is used, of the format.
_USAGE = {
    "savedmodel": """model = tf.saved_model.load("THIS_FOLDER").signatures["serving_default"]
model(tf.constant(images))["{output}"]  # uint8 (B, height, width, channels); normalised inside""",
    "onnx": """model = onnxruntime.InferenceSession("THIS_FOLDER/model.onnx")
model.run(["{output}"], {{"images": images}})[0]  # uint8 (B, height, width, channels); normalised inside""",
    "litert": """model = ai_edge_litert.interpreter.Interpreter("THIS_FOLDER/model.tflite").get_signature_runner()
model(images=images)["{output}"]  # uint8 (B, height, width, channels), B >= 1; normalised inside""",
}


def export(
    run: Path,
    out: Path,
    licence: str | None = None,
    format: str = "savedmodel",
    data_dir: str | None = None,
    decide_by: str | None = None,
) -> tuple[float, str]:
    """Export the last epoch of a finished run; return the largest difference found by the check, and on which images.

    Args:
        run: its folder.
        out: where to write; must not exist.
        licence: of the weights, for the model card. Default: the card states none.
        format: see `tf_mmloss.export.export`.
        data_dir: where CIFAR or `tfds:NAME` is.
        decide_by: another decision than the run's, see `tf_mmloss.decide`; the model card's numbers stay the run's.

    Raises:
        RunFolderError: no finished run folder, one of another version, or a model that is refused.
        ValueError, ImportError: a format that the backend or the installed packages have not.
        FileExistsError: `out` is there already.
        ExportError: the exported model does not do what the run's does.
    """
    import keras  # here: --help needs none

    from tf_mmloss import export as library
    from tf_mmloss.runs.model import RunModel

    library.check_format(format)
    config = run_folder.read_config(run)
    loss = _loss(config)
    probabilistic = loss.probabilistic
    together = probabilistic and loss.activation == "softmax"  # of the classes: else there is no calibration error
    needed = ("checksum", *(("calibration_error", "mean_confidence") if together else ()))
    metrics = run_folder.read_json(run, "metrics.json", needed)
    environment, origin = run_folder.read_json(run, "environment.json"), _origin(run, config)
    library.check_free(out)
    loaded = RunModel.load(run, decide_by, data_dir)
    trained = loaded.network
    text = card(config, metrics, environment, origin, licence, format, loaded.decide)
    keras.config.set_dtype_policy("float32")  # serve in float32, whatever the run was trained in
    model = keras.models.clone_model(trained, clone_function=_in_float32)
    model.set_weights(trained.get_weights())
    metadata: dict[str, Any] = {
        "dataset": config.dataset,
        "method": config.method,
        "cls_counts": metrics["cls_counts"],
        "held_out_error" if config.holdout else "test_error": metrics["error"],
        "per_class_error": metrics["per_class_error"],
        "decide": loaded.decide,
        "checksum": metrics["checksum"],
    }
    images = _images(run, config, data_dir)
    difference = library.export(
        model,
        out,
        format=format,
        probabilities=loaded.layer if probabilistic or loaded.probabilistic else None,
        class_names=metrics["class_names"],
        normalize=tf_mmloss.normalization(metrics["mean"], metrics["std"]),
        metadata=metadata,
        card=text,
        images=images,
    )
    return difference, "random images" if images is None else f"{len(images)} images of the run's evaluation"


def _images(run: Path, config: Config, data_dir: str | None) -> np.ndarray | None:
    """The first images that the run was evaluated on; None where they are not at hand."""
    from tf_mmloss import datasets
    from tf_mmloss.train import experiment, inputs

    if "dataset" in code_named(config):  # would be called
        return None
    with contextlib.suppress(ValueError, OSError, ImportError):
        if config.is_own:
            data = inputs.load(config, data_dir)
        else:
            data = datasets.load(config.dataset, data_dir, download=False)
        experiment.check_data(run, data)
        images = np.asarray(inputs.split(data, config).eval_images[:_IMAGES])
        return images if len(images) else None
    return None


def _loss(config: Config) -> "type[LongTailLoss]":
    """The loss of a run's last stage."""
    method = METHODS[config.method]
    return loss_class(method.own_stages[-1].loss or method.loss)


def _origin(run: Path, config: Config) -> str:
    if config.is_own:
        return str(run_folder.read_json(run, "data.json", ["origin"])["origin"])
    return presets.RECIPES[config.dataset].origin


def card(
    config: Config,
    metrics: dict[str, Any],
    environment: dict[str, Any],
    origin: str,
    licence: str | None = None,
    format: str = "savedmodel",
    decide: str = "none",
) -> str:
    """The model card of a run, in Markdown.

    Args:
        config, metrics, environment: of its folder.
        origin: where the images come from.
        licence: of the weights, if one is stated.
        format: of the model.
        decide: what is made of the network's outputs, see `tf_mmloss.decide`.
    """
    start = environment["starts"][0]
    of_temperature = decide.startswith("temperature")
    loss = _loss(config)
    is_probability = loss.probabilistic or of_temperature
    texts = _PROBABILITIES if is_probability else _SCORES
    confidence = texts["confidence"] if "calibration_error" in metrics or not is_probability else ""
    if loss.activation == "sigmoid":
        confidence = "Each class has a probability\nof its own: they do not sum to 1."
    own = metrics.get("decision", {}).get("decide", "none")
    decided = "" if decide == own == "none" else f"\n- decision: {decide}"
    if decide != own:
        decided += f"; the results below are of another one, {own}"
    more = {name: getattr(config, name) for name in ("optimizer", "schedule", "augment", "mix", "sam", "ema")}
    more = {name: value for name, value in more.items() if value not in ("sgd", "step", "none", 0)}
    rows = zip(metrics["class_names"], metrics["cls_counts"], metrics["per_class_error"], strict=True)
    return CARD.format(
        method=run_folder.method_label(config.method),
        data=escaped(run_folder.data_label(vars(config))),
        origin=escaped(origin),
        classes=len(metrics["class_names"]),
        images=f"{sum(metrics['cls_counts']):,}",
        rarest=f"{min(metrics['cls_counts']):,}",
        loss=METHODS[config.method].loss,
        options=", ".join(f"{name}={value!r}" for name, value in config.loss_arguments.items()),
        versions=", ".join(f"{name} {version}" for name, version in start["versions"].items()),
        machine=escaped(f"{start['processor']}, {start['cores']} cores"),
        commit=escaped(str(start["commit"])),
        duration=run_folder.duration(metrics["seconds"]),
        rows="\n".join(
            f"| {escaped(name)} | {count:,} | {'–' if error is None else f'{error:.2%}'} |"
            for name, count, error in rows
        ),
        network=escaped(config.backbone) if config.depth is None else f"ResNet-{config.depth}",
        output=texts["output"],
        usage=_USAGE[format].format(output=texts["output"]),
        confidence=confidence.format(metrics=metrics),
        calibration=f"Their temperature: {decide}." if of_temperature else texts["calibration"],
        training="".join(f"\n- {name}: {escaped(str(value))}" for name, value in more.items()),
        decided=decided,
        licence=f"The weights are under {escaped(licence)}." if licence else "No licence of the weights is stated.",
        config=config,
        metrics=metrics,
    )


def _in_float32(layer: Any) -> Any:
    return layer.__class__.from_config({**layer.get_config(), "dtype": "float32"})


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = cli.parser("export", __doc__)
    parser.add_argument("run", type=cli.path, metavar="RUN", help="a finished run folder")
    parser.add_argument("--format", choices=tuple(_USAGE), default="savedmodel", help="default: savedmodel")
    parser.add_argument(
        "--out",
        type=cli.path,
        help="a folder; default: saved_models/ and the run's name, with the format where it is another",
    )
    parser.add_argument("--licence", help='of the weights, for the model card: "the MIT licence"; default: none')
    cli.add_decide_option(parser)
    cli.add_code_options(parser)
    parser.add_argument("--data-dir", type=cli.path, metavar="DIR", help="where CIFAR or tfds:NAME is, for the check")
    backend.add_option(parser)
    options = parser.parse_args(arguments)
    try:
        with cli.imports():
            from tf_mmloss.export import ExportError
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    ending = "" if options.format == "savedmodel" else f"-{options.format}"
    out = options.out or Path("saved_models") / f"{options.run.resolve().name}{ending}"
    try:
        cli.check_out(out.parent)
        backend.check(options.backend)
        cli.open_code(options.run, options.method, options.backbone)
        given = (options.licence, options.format, options.data_dir, options.decide)
        difference, images = export(options.run, out, *given)
    except (*cli.USER_ERRORS, ExportError) as error:
        return cli.failed(error)
    print(f"{out}: reloaded in a new process, largest difference of an output {difference:.1e} on {images}")
    return 0
