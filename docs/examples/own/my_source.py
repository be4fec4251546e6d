"""A folder with one array of images a class: pictures/cat.npy, pictures/dog.npy."""

from pathlib import Path

import numpy as np

from tf_mmloss.data import Source


def open_arrays(folder, data_dir=None) -> Source:
    files = sorted(Path(folder).glob("*.npy"))
    arrays = [np.load(file, mmap_mode="r") for file in files]
    counts = [len(array) for array in arrays]
    labels = np.repeat(np.arange(len(files)), counts)
    rows = np.concatenate([np.arange(count) for count in counts])

    def read(positions):
        return [np.array(arrays[labels[i]][rows[i]]) for i in positions]

    names = [f"{files[label].name}[{row}]" for label, row in zip(labels, rows, strict=True)]
    return Source(str(folder), tuple(file.stem for file in files), labels, names, read)


def pictures() -> Source:
    return open_arrays("pictures")
