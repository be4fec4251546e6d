"""Recipes of training: what they fill in, and that they fill in nothing else."""

import dataclasses

import pytest

from tf_mmloss.methods import METHODS
from tf_mmloss.train.config import Config
from tf_mmloss.train.presets import TRAININGS
from tf_mmloss.train.resolve import pretraining, resolve, training
from tf_mmloss.train.show import show


@pytest.mark.parametrize("method", ["ldam-drw", "mm-drw", "balanced-softmax"])
def test_strong_is_what_son_et_al_train_with(method):
    strong = resolve(Config(method=method, recipe="strong"))
    assert (strong.augment, strong.schedule, strong.batch_size) == ("autoaugment,cutout", "cosine", 64)
    assert (strong.epochs, strong.learning_rate, strong.weight_decay, strong.pad, strong.flip) == (
        200,
        0.1,
        2e-4,
        4,
        True,
    )
    assert strong.classifier == "cosine"
    assert strong.start_epoch == (160 if method.endswith("-drw") else None)
    assert resolve(strong) == strong
    assert strong.name == f"cifar10-longtail100-{method}-strong-seed0"


@pytest.mark.parametrize("recipe", TRAININGS)
def test_the_digits_keep_their_batch_and_rate_in_every_recipe(recipe):
    config = resolve(Config(dataset="digits", ratio=20, recipe=recipe))
    assert (config.batch_size, config.learning_rate) == (16, 0.03)
    assert resolve(Config(dataset="digits", ratio=20, recipe=recipe, batch_size=64)).batch_size == 64


@pytest.mark.parametrize("given", [{"imbalance": ["longtail"]}, {"ratio": [100]}])
def test_record_refuses_a_training_set_that_is_none(given):
    with pytest.raises(ValueError, match=f"`{next(iter(given))}` must be"):
        resolve(Config(recipe="record", **given))


def test_balanced_softmax_with_a_cosine_head_has_its_published_scale():
    assert resolve(Config(method="balanced-softmax", recipe="strong")).scale == 32
    assert resolve(Config(method="balanced-softmax")).scale == 1
    assert resolve(Config(method="balanced-softmax", classifier="cosine", scale=16.0)).scale == 16
    assert resolve(Config(method="vs", classifier="cosine")).scale == 30


def test_a_config_without_a_recipe_is_the_papers():
    plain = resolve(Config())
    assert plain == resolve(Config(recipe="paper"))
    assert (plain.augment, plain.schedule, plain.batch_size, plain.classifier) == ("none", "step", 128, "cosine")


@pytest.mark.parametrize(
    "given", [{"schedule": "step"}, {"augment": "none"}, {"batch_size": 128}, {"classifier": "dense", "scale": 1.0}]
)
def test_what_is_given_wins_and_show_says_so(given):
    config = resolve(Config(method="balanced-softmax", recipe="strong", **given))
    assert {name: getattr(config, name) for name in given} == given
    changed = next(iter(given))
    taken, kept = next(line for line in show(config).splitlines() if line.startswith("recipe ")).split("; as given: ")
    assert kept == f"{changed} = {given[changed]}"
    assert changed not in taken
    assert len(taken.split(", ")) == len(TRAININGS["strong"])
    assert "searched on balanced CIFAR-10" in show(config)


def test_record_has_the_published_radii_and_weight_decay_of_the_training_set():
    record = resolve(Config(method="ldam-drw", recipe="record"))
    assert (record.epochs, record.sam, record.sam_late, record.weight_decay) == (400, 0.1, 0.2, 2e-4)
    assert (record.schedule, record.batch_size, record.augment) == ("step", 128, "autoaugment,cutout")
    other = resolve(Config(dataset="cifar100", ratio=10, imbalance="longtail", recipe="record", sam=0.3))
    assert (other.sam, other.sam_late, other.weight_decay) == (0.3, 0.3, 1e-4)
    assert resolve(record) == record
    assert resolve(Config(recipe="record", optimizer="adamw")).weight_decay == 0.05


def test_a_method_of_one_head_keeps_it():
    for method in ("focal", "ldam"):
        assert resolve(Config(method=method, recipe="strong")).classifier == METHODS[method].head


@pytest.mark.parametrize("method", ["erm", "erm-drw", "cb-rs", "cb-rw", "crt", "lws"])
def test_cross_entropy_may_have_a_cosine_head_which_no_recipe_gives_it(method):
    for recipe in ("paper", "strong"):
        plain = resolve(Config(method=method, recipe=recipe))
        assert (plain.classifier, plain.scale) == ("dense", 1)
        cosine = resolve(Config(method=method, recipe=recipe, classifier="cosine"))
        assert (cosine.classifier, cosine.scale) == ("cosine", 32)
        assert resolve(cosine) == cosine


def test_own_images_keep_the_batch_that_follows_from_their_number(tmp_path):
    given = {"epochs": 20, "pad": 1, "flip": True, "batch_size": 16, "learning_rate": 0.0125, "image_size": "8"}
    own = resolve(Config(dataset=str(tmp_path), recipe="strong", **given))
    assert (own.batch_size, own.schedule) == (16, "cosine")
    assert "batch_size" not in training(own)


def test_the_backbone_of_rotations_is_trained_without_augmentation():
    backbone = pretraining(resolve(Config(method="ldam-drw-ssp", recipe="strong")))
    assert backbone is not None
    assert (backbone.augment, backbone.classifier, backbone.schedule) == ("none", "dense", "cosine")
    assert resolve(Config(method="rotation", recipe="strong")).augment == "none"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"recipe": "strongest"}, "`recipe` must be one of .*Did you mean 'strong'"),
        ({"recipe": 3}, "`recipe`"),
        ({"classifier": "cosin"}, "`classifier` must be one of dense, cosine"),
        ({"method": "mm-drw", "classifier": "dense"}, "`classifier` of method mm-drw must be cosine"),
        ({"method": "focal", "classifier": "cosine"}, "`classifier` of method focal must be dense"),
    ],
)
def test_bad_names_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        resolve(Config(**given))


def test_record_says_what_it_has_not():
    assert "ADRW with TLA from 4/5 of the epochs on) are no part of it" in show(resolve(Config(recipe="record")))


def test_an_influence_at_a_high_rate_is_said():
    said = (
        "the influence counts from epoch 160 on, at a learning rate of 0.01, where a hundredth of the first one, 0.001"
    )
    assert said in show(resolve(Config(method="ib", recipe="strong")))
    for quiet in ({"method": "ib"}, {"method": "ib", "recipe": "strong", "start_epoch": 190}, {"recipe": "strong"}):
        assert "the influence counts" not in show(resolve(Config(**quiet)))


def test_a_method_says_whether_it_has_a_cosine_head():
    with pytest.raises(ValueError, match="`cosine`"):
        dataclasses.replace(METHODS["ldam"], cosine={})


def test_a_run_of_it_builds_the_head_and_records_every_value(tmp_path):
    pytest.importorskip("tensorflow", reason="the augmentation is on the host input, which is TensorFlow's")
    from tf_mmloss.layers import CosineDense
    from tf_mmloss.runs.folder import read_json
    from tf_mmloss.runs.saved import load
    from tf_mmloss.train import run

    asked = {"dataset": "digits", "ratio": 20, "method": "balanced-softmax", "depth": 8, "epochs": 1}
    run(Config(**asked, recipe="strong"), tmp_path / "run")
    model = load(tmp_path / "run" / "last.keras")
    assert isinstance(model.get_layer("head"), CosineDense)
    assert model.loss.scale == 32
    written = read_json(tmp_path / "run", "config.json")
    assert {name: written[name] for name in TRAININGS["strong"]} == TRAININGS["strong"] | {"batch_size": 16}
    assert (written["recipe"], written["classifier"], written["scale"]) == ("strong", "cosine", 32)
