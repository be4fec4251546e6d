"""Backbones: of ours, of keras.applications, of one's own; and training on them."""

import sys

import keras
import numpy as np
import pytest
from helpers import BACKEND, once, to_numpy

from tf_mmloss import models, normalization
from tf_mmloss.backbones import BackboneError, applications, check, open_backbone, statistics
from tf_mmloss.cli import evaluate, fit
from tf_mmloss.runs import saved
from tf_mmloss.runs.folder import read_config, read_json
from tf_mmloss.train.config import Config, code_named
from tf_mmloss.train.resolve import resolve
from tf_mmloss.train.stages import optimizer

OWN = """
import keras

def network(shape):
    images = keras.Input(shape)
    return keras.Model(images, keras.layers.Flatten()(images))

def unflat(shape):
    images = keras.Input(shape)
    return keras.Model(images, keras.layers.ReLU()(images))

def raises(shape):
    raise RuntimeError("no network today")

def nothing(shape):
    return 3

def sequence(shape):  # without a `keras.Input`
    return keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()])

def several(shape):
    images = keras.Input(shape)
    flat = keras.layers.Flatten()(images)
    return keras.Model(images, [flat, flat])

class Subclassed(keras.Model):
    def call(self, images):
        return keras.ops.mean(images, axis=(1, 2))

def subclassed(shape):
    return Subclassed()

@keras.saving.register_keras_serializable(package="of_the_test")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def layered(shape):
    images = keras.Input(shape)
    return keras.Model(images, Twice()(keras.ops.relu(keras.layers.Flatten()(images))))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_networks_of_the_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "my_networks_of_the_test"


def test_resnets_without_a_head():
    backbone, whole = open_backbone("resnet8", (8, 8, 1)), models.resnet(8, 3, input_shape=(8, 8, 1))
    assert statistics("resnet8", 1) is None
    backbone.set_weights(whole.get_weights()[: len(backbone.get_weights())])
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    features = keras.Model(whole.input, whole.get_layer("features").output)
    np.testing.assert_array_equal(to_numpy(backbone(x)), to_numpy(features(x)))


@pytest.mark.parametrize(
    ("name", "scale", "offset"),
    [
        ("MobileNetV2", [1 / 127.5] * 3, [-1] * 3),
        ("EfficientNetV2B0", [1] * 3, [0] * 3),
        ("DenseNet121", [1 / 255 / s for s in (0.229, 0.224, 0.225)], [-2.117904, -2.035714, -1.804444]),
        ("ResNet50", [1] * 3, [-123.68, -116.779, -103.939]),  # in the order of our channels, turned afterwards
    ],
)
def test_the_preprocessing_is_that_of_keras(name, scale, offset):
    found = applications._preprocessing(getattr(keras.applications, name), 3)
    np.testing.assert_allclose(found[0], scale, rtol=1e-5)
    np.testing.assert_allclose(found[1], offset, atol=1e-4)
    assert found[2] == (name == "ResNet50")


def test_a_network_of_keras_sees_what_its_preprocessing_gives():
    backbone = open_backbone("keras:VGG16", (32, 32, 3))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    ours = backbone(normalization(*statistics("keras:VGG16", 3))(images))
    theirs = backbone.layers[-1](keras.applications.vgg16.preprocess_input(images.copy()))
    np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "weights", "message"),
    [
        ("resnet32", "imagenet", "`pretrained` must be none for resnet32"),
        ("keras:EfficientNetV2B", "none", "Did you mean keras:EfficientNetV2B"),
        ("keras:MobileNetV2", "nowhere.h5", "`pretrained` must be none, imagenet or a weights file"),
        ("vgg", "none", "`backbone` must be one of resnet32"),
        ("resnet", "none", "`backbone` must be one of resnet32"),
        (3, "none", "Received: backbone=3"),
    ],
)
def test_what_is_refused_before_anything_is_built(spec, weights, message):
    with pytest.raises(BackboneError, match=message):
        check(spec, weights)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unflat", r"`backbone` must return features of shape \(batch, features\)"),
        ("raises", "raised RuntimeError: no network today"),
        ("nothing", r"must return a keras.Model of images \(8, 8, 1\) with one output: .* Received: int"),
        ("several", r"with one output: .* Received: a Functional of input shape .*, output shape \["),
        ("subclassed", "with one output: a functional one.* Received: a Subclassed of input shape None"),
        ("missing", "has no 'missing'"),
    ],
)
def test_own_networks_that_are_none(own, name, message):
    with pytest.raises(BackboneError, match=message):
        open_backbone(f"{own}:{name}", (8, 8, 1))


def test_a_sequence_of_layers_is_built_for_the_images(own):
    assert open_backbone(f"{own}:sequence", (8, 8, 1)).output_shape == (None, 4)


def test_images_that_a_network_does_not_take():
    with pytest.raises(BackboneError, match=r"keras:Xception does not take images of \(8, 8, 3\)"):
        open_backbone("keras:Xception", (8, 8, 3))


def test_without_a_network_one_line_says_where_the_weights_go(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise Exception("URL fetch failure on https://storage/weights.h5: None -- no route\nmore")  # as Keras does

    monkeypatch.setattr("keras.src.applications.mobilenet_v2.file_utils.get_file", fail)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(BackboneError) as raised:
        open_backbone("keras:MobileNetV2", (32, 32, 3), "imagenet")
    said = str(raised.value)
    assert "could not be downloaded (URL fetch failure on https://storage/weights.h5" in said
    assert f"into {tmp_path / 'models'}, or pass its path" in said
    assert "\n" not in said


def test_training_on_an_own_network(own, tmp_path, capsys):
    small = ["--dataset", "digits", "--ratio", "20", "--epochs", "1", "--jit", "off", "--optimizer", "adamw"]
    way = ["--input", "host" if BACKEND == "tensorflow" else "device"]
    out = tmp_path / "run"
    assert fit.main([*small, *way, "--method", "ldam-drw", "--backbone", f"{own}:network", "--out", str(out)]) == 0
    config = read_config(out)
    assert (config.backbone, config.depth, config.learning_rate) == (f"{own}:network", None, 1e-3)
    assert read_json(out, "metrics.json")["error"] < 0.9

    assert fit.main(["--resume", str(out)]) == 2  # a folder may be anybody's
    assert f"give --backbone {own}:network again to say that you trust it" in capsys.readouterr().err
    assert fit.main(["--resume", str(out), "--backbone", f"{own}:network"]) == 0


def test_layers_of_ones_own_are_known_once_their_module_is_imported(own, tmp_path, capsys):
    small = ["--dataset", "digits", "--ratio", "20", "--epochs", "1", "--jit", "off", "--method", "erm"]
    way = ["--input", "host" if BACKEND == "tensorflow" else "device"]
    out, spec = tmp_path / "run", f"{own}:layered"
    assert fit.main([*small, *way, "--backbone", spec, "--out", str(out)]) == 0
    keras.saving.get_custom_objects().pop("of_the_test>Twice")  # as in another process
    sys.modules.pop(own)
    assert evaluate.main([str(out), "--draws", "0"]) == 2
    assert f"give --backbone {spec} to say that you trust it" in capsys.readouterr().err
    assert evaluate.main([str(out), "--draws", "0", "--backbone", f"{own}:network"]) == 2
    assert "`backbone` must be the run's package.module:function" in capsys.readouterr().err
    assert own not in sys.modules
    assert evaluate.main([str(out), "--draws", "0", "--backbone", spec]) == 0


def test_statistics_of_a_network_that_takes_pixels():
    mean, std = statistics("keras:MobileNetV3Small", 3)
    assert std == pytest.approx((1 / 255,) * 3)
    assert mean == pytest.approx((0,) * 3)
    assert statistics("keras:VGG16", 1) == ((0.5,), (0.5,))


@once
@pytest.mark.parametrize("name", ["MobileNetV3Small", "VGG16"])
def test_a_saved_run_of_it_is_loaded_again(tmp_path, name):
    """Of one that computes with plain operations, and of one whose channels are turned."""
    backbone = open_backbone(f"keras:{name}", (32, 32, 3))
    images = keras.Input((32, 32, 3))
    model = keras.Model(images, models.add_head(backbone(images), 2))
    model.save(tmp_path / "last.keras")
    again = saved.load(tmp_path / "last.keras")
    x = np.ones((1, 32, 32, 3), "float32")
    np.testing.assert_array_equal(to_numpy(again(x)), to_numpy(model(x)))


def test_names_and_depths():
    config = resolve(Config(backbone="resnet20"))
    assert (config.backbone, config.depth, config.weight_decay) == ("resnet20", 20, 2e-4)
    assert resolve(Config(depth=20)) == config
    assert resolve(Config()).backbone == "resnet32"
    with pytest.raises(ValueError, match="`depth` must be that of backbone resnet20, or left out"):
        resolve(Config(backbone="resnet20", depth=32))
    with pytest.raises(ValueError, match="`depth` must be that of backbone keras:VGG16"):
        resolve(Config(backbone="keras:VGG16", depth=32))
    with pytest.raises(ValueError, match="`optimizer` must be one of sgd, adamw"):
        resolve(Config(optimizer="adam"))


def test_what_of_a_config_is_code():
    assert code_named(resolve(Config())) == {}
    assert code_named(Config(dataset="tfds:flowers", backbone="keras:VGG16")) == {}
    assert code_named(Config(dataset="a.b:c", backbone="os:abort")) == {"dataset": "a.b:c", "backbone": "os:abort"}
    assert code_named(Config(dataset="C:\\images")) == code_named(Config(dataset="my photos: cats")) == {}


def test_optimizers():
    config = resolve(Config(optimizer="adamw", backbone="keras:MobileNetV2", pretrained="imagenet"))
    found = optimizer(config)
    assert isinstance(found, keras.optimizers.AdamW)
    assert float(found.learning_rate) == pytest.approx(1e-4)
    assert found.weight_decay == 0.05


@pytest.fixture(scope="module")
def presets_of_hub(tmp_path_factory):
    """Two networks of KerasHub as `save_to_preset` leaves them: convolutions, and a transformer of 16 x 16 images."""
    keras_hub = pytest.importorskip("keras_hub", reason="KerasHub is an extra, and wants TensorFlow")
    folder = tmp_path_factory.mktemp("hub")
    few = {"stackwise_num_blocks": [1], "stackwise_num_strides": [1], "block_type": "basic_block"}
    convolutions = keras_hub.models.ResNetBackbone([64], [3], [64], **few, image_shape=(None, None, 3))
    scale = {"scale": [1 / 255 / s for s in (0.229, 0.224, 0.225)], "offset": [-2.117904, -2.035714, -1.804444]}
    preprocessor = keras_hub.models.ResNetImageClassifierPreprocessor(keras_hub.layers.ResNetImageConverter(**scale))
    of_resnet = keras_hub.models.ResNetImageClassifier(convolutions, num_classes=5, preprocessor=preprocessor)
    of_resnet.save_to_preset(folder / "resnet")
    transformer = keras_hub.models.ViTBackbone((16, 16, 3), 4, 1, 2, 8, 16)
    converter = keras_hub.layers.ViTImageConverter(image_size=(16, 16), scale=1 / 127.5, offset=-1.0)
    preprocessor = keras_hub.models.ViTImageClassifierPreprocessor(converter)
    keras_hub.models.ViTImageClassifier(transformer, num_classes=5, preprocessor=preprocessor).save_to_preset(
        folder / "vit"
    )
    return folder, of_resnet


def test_a_network_of_keras_hub_is_its_backbone_with_its_weights(presets_of_hub, tmp_path):
    folder, original = presets_of_hub
    backbone = open_backbone(f"hub:{folder / 'resnet'}", (12, 12, 3), "preset")
    x = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype("float32")
    theirs = original.backbone(x)
    np.testing.assert_allclose(to_numpy(backbone(x)), to_numpy(theirs).mean((1, 2)), rtol=1e-5, atol=1e-5)
    mean, std = statistics(f"hub:{folder / 'resnet'}", 3)
    np.testing.assert_allclose(mean, [0.485, 0.456, 0.406], atol=1e-6)
    np.testing.assert_allclose(std, [0.229, 0.224, 0.225], atol=1e-6)
    random = open_backbone(f"hub:{folder / 'resnet'}", (12, 12, 3), "none")
    assert np.abs(to_numpy(random(x)) - to_numpy(backbone(x))).max() > 1e-3

    images = keras.Input((12, 12, 3))
    model = keras.Model(images, models.add_head(backbone(images), 2))
    model.save(tmp_path / "last.keras")
    np.testing.assert_array_equal(to_numpy(saved.load(tmp_path / "last.keras")(x)), to_numpy(model(x)))


def test_what_of_keras_hub_is_refused(presets_of_hub, tmp_path, monkeypatch):
    import keras_hub

    from tf_mmloss.backbones import hub

    folder, _ = presets_of_hub
    assert open_backbone(f"hub:{folder / 'vit'}", (16, 16, 3), "preset").output_shape == (None, 8)
    for spec, weights, shape, message in (
        (f"hub:{folder / 'vit'}", "preset", (24, 24, 3), r"cannot be read for images of \(24, 24, 3\)"),
        (f"hub:{folder / 'resnet'}", "preset", (12, 12, 1), r"cannot be read for images of \(12, 12, 1\)"),
        (f"hub:{folder / 'resnet'}", "imagenet", (12, 12, 3), "`pretrained` must be preset or none"),
        ("hub:resnet_18_imagenett", "preset", (32, 32, 3), "Did you mean hub:resnet_18_imagenet?"),
        (f"hub:{tmp_path}", "preset", (32, 32, 3), "`backbone` must name a preset of KerasHub's image classifiers"),
    ):
        with pytest.raises(BackboneError, match=message):
            open_backbone(spec, shape, weights)

    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(keras_hub.models.ImageClassifier, "from_preset", no_network)
    with pytest.raises(BackboneError, match=r"could not be downloaded or read \(no network\)"):
        open_backbone("hub:resnet_18_imagenet", (32, 32, 3), "preset")
    assert hub.is_part_of_a_network("keras_hub>ResNetBackbone")
    assert not hub.is_part_of_a_network("keras_hub>BytePairTokenizer")
    assert not hub.is_part_of_a_network("keras_hub>ResNetImageConverter")
    assert not hub.is_part_of_a_network("keras_hub>nothing")


def test_without_keras_hub(monkeypatch):
    from tf_mmloss.backbones import hub

    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match=r'pip install "tf-mmloss\[hub\]"'):
        check("hub:resnet_18_imagenet", "preset")


@once
def test_training_on_a_network_of_keras_hub(presets_of_hub, tmp_path, capsys, monkeypatch):
    folder, _ = presets_of_hub
    spec = f"hub:{folder / 'resnet'}"
    images = np.random.default_rng(0).integers(0, 256, (48, 12, 12, 3)).astype("uint8")
    np.savez(tmp_path / "images.npz", x=images, y=np.arange(48) % 3)
    out = tmp_path / "run"
    short = ["--epochs", "2", "--batch-size", "16", "--jit", "off", "--method", "ldam-drw", "--out", str(out)]
    assert fit.main(["--dataset", str(tmp_path / "images.npz"), "--backbone", spec, *short]) == 0
    config = read_config(out)
    assert (config.pretrained, config.frozen_epochs, config.depth) == ("preset", 1, None)
    assert code_named(config) == {"backbone": spec}  # what it has read there may be anybody's
    (folder / "resnet").rename(folder / "moved")
    assert read_config(out) == config  # the run is whole without it
    (folder / "moved").rename(folder / "resnet")
    assert fit.main(["--resume", str(out)]) == 2
    assert f"give --backbone {spec} again" in capsys.readouterr().err
    assert fit.main(["--resume", str(out), "--backbone", spec]) == 0
