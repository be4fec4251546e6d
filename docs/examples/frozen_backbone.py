"""A frozen backbone: only the head is trained."""

import keras
import numpy as np

from tf_mmloss import CosineDense, LDAMLoss

WEIGHTS = None  # "imagenet", where they can be downloaded

cls_counts = [20, 8, 4]
images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3)).astype("float32")
labels = np.repeat([0, 1, 2], cls_counts)

backbone = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=WEIGHTS, pooling="avg")
backbone.trainable = False
inputs = keras.Input((32, 32, 3))
scaled = keras.layers.Rescaling(1 / 127.5, -1)(inputs)  # what this backbone was trained on
features = backbone(scaled, training=False)  # batch normalisation keeps its statistics
model = keras.Model(inputs, CosineDense(3)(features))
model.compile(keras.optimizers.Adam(0.01), LDAMLoss(cls_counts))
model.fit(images, labels, batch_size=16, epochs=1, verbose=0)
trained = [weight.path for weight in model.trainable_weights if "class_weights" not in weight.path]
print(trained)
