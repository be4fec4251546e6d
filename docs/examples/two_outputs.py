"""Two outputs: a loss and a callback for each, aimed by the output's name."""

import keras
import numpy as np

from tf_mmloss import CosineDense, CrossEntropyLoss, DeferredReweighting, LDAMLoss, imbalance

rng = np.random.default_rng(0)
kind, age = np.repeat([0, 1, 2], [40, 15, 5]), rng.integers(0, 2, 60)
points = np.concatenate([np.eye(3)[kind], np.eye(2)[age]], axis=1).astype("float32")
kinds, ages = imbalance.class_counts(kind), imbalance.class_counts(age)

inputs = keras.Input((5,))
features = keras.layers.Dense(16, activation="relu")(inputs)
outputs = {"kind": CosineDense(3, name="kind")(features), "age": keras.layers.Dense(2, name="age")(features)}
model = keras.Model(inputs, outputs)
model.compile("sgd", {"kind": LDAMLoss(kinds), "age": CrossEntropyLoss()})
callbacks = [DeferredReweighting(2, output="kind"), DeferredReweighting(1, ages, output="age")]
history = model.fit(points, {"kind": kind, "age": age}, epochs=3, verbose=0, callbacks=callbacks).history
print(history["kind_reweighting"], history["age_reweighting"])
