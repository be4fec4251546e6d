"""A loop of one's own: one call a batch for the loss, one line to change the class weights. TensorFlow here."""

import keras
import numpy as np
import tensorflow as tf

from tf_mmloss import CosineDense, MaxMarginLoss, imbalance

cls_counts = [60, 20, 5]
rng = np.random.default_rng(0)
labels = np.repeat([0, 1, 2], cls_counts)
points = (np.eye(3)[labels] + 0.1 * rng.normal(size=(len(labels), 3))).astype("float32")

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(16, activation="relu"), CosineDense(3)])
optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
loss = MaxMarginLoss(cls_counts)
loss.enable_class_weights(len(cls_counts))  # before the step is compiled; weights of one
optimizer.build(model.trainable_variables)


@tf.function
def step(x, y):
    with tf.GradientTape() as tape:
        value = loss(y, model(x, training=True))
    weights = model.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(value, weights), weights, strict=True))
    return value


losses = []
for epoch in range(10):
    if epoch == 8:  # the compiled step is not traced again
        loss.class_weights.weight.assign(imbalance.class_weights(cls_counts, "effective"))
    order = np.random.default_rng(epoch).permutation(len(labels))
    batches = np.array_split(order, 4)
    losses.append(np.mean([float(step(points[rows], labels[rows])) for rows in batches]))
print(losses)
