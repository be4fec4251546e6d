"""Where CIFAR is looked for, and what happens when it is nowhere."""

import os
import tempfile
from pathlib import Path
from urllib.error import HTTPError

from tf_mmloss.datasets.base import ImageDataset
from tf_mmloss.datasets.cifar import CifarSpec
from tf_mmloss.datasets.cifar_python import find_python_version, read_python_version
from tf_mmloss.datasets.cifar_tfds import MARKER, find_tfds, prepare_tfds, read_tfds, tfds_cache
from tf_mmloss.files import keras_cache, keras_home


def load_cifar(spec: CifarSpec, data_dir: str | os.PathLike[str] | None = None, download: bool = True) -> ImageDataset:
    """Return CIFAR from `data_dir`, or from the caches of Keras and TFDS, or from a download.

    Args:
        spec: Which CIFAR.
        data_dir: The archive, the extracted folder, or a folder with either or with a prepared TFDS data set.
            The caches are not looked at and nothing is downloaded when it is given.
        download: Whether to download what is in no cache.

    Raises:
        FileNotFoundError: Nothing was found; a failed download is its cause.
        ModuleNotFoundError: `data_dir` holds a TFDS data set and TFDS is not installed.
        TypeError: `data_dir` is no path.
        ValueError: `data_dir` is no file or folder, or has letters that the file system cannot name, or what was
            found is damaged, foreign or not to be trusted.
    """
    looked: list[str] = []
    if data_dir is not None:
        place = _place(data_dir)
        found = find_python_version(place, spec, looked) or find_tfds(place, spec, looked)
        if found is None:
            raise FileNotFoundError(_not_found(spec, looked, "Nothing else is tried when `data_dir` is given."))
        return _read(found, spec)

    found = None
    for cache in dict.fromkeys((keras_home() / "datasets", keras_cache("datasets"))):
        found = found or find_python_version(cache, spec, looked)
    found = found or find_tfds(tfds_cache(), spec, looked)
    if found is not None:
        try:
            return _read(found, spec)
        except ImportError as error:
            looked.append(str(error))
    if not download:
        raise FileNotFoundError(_not_found(spec, looked, "Nothing was downloaded: `download` is False."))
    try:
        found = _download(spec)
    except Exception as error:  # Keras' downloader raises a bare Exception
        raise FileNotFoundError(_not_found(spec, looked, f"The download failed: {error}")) from error
    return _read(found, spec)


def _place(data_dir: str | os.PathLike[str]) -> Path:
    if not isinstance(data_dir, (str, os.PathLike)):
        raise TypeError(f"`data_dir` must be a path. Received: data_dir={data_dir!r}")
    place = Path(os.path.expanduser(data_dir))
    try:
        os.fsencode(place)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"`data_dir` has letters that a file name cannot have in the encoding {error.encoding!r}. Choose a locale "
            f"of UTF-8, as by `LC_ALL=C.UTF-8`, or set `PYTHONUTF8=1`. Received: data_dir={str(place)!a}"
        ) from None
    if place.exists() and not (place.is_dir() or place.is_file()):
        raise ValueError(f"{place}: refused, neither a file nor a folder")
    return place


def fetch_archive(spec: CifarSpec) -> Path:
    """Download the public archive with Keras into the Keras cache, checked by its hash; return its path.

    Keras' own loader deletes a file of another hash that it finds in its cache. So the download goes to a new
    folder, where there is nothing to delete, and only the verified archive is moved into the cache.
    """
    import keras

    loader = getattr(keras.datasets, spec.name).load_data
    ending = f"/{spec.archive}"
    origin = next((c for c in loader.__code__.co_consts if isinstance(c, str) and c.endswith(ending)), None)
    if origin is None:
        raise LookupError(f"this version of Keras does not say where {spec.archive} is")
    cache = keras_cache("datasets")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=cache) as fresh:
        archive = keras.utils.get_file(spec.archive, origin, file_hash=spec.sha256, cache_dir=fresh, cache_subdir="")
        return Path(archive).rename(cache / spec.archive)


def _download(spec: CifarSpec) -> Path:
    try:
        return fetch_archive(spec)
    except Exception as error:
        reason = error.__context__ or error
        if isinstance(reason, OSError) and not isinstance(reason, HTTPError):
            raise  # No connection: TFDS asks the same host, ten times over several minutes.
        return prepare_tfds(spec)


def _read(found: Path, spec: CifarSpec) -> ImageDataset:
    return read_tfds(found, spec) if os.path.lexists(found / MARKER) else read_python_version(found, spec)


def _not_found(spec: CifarSpec, looked: list[str], note: str) -> str:
    paths = "\n".join(f"  {line}" for line in looked)
    return (
        f"{spec.name} was not found. Looked at:\n{paths}\n{note}\n"
        f"Put {spec.archive}, the folder {spec.folder} extracted from it, or a folder {spec.name} prepared "
        f"by TFDS into a folder of your choice and give that folder as `data_dir` (`--data-dir`), or put "
        f"{spec.archive} into {keras_cache('datasets')}."
    )
