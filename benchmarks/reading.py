"""20,000 JPEGs in class folders to the augmented batches of an epoch at 64 x 64: ours, Keras' and PyTorch's ways.

All crop to a square, pad by 8, crop at random and mirror. Ours decodes once, into a cache on the disk: "first" empties
it before, "later" finds it. Keras and PyTorch decode in every epoch.
"""

import importlib.metadata
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import peer
from peer import use_threads

SIDE, PAD = 64, 8
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


_largest = 0


def peak() -> int:
    """Largest memory so far, in bytes, without the mapped files: each epoch of ours maps its cache anew."""
    global _largest
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # where the system does not tell, they count
        return peer.peak()
    _largest = max(_largest, 1024 * int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]))
    return _largest


def _watch() -> None:
    while True:
        peak()
        time.sleep(0.05)


def folder(images: int) -> Path:
    """Class folders of JPEGs of about 200 x 150, made once: smooth colours, and noise as a camera has it."""
    root = Path(tempfile.gettempdir()) / f"tf_mmloss-reading-{images}"
    if root.exists():
        return root
    from PIL import Image

    making = Path(tempfile.mkdtemp(dir=root.parent, prefix=root.name))

    def make(i: int) -> None:
        rng = np.random.default_rng(i)
        width, height = int(rng.integers(180, 221)), int(rng.integers(135, 166))
        colours = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), 3)
        noisy = np.asarray(colours, np.int16) + rng.integers(-12, 13, (height, width, 3), dtype=np.int16)
        label = making / f"class {i % 10}"
        label.mkdir(exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(label / f"{i:05d}.jpg", quality=90)

    with ThreadPoolExecutor() as pool:
        list(pool.map(make, range(images)))
    try:
        making.rename(root)
    except OSError:
        shutil.rmtree(making)
        if not root.exists():
            raise
        # another contestant made the same images meanwhile
    return root


def prepare(kind: str, images: int, batch: int, threads: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return a function that goes through one epoch of `kind`: "first", "later", "keras" or "torch"."""
    use_threads(threads)
    root = folder(images)
    epochs: dict[str, Callable[[], Iterator[Any]]] = {
        "first": lambda: _package(root, batch, threads, kept=False),
        "later": lambda: _package(root, batch, threads, kept=True),
        "keras": lambda: _keras(root, batch, threads),
        "torch": lambda: _torch(root, batch, threads),
    }

    def epoch() -> None:
        seen = sum(len(x) for x, _ in epochs[kind]())
        assert seen == images, seen

    threading.Thread(target=_watch, daemon=True).start()
    versions = {name: importlib.metadata.version(name) for name in ("pillow", "simplejpeg")}
    return epoch, {"peak": peak(), "versions": versions}


def _package(root: Path, batch: int, threads: int, kept: bool) -> Iterator[Any]:
    """The package's: read into a cache, from which batches are drawn."""
    import tf_mmloss
    from tf_mmloss.data import load_images
    from tf_mmloss.datasets.rows import Rows
    from tf_mmloss.pipeline import steps_per_epoch, train_dataset

    cache = root.with_name(f"{root.name}-cache{'' if kept else '-first'}")
    if not kept:
        shutil.rmtree(cache, ignore_errors=True)
    images = load_images(root, image_size=SIDE, cache_dir=cache, workers=threads, progress=lambda *_: None)
    data = train_dataset(
        Rows(images.x, np.arange(len(images.y))),  # as the trainer has them
        images.y,
        num_classes=images.num_classes,
        normalize=tf_mmloss.normalization(MEAN, STD),
        batch_size=batch,
        pad=PAD,
    )
    yield from data.take(steps_per_epoch(len(images.y), batch))


def _keras(root: Path, batch: int, threads: int) -> Iterator[Any]:
    """Keras' reader and its layers, as its guides put them together."""
    import keras
    import tensorflow as tf

    data = keras.utils.image_dataset_from_directory(
        root, image_size=(SIDE, SIDE), batch_size=batch, crop_to_aspect_ratio=True, seed=0, verbose=False
    )
    change = keras.Sequential(
        [
            keras.layers.ZeroPadding2D(PAD),
            keras.layers.RandomCrop(SIDE, SIDE),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.Rescaling(1 / 255 / STD[0], -MEAN[0] / STD[0]),
        ]
    )
    data = data.map(lambda x, y: (change(x, training=True), y), num_parallel_calls=threads)
    yield from data.prefetch(tf.data.AUTOTUNE)


def _torch(root: Path, batch: int, threads: int) -> Iterator[Any]:
    """PyTorch's DataLoader with a process a thread, Pillow and NumPy: what torchvision's ImageFolder does."""
    from torch.utils.data import DataLoader

    yield from DataLoader(_Folder(root), batch, shuffle=True, num_workers=threads)


class _Folder:
    def __init__(self, root: Path) -> None:
        self.paths = sorted(root.glob("*/*.jpg"))
        names = sorted({path.parent.name for path in self.paths})
        self.labels = [names.index(path.parent.name) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        from PIL import Image, ImageOps

        with Image.open(self.paths[i]) as image:
            pixels = np.asarray(ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR))
        rng = np.random.default_rng()
        top, left = rng.integers(0, 2 * PAD + 1, 2)
        pixels = np.pad(pixels, ((PAD, PAD), (PAD, PAD), (0, 0)))[top : top + SIDE, left : left + SIDE]
        pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
        return (pixels.astype(np.float32) / 255 - MEAN[0]) / STD[0], self.labels[i]
