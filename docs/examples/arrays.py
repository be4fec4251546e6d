"""Arrays and a table: train on arrays, and open a table of paths and labels."""

from pathlib import Path

import numpy as np
from PIL import Image

from tf_mmloss.data import load_images
from tf_mmloss.train import Config, run

rng = np.random.default_rng(0)
labels = np.repeat([0, 1, 2], [40, 15, 5])
images = (60 * labels[:, None, None, None] + rng.integers(0, 60, (60, 16, 16, 3))).astype("uint8")

# Arrays: x and y, or x_train, y_train, x_test and y_test.
np.savez("data.npz", x=images, y=labels)
metrics = run(Config(dataset="data.npz", method="balanced-softmax", depth=8, epochs=2), "runs/arrays")
print(metrics["error"])

# A table: path, label and, where there is one, split. Paths are relative to the table.
Path("pictures").mkdir()
rows = ["path,label"]
for i, (image, label) in enumerate(zip(images, labels, strict=True)):
    Image.fromarray(image).save(f"pictures/{i}.png")
    rows.append(f"pictures/{i}.png,{('common', 'medium', 'rare')[label]}")
Path("labels.csv").write_text("\n".join(rows) + "\n")
print(load_images("labels.csv").class_names)
