"""Train on images that take ten times the memory which the process uses, decoded; write memory.json.

A small run comes first, so that what follows is that of the images. The addresses that the process may have beyond it
are bounded (RLIMIT_DATA), so that the set as an array is refused; TensorFlow's allocator asks for more than it fills.
"""

import argparse
import json
import os
import re
import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from tf_mmloss.train import Config, run

HERE = Path(__file__).parent
TIMES, ADDRESSES = 10, 3  # the decoded images over what may be filled, and over what may be asked for


def network(shape: tuple[int, int, int]) -> keras.Model:
    """A network that costs nearly nothing."""
    images = keras.Input(shape)
    features = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(keras.layers.AveragePooling2D(8)(images))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(features))


def make(root: Path, images: int, side: int) -> Path:
    """Two class folders of smooth colours."""
    for label in ("often", "rare"):
        (root / label).mkdir(parents=True)

    def one(i: int) -> None:
        colours = Image.fromarray(np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8))
        path = root / ("rare" if i % 5 == 0 else "often") / f"{i}.jpg"
        colours.resize((side, side), Image.Resampling.BILINEAR).save(path, quality=80)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(images)))
    return root


def status(name: str) -> int:
    """Bytes of the process: VmData, what it asked for, or RssAnon, what of it is in memory; no mapped files."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--out", type=Path, default=HERE / "memory.json")
    args = parser.parse_args()
    decoded = 3 * args.images * args.side**2
    limit = decoded // TIMES
    sys.path.insert(0, str(HERE))
    with tempfile.TemporaryDirectory() as place:
        os.environ["TF_MMLOSS_CACHE"] = str(Path(place, "cache"))

        def train(name: str, images: int) -> None:
            data = make(Path(place, name), images, args.side)
            how = {"method": "erm", "backbone": "memory:network", "batch_size": 16, "epochs": 1}
            run(Config(dataset=str(data), image_size=str(args.side), **how), Path(place, f"{name}-run"))

        train("small", 40)  # loads and starts all that a run needs
        base, bound = status("RssAnon"), status("VmData") + decoded // ADDRESSES
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
        try:
            np.ones(decoded, np.uint8)
            sys.exit("the limit does not hold")
        except MemoryError:
            print("as an array the set does not fit", flush=True)
        seen, done = [base], threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                seen.append(status("RssAnon"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        try:
            train("large", args.images)
        finally:
            done.set()
            watcher.join()
        found = {
            "images": args.images,
            "side": args.side,
            "decoded": decoded,
            "limit": limit,
            "base": base,
            "used": max(seen) - base,
            "seconds": time.perf_counter() - began,
        }
        print(found)
        if found["used"] > limit:
            sys.exit("it took more than the limit")
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
