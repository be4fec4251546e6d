"""What a run predicted for each evaluated image, kept in its folder: 8 to 10 bytes an image."""

import dataclasses
import io
from pathlib import Path

import numpy as np

from tf_mmloss._validation import group_numbers
from tf_mmloss.files import atomic_path, read_bytes
from tf_mmloss.runs.folder import RunFolderError

NAME = "predictions.npy"
# More images are none of ours.
MOST_BYTES = 2**30
_STEPS = 65535  # of a confidence


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The evaluated images of a run, in their order.

    Args:
        labels: (N,) true classes.
        predicted: (N,) the classes of the largest logits.
        confidence: (N,) the probability of the predicted class, to 1 / 65535; None: the loss has none.
        calibrated: (N,) the same after temperature scaling, see `tf_mmloss.evaluation.calibrated`; None: not computed.
        groups: (N,) keys of images that belong together, saved as their numbers; None: each stands alone.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray | None = None
    calibrated: np.ndarray | None = None
    groups: np.ndarray | None = None


_WHOLE = ("labels", "predicted", "groups")  # the columns of whole numbers; the others are shares


def save(folder: Path, predictions: Predictions) -> None:
    """Write RUN/predictions.npy: a row an image, with named columns; confidences in 65535ths."""
    columns = {
        name: value if name in _WHOLE else np.rint(_STEPS * value)
        for name, value in vars(predictions).items()
        if value is not None
    }
    if "groups" in columns:
        columns["groups"] = group_numbers(columns["groups"], len(predictions.labels))
    wide = max(int(column.max(initial=0)) for column in columns.values()) > _STEPS
    array = np.empty(len(predictions.labels), [(name, "<u4" if wide else "<u2") for name in columns])
    for name, column in columns.items():
        array[name] = column
    with atomic_path(folder / NAME) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def read(folder: Path, num_classes: int) -> Predictions | None:
    """Read the predictions of a run folder; None: it has none, as those of earlier versions.

    Args:
        folder: the run's.
        num_classes: C, of its metrics.json.

    Raises:
        RunFolderError: the file is something else.
    """
    path = folder / NAME
    try:
        content = read_bytes(path, limit=MOST_BYTES, within=folder)
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged header may fail in any way
        raise RunFolderError(f"{path} holds no predictions: {str(error)[:200]}") from error
    names = array.dtype.names or ()
    fields = Predictions.__dataclass_fields__
    expected = {"labels", "predicted"} <= set(names) <= set(fields)
    if not expected or array.ndim != 1 or any(array.dtype[name] not in (np.uint16, np.uint32) for name in names):
        raise RunFolderError(f"{path} holds no predictions: it has {str(array.dtype)[:200]} of shape {array.shape}.")
    if len(array) and max(array["labels"].max(), array["predicted"].max()) >= num_classes:
        raise RunFolderError(f"{path} has classes that the run does not have.")
    whole = {name: array[name].astype(np.int64) for name in names if name in _WHOLE}
    shares = {name: array[name] / _STEPS for name in names if name not in _WHOLE}
    if any(share.max(initial=0) > 1 for share in shares.values()):
        raise RunFolderError(f"{path} has a confidence that is larger than 1.")
    return Predictions(**whole, **shares)
