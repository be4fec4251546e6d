"""Export a run as a SavedModel.

    python training/export.py runs/cifar10-longtail100-mm-drw-seed0

The SavedModel takes uint8 images, normalises them, and returns class probabilities at the scale of the training
loss; its class names travel with it. Before the command says done, a new process has loaded it and returned
what the run's model returns.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import keras

import run_folder
import tf_mmloss
from tf_mmloss.export import export_saved_model


def export(run: Path, out: Path) -> float:
    """Export the last epoch of a finished run; return the largest difference found by the check.

    Raises:
        RunFolderError: no finished run folder.
        FileExistsError: `out` is there already.
    """
    config, metrics = run_folder.read_config(run), run_folder.read_json(run, "metrics.json")
    trained = keras.models.load_model(run / "last.keras")
    keras.config.set_dtype_policy("float32")  # serve in float32, whatever the run was trained in
    model = keras.models.clone_model(trained, clone_function=_in_float32)
    model.set_weights(trained.get_weights())
    metadata: dict[str, Any] = {
        "dataset": config.dataset,
        "method": config.method,
        "cls_counts": metrics["cls_counts"],
        "test_error": metrics["error"],
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
    )


def _in_float32(layer: Any) -> Any:
    return layer.__class__.from_config({**layer.get_config(), "dtype": "float32"})


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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


if __name__ == "__main__":
    sys.exit(main())
