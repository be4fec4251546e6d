"""Every method trains, and a run of it that is continued inside its last stage ends like one that was not stopped.

On a network of one convolution, and without the pages and pictures of a run, so that it takes a second a method.
"""

import shutil

import keras
import pytest
from helpers import BACKEND, use_backbone

from tf_mmloss import BatchNormalization
from tf_mmloss.methods import METHODS, is_function
from tf_mmloss.runs.folder import epochs_saved
from tf_mmloss.train import environment, experiment, network, result
from tf_mmloss.train.config import Config
from tf_mmloss.train.resolve import resolve
from tf_mmloss.train.stages import stages

# Runs of these are resumed in test_experiment.py, test_stages.py, test_methods.py, test_ema.py and
# test_influence_balanced.py; `ldam-drw-ssp` trains rotations before.
ELSEWHERE = ("mm-drw", "crt", "mislas", "erm-drw", "gcl", "seesaw", "ldam-drw", "ib", "rotation")
NAMES = [name for name in METHODS if not is_function(name) and name not in ELSEWHERE]
pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="once is enough")


@pytest.fixture
def tiny(monkeypatch):
    """A tiny network, and runs that leave nothing but what is needed to continue them."""
    import tensorflow as tf

    def build(spec, shape, weights):
        images = keras.Input(shape)
        x = BatchNormalization(name="bn")(keras.layers.Conv2D(8, 3, use_bias=False, name="conv")(images))
        return keras.Model(images, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x)), name="tiny")

    use_backbone(build, monkeypatch)
    monkeypatch.setattr(result, "draw_figures", lambda *_: None)
    monkeypatch.setattr(experiment.page, "write", lambda folder: None)
    monkeypatch.setattr(result, "keep_predictions", lambda *_: None)
    monkeypatch.setattr(network, "save", lambda model, path: model.save(path) if path.stem == "last" else None)
    monkeypatch.setattr(experiment, "has_tensorflow", lambda: False)  # no TensorBoard
    monkeypatch.setattr(environment, "_commit", lambda: None)
    tf.config.run_functions_eagerly(True)  # a step is less work than its compilation
    config = {"dataset": "digits", "ratio": 20, "backbone": "tiny", "learning_rate": 0.02, "batch_size": 138}
    yield Config(**config, jit="off", eval_every=3, seed=3)
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_trains_and_resumes_bit_for_bit_inside_its_last_stage(name, tiny, tmp_path):
    several = len(METHODS[name].own_stages) > 1
    given = {"method": name, "epochs": 2 + several, "start_epoch": 1 if several else None}
    config = resolve(Config(**{**tiny.values(), **given}))

    def copy():
        """Keep the run as it is before its last epoch."""
        if epochs_saved(tmp_path / "whole") == config.epochs - 1:
            shutil.copytree(tmp_path / "whole", tmp_path / "stopped", ignore=shutil.ignore_patterns(".lock"))
        return False

    whole = experiment.run(config, tmp_path / "whole", stop=copy)
    assert stages(config)[-1][0] < config.epochs - 1
    assert not (tmp_path / "stopped" / "metrics.json").exists()
    assert experiment.run(config, tmp_path / "stopped", resume=True)["checksum"] == whole["checksum"]
