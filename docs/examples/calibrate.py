"""Predict with a run's model, and calibrate: a temperature from images that it was not trained on."""

import numpy as np

from tf_mmloss.data import load_images
from tf_mmloss.evaluation import fit_temperature, softmax
from tf_mmloss.runs.model import RunModel

model = RunModel.load("runs/arrays")  # of the recipe for arrays
data = load_images("data.npz", image_size=model.image_shape[:2]).dataset()
logits = model.logits(np.asarray(data.test_images))
temperature = fit_temperature(data.test_labels, logits)
probabilities = softmax(logits / temperature)
print(temperature, probabilities.max(axis=1))
