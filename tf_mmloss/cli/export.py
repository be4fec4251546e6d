"""Export a run as a SavedModel.

    python training/export.py runs/cifar10-longtail100-mm-drw-seed0

The SavedModel takes uint8 images, normalises them, and returns class probabilities at the scale of the training
loss; its class names and a model card travel with it. Before the command says done, a new process has loaded it and
returned what the run's model returns.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import keras

import tf_mmloss
from tf_mmloss.cli import program
from tf_mmloss.export import export_saved_model
from tf_mmloss.runs import folder as run_folder
from tf_mmloss.train import experiment, presets

CARD = """# {method} on {data}

A {network} that tells {classes} classes of small images apart, trained on imbalanced classes. This card is
generated from the run's folder.

```python
model = tf.saved_model.load("THIS_FOLDER").signatures["serving_default"]
model(tf.constant(images))["probabilities"]  # uint8 (B, height, width, channels); normalised inside
```

## Data

- {origin}
- {images} training images, {data}, subset seed {config.subset_seed}; evaluated on the {metrics[evaluated_on]}

## Recipe

- {config.method}: {loss}({options})
- {config.epochs} epochs, batch {config.batch_size}, learning rate {config.learning_rate}, weight decay
  {config.weight_decay}, seed {config.seed}, trained in {config.precision}, served in float32
- commit {commit}; {versions}; {machine}; {duration}
- checksum of the weights {metrics[checksum]}

## Results

Top-1 error of the last epoch {metrics[error]:.2%}: one run, so no spread. Mean confidence
{metrics[mean_confidence]:.2%}, expected calibration error {metrics[calibration_error]:.2%} (15 bins).

| class | training images | error |
|-|-|-|
{rows}

## Limits

- The rarest class had {rarest} training images; the table shows what that costs.
- Only images like those of the data set, in size and framing, give meaningful probabilities; anything else is given a
  class too. The probabilities were not calibrated after the training.
- A research model: not for decisions about people or safety.

## Licence

The weights are under this project's licence (MIT). What the terms of the images say of models trained on them is for
the user to judge.
"""


def export(run: Path, out: Path) -> float:
    """Export the last epoch of a finished run; return the largest difference found by the check.

    Raises:
        RunFolderError: no finished run folder, or one of another version.
        FileExistsError: `out` is there already.
    """
    needed = ("calibration_error", "mean_confidence", "checksum")
    config, metrics = run_folder.read_config(run), run_folder.read_json(run, "metrics.json", needed)
    trained = keras.models.load_model(run / "last.keras")
    if experiment.checksum(trained) != metrics["checksum"]:
        raise run_folder.RunFolderError(f"{run} has in last.keras other weights than those that metrics.json is of.")
    keras.config.set_dtype_policy("float32")  # serve in float32, whatever the run was trained in
    model = keras.models.clone_model(trained, clone_function=_in_float32)
    model.set_weights(trained.get_weights())
    metadata: dict[str, Any] = {
        "dataset": config.dataset,
        "method": config.method,
        "cls_counts": metrics["cls_counts"],
        "held_out_error" if config.holdout else "test_error": metrics["error"],
        "per_class_error": metrics["per_class_error"],
        "checksum": metrics["checksum"],
    }
    return export_saved_model(
        model,
        out,
        normalize=tf_mmloss.normalization(metrics["mean"], metrics["std"]),
        scale=trained.loss.scale,
        class_names=metrics["class_names"],
        metadata=metadata,
        card=card(config, metrics, run_folder.read_json(run, "environment.json"), _origin(run, config)),
    )


def _origin(run: Path, config: presets.Config) -> str:
    if config.is_own:
        return str(run_folder.read_json(run, "data.json", ["origin"])["origin"])
    return presets.RECIPES[config.dataset].origin


def card(config: presets.Config, metrics: dict[str, Any], environment: dict[str, Any], origin: str) -> str:
    """The model card of a run, in Markdown."""
    start = environment["starts"][0]
    rows = zip(metrics["class_names"], metrics["cls_counts"], metrics["per_class_error"], strict=True)
    return CARD.format(
        method=run_folder.method_label(config.method),
        data=run_folder.data_label(vars(config)),
        origin=origin,
        classes=len(metrics["class_names"]),
        images=f"{sum(metrics['cls_counts']):,}",
        rarest=f"{min(metrics['cls_counts']):,}",
        loss=presets.METHODS[config.method].loss,
        options=", ".join(f"{name}={value!r}" for name, value in config.loss_arguments.items()),
        versions=", ".join(f"{name} {version}" for name, version in start["versions"].items()),
        machine=f"{start['processor']}, {start['cores']} cores",
        commit=start["commit"],
        duration=run_folder.duration(metrics["seconds"]),
        rows="\n".join(f"| {name} | {count:,} | {error:.2%} |" for name, count, error in rows),
        network=config.backbone if config.depth is None else f"ResNet-{config.depth}",
        config=config,
        metrics=metrics,
    )


def _in_float32(layer: Any) -> Any:
    return layer.__class__.from_config({**layer.get_config(), "dtype": "float32"})


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog=program("export"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run folder")
    parser.add_argument("--out", type=Path, help="default: saved_models/ and the run's name")
    options = parser.parse_args(arguments)
    out = options.out or Path("saved_models") / options.run.resolve().name
    try:
        difference = export(options.run, out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{out}: reloaded in a new process, largest difference of a probability {difference:.1e}")
    return 0
