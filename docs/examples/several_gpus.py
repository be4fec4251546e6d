"""Several GPUs of one host: build and compile under the strategy. Without GPUs it takes the processors."""

import keras
import numpy as np
import tensorflow as tf

from tf_mmloss import SGD, CosineDense, DeferredReweighting, MaxMarginLoss

devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
cls_counts = [40, 15, 5]
labels = np.repeat([0, 1, 2], cls_counts)
points = np.eye(3, dtype="float32")[labels]
with tf.distribute.MirroredStrategy([device.name for device in devices]).scope():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, CosineDense(3)(keras.layers.Dense(8, activation="relu")(inputs)))
    model.compile(SGD(0.1), MaxMarginLoss(cls_counts))
history = model.fit(points, labels, batch_size=20, epochs=2, verbose=0, callbacks=[DeferredReweighting(1)]).history
print(len(devices), history["reweighting"])
