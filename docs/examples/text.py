"""Text: the losses take any model's outputs. A bag of words, re-weighted from the sixth epoch on."""

import keras
import numpy as np

from tf_mmloss import BalancedAccuracy, CosineDense, DeferredReweighting, LDAMLoss, imbalance

# Word numbers, 0 for none, as keras.layers.TextVectorization gives them; here the label shows in the words.
rng = np.random.default_rng(0)
labels = np.repeat([0, 1, 2], [200, 40, 10])
words = rng.integers(1, 100, (len(labels), 12))
words[:, :4] = 100 + labels[:, None]

cls_counts = imbalance.class_counts(labels)
keras.utils.set_random_seed(0)
inputs = keras.Input((12,), dtype="int32")
features = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(103, 16)(inputs))
model = keras.Model(inputs, CosineDense(3)(keras.layers.Dense(16, activation="relu")(features)))
model.compile(keras.optimizers.Adam(0.01), LDAMLoss(cls_counts), metrics=[BalancedAccuracy(3)])
model.fit(words, labels, batch_size=32, epochs=8, verbose=0, callbacks=[DeferredReweighting(6)])
accuracy = model.evaluate(words, labels, return_dict=True, verbose=0)["balanced_accuracy"]
print(accuracy)
