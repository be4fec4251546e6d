"""JAX or PyTorch: choose it before Keras is imported. The rest is the same on all three."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "torch", or "tensorflow"

import keras
import numpy as np

from tf_mmloss import SGD, CosineDense, DeferredReweighting, MaxMarginLoss

cls_counts = [40, 15, 5]
labels = np.repeat([0, 1, 2], cls_counts)
points = np.eye(3, dtype="float32")[labels]
inputs = keras.Input((3,))
model = keras.Model(inputs, CosineDense(3)(keras.layers.Dense(8, activation="relu")(inputs)))
model.compile(SGD(0.1), MaxMarginLoss(cls_counts))
history = model.fit(points, labels, epochs=2, verbose=0, callbacks=[DeferredReweighting(1)]).history
print(keras.backend.backend(), history["reweighting"])
