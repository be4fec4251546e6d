"""The registry of methods: what is there, what a signature gives, and methods of other packages."""

import importlib.metadata
import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import to_numpy

import tf_mmloss
from tf_mmloss import augment, decide, evaluation, methods, mix
from tf_mmloss.cli import evaluate, export, fit, page, runs
from tf_mmloss.methods import METHODS, Method, Stage, find, loss_options, named, signature
from tf_mmloss.methods.base import loss_class
from tf_mmloss.runs.folder import RunFolderError, read_config
from tf_mmloss.train import experiment, network
from tf_mmloss.train.config import Config, code_named
from tf_mmloss.train.inputs import has_tensorflow
from tf_mmloss.train.resolve import resolve
from tf_mmloss.train.show import show
from tf_mmloss.train.stages import begins, loss

ROOT = Path(tf_mmloss.__file__).resolve().parent.parent
INPUT = "host" if has_tensorflow() else "device"

# Without the functions that other tests opened.
INSTALLED = {name for name in METHODS if ":" not in name}

OWN = '''
import keras
import tf_mmloss
import tf_mmloss.losses as all_losses
from tf_mmloss import CrossEntropyLoss, losses
from tf_mmloss.methods import Method

@keras.saving.register_keras_serializable(package="own")
class Softened(CrossEntropyLoss):
    """Cross-entropy.

    Args:
        softness: how soft
            100 % is.
    """

    def __init__(self, softness: float = 2.0, **kwargs):
        super().__init__(**kwargs)
        self.softness = softness

def method():
    return Method("softened", "{module}:Softened", "Mine.")

class Inherited(CrossEntropyLoss):
    pass

class Dotted(tf_mmloss.LDAMLoss):
    pass

class OfModule(losses.LDAMLoss):
    pass

class OfFile(all_losses.LDAMLoss):
    pass

class Demanding(CrossEntropyLoss):
    def __init__(self, softness: float, **kwargs):
        super().__init__(**kwargs)

class Failing(CrossEntropyLoss):
    def __init__(self, softness: float = 2.0):
        raise KeyError("no")

def demanding():
    return Method("demanding", "{module}:Demanding", "Mine.")

def failing():
    return Method("failing", "{module}:Failing", "Mine.")

def unregistered():
    return Method("unregistered", "{module}:Inherited", "Mine.")

def foreign():
    return Method("foreign", "keras.losses:Huber", "Theirs.")

def broken():
    raise KeyError("no")

def other():
    return 1
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module in the current folder; its name."""
    module = "own_methods"
    (tmp_path / f"{module}.py").write_text(OWN.replace("{module}", module))
    monkeypatch.chdir(tmp_path)
    yield module
    for name in [name for name in METHODS if name.startswith(f"{module}:")]:
        del METHODS[name]
    sys.modules.pop(module, None)


@pytest.mark.parametrize("loss_name", sorted({method.loss for method in METHODS.values()}))
def test_options_are_those_of_the_signature(loss_name):
    expected = {
        name: parameter.default
        for name, parameter in inspect.signature(getattr(tf_mmloss, loss_name)).parameters.items()
        if name not in ("kwargs", "cls_counts", "seed", "reduction", "name", "dtype", "ignore_class")
    }
    options = signature(loss_name).options
    assert {name: option.default for name, option in options.items()} == expected
    assert all(option.help for option in options.values())
    assert {name: option.type for name, option in options.items() if expected[name] is not None} == {
        name: type(default) for name, default in expected.items() if default is not None
    }


def test_signatures_are_found_of_a_package_that_is_on_no_path(tmp_path):
    """As one that is installed for editing."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import tf_mmloss; "
        f"sys.path[:] = [place for place in sys.path if place not in ('', {str(ROOT)!r})]; "
        "from tf_mmloss.methods import signature; print(*signature('LogitAdjustedLoss').options)"
    )
    child = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert child.stdout.split() == ["tau", "scale"], child.stderr


@pytest.mark.parametrize("name", METHODS)
def test_arguments_of_every_method_are_options_of_its_loss(name):
    method = METHODS[name]
    options = signature(method.loss).options
    for arguments in (method.arguments, *method.of_dataset.values()):
        assert set(arguments) <= set(options)
    assert method.label
    assert method.source
    config = resolve(Config(dataset="digits", method=name, epochs=10))
    assert resolve(config) == config == Config(**config.values())
    assert type(loss(config, [30] * 10)) is loss_class(method.loss)


def test_the_registry_and_help_need_no_keras():
    code = "import sys; from tf_mmloss import methods; methods.loss_options(); assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_has_every_option_under_its_methods(capsys):
    with pytest.raises(SystemExit, match="0"):
        fit.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for name in loss_options():
        assert f"--{name.replace('_', '-')}" in shown
    assert "delta^+ / delta^-, > 0. Default 1.5" in shown


def test_help_has_every_mixing_augmentation_and_decision(capsys):
    kinds = {"mix": mix.mixings(), "augment": augment.augmentations(), "decide": decide.decisions()}
    for kind, classes in kinds.items():
        assert named(f"tf_mmloss.{kind}") == {name: found.help for name, found in classes.items()}
    for command, shown_kinds in ((fit, kinds), (evaluate, ["decide"])):
        with pytest.raises(SystemExit, match="0"):
            command.main(["--help"])
        shown = " ".join(capsys.readouterr().out.split())
        for kind in shown_kinds:
            assert "; ".join(f"{name}: {found.help}" for name, found in sorted(kinds[kind].items())) in shown


def test_a_function_of_ones_own_has_its_options_and_trains(own, capsys):
    spec = f"{own}:method"
    with pytest.raises(SystemExit, match="0"):
        fit.main(["--method", spec, "--help"])
    assert f"{spec}: how soft 100 % is." in " ".join(capsys.readouterr().out.split())
    common = ["--dataset", "digits", "--ratio", "20", "--epochs", "1", "--depth", "8", "--out", "run", "--input", INPUT]
    assert fit.main([*common, "--method", spec, "--softness", "3"]) == 0
    assert read_config(Path("run")).softness == 3
    del METHODS[spec]  # as in another process
    with pytest.raises(RunFolderError, match="is a function that the run would call: give --method"):
        read_config(Path("run"))
    assert fit.main(["--resume", "run"]) == 2
    assert "to say that you trust it" in capsys.readouterr().err
    assert runs.main(["."]) == 0
    assert f"{spec} " in capsys.readouterr().out
    assert page.main(["run"]) == 0
    for command in (evaluate, export) if has_tensorflow() else (evaluate,):  # as any that takes a finished run
        given = ["run", "--out", f"{command.__name__}.out"]
        assert command.main(given) == 2
        assert f"give --method {spec}" in capsys.readouterr().err
        assert spec not in METHODS
        assert command.main([*given, "--method", "os"]) == 2
        assert "`method` must be the run's package.module:function" in capsys.readouterr().err
    assert evaluate.main(["run", "--draws", "10", "--method", spec]) == 0
    assert spec in METHODS
    assert fit.main(["--resume", "run", "--method", spec]) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}:nothing", "`method`: the module .* has no 'nothing'"),
        ("nowhere_at_all:method", "`method`: there is no module 'nowhere_at_all'"),
        ("{}:broken", "`method`: .*:broken raised KeyError: 'no'"),
        ("{}:other", "must return a tf_mmloss[.]methods[.]Method[.] Received: method=1"),
        ("{}:demanding", "`loss`: .*:Demanding raised TypeError: .*missing .* 'softness'"),
        ("{}:failing", "`loss`: .*:Failing raised KeyError: 'no'"),
        ("{}:foreign", "`loss` must be a child of tf_mmloss.LongTailLoss. Received: loss='keras.losses:Huber'"),
        ("mm-dwr", "Did you mean 'mm-drw'"),
    ],
)
def test_a_method_that_is_none_is_refused(own, name, message):
    with pytest.raises(ValueError, match=message):
        resolve(Config(method=name.format(own)))


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("Inherited", "CrossEntropyLoss"),
        ("Dotted", "LDAMLoss"),
        ("OfModule", "LDAMLoss"),
        ("OfFile", "LDAMLoss"),
    ],
)
def test_a_loss_of_ones_own_has_the_options_of_its_parent(own, name, parent):
    assert signature(f"{own}:{name}") == signature(parent)


def test_a_loss_that_could_not_be_loaded_is_refused_before_the_training(own, capsys):
    spec, out = f"{own}:unregistered", Path("run")
    common = ["--dataset", "digits", "--ratio", "20", "--epochs", "1", "--depth", "8", "--out", str(out)]
    assert fit.main([*common, "--input", INPUT, "--method", spec]) == 2
    said = capsys.readouterr().err
    assert f"could not be loaded after the training: config.json names {own}.Inherited" in said
    assert "must be registered with Keras" in said
    assert not (out / "config.json").exists()  # the folder is free


def test_a_config_that_names_a_function_says_so():
    assert code_named(Config(method="a.b:c")) == {"method": "a.b:c"}
    with pytest.raises(ValueError, match="is a function that the run would call"):
        find("a.b:c")


def test_an_entry_point_adds_methods_and_no_name_twice(monkeypatch):
    theirs = Method("theirs", "FocalLoss", "Somewhere.")

    def entry_points(group):
        assert group == "tf_mmloss.methods"
        return [SimpleNamespace(name="a", value="package:methods", load=lambda: lambda: [theirs])]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    assert set(methods._all()) == {*INSTALLED, "theirs"}


def test_an_entry_point_that_is_broken_is_left_out_and_named(monkeypatch):
    def load():
        if isinstance(theirs, BaseException):
            raise theirs
        return lambda: [Method("first", "FocalLoss", "Somewhere."), theirs]

    entry = SimpleNamespace(name="a", value="package:methods", load=load)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    monkeypatch.setattr(methods, "_left_out", [])
    for broken, message in (
        (Method("erm", "FocalLoss", "Somewhere."), "ValueError: .* has a method erm, a name that is taken"),
        ("erm", r"ValueError: .* must give a tf_mmloss[.]methods[.]Method, or several"),
        (ImportError("no module named torch"), "ImportError: no module named torch"),
        (SystemExit(1), "SystemExit: 1"),
    ):
        theirs = broken
        said = rf"the entry point a \(package:methods\) of tf_mmloss.methods is left out: {message}"
        with pytest.warns(UserWarning, match=said):
            assert set(methods._all()) == INSTALLED
        with pytest.raises(ValueError, match=rf"`method` must be one of .*theirs'[.] .*{said}"):
            find("theirs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"starts": 1.0}, "`starts` must be in"),
        ({"starts": "later"}, "`starts` must be in"),
        ({"weights": "effectiv"}, "Did you mean 'effective'"),
        ({"sampling": True}, "`sampling` must be one of"),
        ({"task": "colour"}, "`task` must be one of"),
    ],
)
def test_a_stage_that_is_none_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Stage(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a+b"}, r"`name` must have no \+ and no comma"),
        ({"head": "cosin"}, "`head` must be one of"),
        ({"stages": ()}, "`stages` must be a tuple"),
        ({"stages": (Stage(0.5),)}, "`stages` must begin at 0"),
        ({"stages": (Stage(), Stage(0.5, task="rotation"))}, "`stages` must begin at 0, and have one task"),
        ({"stages": (Stage(weights="inverse"), Stage(0.5))}, "must keep to the weights that they began"),
        ({"stages": (Stage(mixes=False), Stage(0.5))}, "`stages` must mix images in the first"),
        ({"stages": (Stage(), Stage(0.5, mixes=False), Stage(0.6))}, "and not again after one that does not"),
    ],
)
def test_a_method_with_what_no_training_has_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Method(**{"name": "mine", "loss": "FocalLoss", "source": "Mine.", **arguments})


def test_stages_of_the_systems():
    def started(method):
        config = resolve(Config(dataset="digits", method=method, epochs=10))
        return begins(config, "weights"), begins(config, "sampling"), config.pretraining

    assert {name: started(name) for name in ("erm", "cb-rw", "cb-rs", "mm-drw", "hg-drs", "ldam-drw-ssp")} == {
        "erm": (None, None, "none"),
        "cb-rw": (0, None, "none"),
        "cb-rs": (None, 0, "none"),
        "mm-drw": (8, None, "none"),
        "hg-drs": (None, 8, "none"),
        "ldam-drw-ssp": (8, None, "rotation"),
    }


def test_options_of_a_config_are_as_fields():
    config = Config(method="mm", beta=1.2, loss_arguments={"scale": 3.0, "delta_neg": None})
    assert (config.beta, config.scale, config.delta_neg, config.tau) == (1.2, 3.0, None, None)
    assert config.loss_arguments == {"beta": 1.2, "scale": 3.0}
    assert hash(config) == hash(Config(method="mm"))
    with pytest.raises(AttributeError, match="a config has no bta"):
        _ = config.bta
    with pytest.raises(TypeError, match="two values of dataset"):
        Config("digits", dataset="cifar10")
    with pytest.raises(ValueError, match="`bta` is no option of method mm, whose loss takes"):
        resolve(Config(method="mm", bta=1.0))


def test_the_head_of_yes_or_no_questions_begins_with_mostly_no():
    """At -log(C - 1) / s, where each of C = 10 has the probability 1 / 10."""
    splits = SimpleNamespace(train_images=np.zeros((1, 8, 8, 1)), class_names=list("abcdefghij"), cls_counts=[9] * 10)
    for method, scale in (("cb-sigmoid", 1), ("cb-sigmoid-focal", 2)):
        config = resolve(Config(dataset="digits", method=method, depth=8, scale=float(scale)))
        bias = to_numpy(network.build(config, splits).get_layer("head").bias)
        np.testing.assert_allclose(1 / (1 + np.exp(-scale * bias)), np.full(10, 0.1), rtol=1e-6)
    assert loss(resolve(Config(method="cb-sigmoid-focal")), [30] * 10).gamma == 1
    assert not to_numpy(
        network.build(resolve(Config(dataset="digits", method="erm", depth=8)), splits).get_layer("head").bias
    ).any()


@pytest.mark.parametrize(
    ("method", "strength", "said"),
    [
        *((m, ":1", "the loss takes the") for m in ("balanced-softmax", "vs", "la-ldam", "lade", "seesaw")),
        *((m, ":0.5", "the training balances the classes already") for m in ("ldam-drw", "cb-rs", "crt")),
        *(("balanced-softmax", strength, None) for strength in ("", ":0")),
        ("erm", ":1", None),
        ("ldam", ":1", None),
    ],
)
def test_priors_that_are_taken_out_twice_are_said(method, strength, said, tmp_path, monkeypatch, capsys):
    """In --show, and by evaluate; of a strength that is fitted it is harmless."""
    spec = f"logit-adjustment{strength}"
    config = resolve(Config(dataset="digits", method=method, decide=spec, holdout=5, epochs=20))
    shown = show(config)
    (tmp_path / "config.json").write_text(json.dumps({**config.values(), "decide": "none"}))
    found = {"decide": spec, "evaluated_on": "all images", "images": 1}
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: found)
    monkeypatch.setattr(evaluation, "summary", lambda _: "a summary")
    assert evaluate.main([str(tmp_path), "--decide", spec]) == 0
    for text in (shown, capsys.readouterr().out):
        assert (f"--decide {spec} does so once more" in text) == (said is not None)
        assert said is None or said in text
    assert evaluate.main([str(tmp_path)]) == 0
    assert "once more" not in capsys.readouterr().out


def test_what_was_evaluated_is_printed_where_it_cannot_be_written(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError("a file system that is only read")

    config = resolve(Config(dataset="digits", method="erm", epochs=2))
    (tmp_path / "config.json").write_text(json.dumps(config.values()))
    found = {"decide": "none", "evaluated_on": "all images", "images": 1}
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: found)
    monkeypatch.setattr(evaluation, "summary", lambda _: "a summary")
    monkeypatch.setattr("tf_mmloss.files.write_json", refuse)
    assert evaluate.main([str(tmp_path), "--out", str(tmp_path / "found.json")]) == 2
    printed = capsys.readouterr()
    assert "a summary" in printed.out
    assert printed.err == "error: a file system that is only read\n"


NEW = ("gcl", "seesaw")  # one whose noise is drawn, one whose loss has a state


@pytest.mark.parametrize("name", NEW)
def test_a_loss_with_noise_or_state_resumes_bit_for_bit(name, tmp_path):
    config = Config(dataset="digits", ratio=20, depth=8, epochs=2, method=name, learning_rate=0.01, seed=3, input=INPUT)
    whole = experiment.run(config, tmp_path / "whole")
    assert whole["error"] < 0.9
    with pytest.raises(experiment.RunStoppedError):
        experiment.run(config, tmp_path / "stopped", stop=lambda: True)
    assert experiment.run(config, tmp_path / "stopped", resume=True)["checksum"] == whole["checksum"]


def test_draws_of_a_loss_take_the_seed_of_the_run():
    for name in ("equalization", "gcl"):
        assert loss(resolve(Config(dataset="digits", method=name, seed=3)), [30] * 10).seed == 3


def test_what_a_method_adds_to_plain_training():
    expected = {
        "erm": 0,
        "balanced-softmax": 1,
        "cb-rs": 1,
        "crt": 1,
        "erm-drw": 1,
        "ldam-drw": 2,
        "ib": 2,
        "mislas": 2,
    }
    expected |= {"gcl-crt": 2, "hg-drs": 2, "cb-focal": 2, "ldam-drw-ssp": 3}
    assert {name: METHODS[name].additions for name in expected} == expected
