"""Training on images of one's own: what is chosen for them, and that a run keeps to them."""

import csv
import dataclasses
import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import BACKEND
from PIL import Image

from tf_mmloss import cli, decide, normalization
from tf_mmloss.cli import evaluate, fit, predict, runs
from tf_mmloss.data import load_images, open_source
from tf_mmloss.datasets import ImageDataset
from tf_mmloss.datasets.rows import Rows
from tf_mmloss.evaluation import by_predictions, softmax
from tf_mmloss.pipeline import eval_dataset, train_dataset
from tf_mmloss.runs import model as run_model
from tf_mmloss.runs import predictions
from tf_mmloss.runs.folder import RunFolderError, data_label, read_config, read_history, read_json
from tf_mmloss.train import experiment, inputs
from tf_mmloss.train.config import Config, image_size
from tf_mmloss.train.presets import own_recipe
from tf_mmloss.train.resolve import check_before_data, resolve
from tf_mmloss.train.show import why

COUNTS = {"a cat": 12, "chien é": 6, "rare": 1}
SMALL = ["--epochs", "2", "--depth", "8", "--jit", "off", "--input", "host" if BACKEND == "tensorflow" else "device"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_MMLOSS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for label, (name, count) in enumerate(COUNTS.items()):
        place = tmp_path / "my images" / name
        place.mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(80 * label, 80 * label + 60, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{i} ü.png")
    return tmp_path / "my images"


def data_set(count, side=32):
    images = np.zeros((count, side, side, 3), np.uint8)
    labels = np.arange(count) % 2
    return ImageDataset("x", images, labels, images, labels, ("a", "b"), (0.5,) * 3, (0.2,) * 3, "none")


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("photos/my birds", "my birds"),
        ("photos.v2", "photos.v2"),
        ("photos.v2/", "photos.v2"),
        ("a/birds.2.CSV", "birds.2"),
        ("x.npz", "x"),
        (".", "images"),
        ("..", "images"),
        ("tfds:cars196", "tfds:cars196"),
        ("own.data:load", "own.data:load"),
    ],
)
def test_images_are_named_as_their_folder_is(dataset, name):
    assert data_label({"dataset": dataset, "imbalance": "none", "ratio": 1}) == f"{name}, as it is"
    folder = name.replace(" ", "-").replace(":", "-")
    assert Config(dataset=dataset, method="erm").name == f"{folder}-erm-seed0"


def test_one_command_on_a_folder(folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    assert (
        fit.main(["--dataset", str(folder), "--method", "ldam-drw", "--schedule", "cosine", "--out", str(out), *SMALL])
        == 0
    )
    assert [row["learning_rate"] for row in read_history(out)] == pytest.approx([0.0125, 0.00625])
    printed = capsys.readouterr().out
    assert "my images: 19 images of 3 classes, from 12 (a cat) to 1 (rare)" in printed
    assert "so not evaluated: rare" in printed
    assert "\nbatches of 16: " in printed
    assert "epochs: 400,000 images in all" not in printed  # given
    config, metrics, data = read_config(out), read_json(out, "metrics.json"), read_json(out, "data.json")
    assert (config.imbalance, config.ratio, config.image_size, config.pad) == ("none", 1, "16", 2)
    assert metrics["class_names"] == list(COUNTS)
    assert metrics["cls_counts"] == [10, 5, 1]
    assert any("not evaluated: rare" in line for line in data["report"])
    assert "my images" in data["origin"]
    assert data_label(config.values()) == "my images, as it is"

    assert fit.main(["--resume", str(out)]) == 0  # finished: nothing is trained again, and no image is needed

    (tmp_path / "torn.png").write_bytes((folder / "rare" / "0 ü.png").read_bytes()[:60])
    os.mkfifo(tmp_path / "pipe.png")
    capsys.readouterr()
    unreadable = [str(tmp_path / "torn.png"), str(tmp_path / "pipe.png")]
    other = os.fsencode(tmp_path / "chien ") + b"\xe9.png"  # as Latin-1 has it
    Path(os.fsdecode(other)).write_bytes((folder / "rare" / "0 ü.png").read_bytes())
    asked = [str(folder / "chien é"), str(folder / "a cat" / "1*.png"), *unreadable]
    assert predict.main([str(out), *asked, os.fsdecode(other), "--out", str(tmp_path / "latin.csv")]) == 1
    assert "chien \\udce9.png,rare," in (tmp_path / "latin.csv").read_text(encoding="utf-8")
    assert predict.main([str(out), *asked, "--method", "os:getcwd"]) == 2
    assert "its method is ldam-drw. Received: method='os:getcwd'" in capsys.readouterr().err
    assert predict.main([str(out), *asked, "--out", str(tmp_path / "sub" / "predictions.csv")]) == 1
    printed = capsys.readouterr().err
    assert all(f"not read: {path}: " in printed for path in unreadable)
    with open(tmp_path / "sub" / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in rows] == [f"{i} ü.png" for i in (0, 1, 2, 3, 4, 5, 1, 10, 11)]
    pixels = np.stack([np.asarray(Image.open(row["file"])) for row in rows])
    expected = softmax(keras.ops.convert_to_numpy(trained_logits(out, pixels)))
    for row, probabilities in zip(rows, expected, strict=True):
        assert float(row["probability"]) == pytest.approx(probabilities.max(), abs=2e-6)
        assert row["class"] == list(COUNTS)[probabilities.argmax()]
        assert float(row["runner_up_probability"]) == pytest.approx(np.sort(probabilities)[-2], abs=2e-6)

    def whole(rows, *_, **__):
        raise MemoryError("all images at once")

    monkeypatch.setattr(Rows, "__array__", whole)  # of images that are larger than the memory
    assert evaluate.main([str(out), "--draws", "10", "--out", str(tmp_path / "evaluation.json")]) == 0
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["value"]["top_1_accuracy"] == pytest.approx(1 - metrics["error"])
    assert found["not_evaluated"] == ["rare"]
    assert found["evaluated_on"] == "my images, test split"
    moved = folder.rename(tmp_path / "moved")
    assert evaluate.main([str(out), "--draws", "0"]) == 2
    printed = capsys.readouterr().err
    assert "is not there" in printed
    assert "give `evaluate` --dataset and where they are now" in printed
    assert evaluate.main([str(out), "--dataset", str(moved), "--draws", "0"]) == 0
    assert "moved, test split: 3 images" in capsys.readouterr().out  # not those that the run was trained on
    moved.rename(folder)
    (folder / "rare" / "torn.png").write_bytes((folder / "rare" / "0 ü.png").read_bytes()[:60])
    assert evaluate.main([str(out), "--dataset", str(folder), "--draws", "0"]) == 2
    assert "give `skip_broken` to leave them out" in capsys.readouterr().err
    assert evaluate.main([str(out), "--dataset", str(folder), "--draws", "0", "--skip-broken"]) == 0
    assert "my images, all images: 19 images" in capsys.readouterr().out
    (folder / "rare").rename(folder / "unheard of")
    assert evaluate.main([str(out), "--dataset", str(folder)]) == 2
    assert "must have the run's classes, a cat, chien é, rare. Received: unheard of" in capsys.readouterr().err

    assert runs.main([str(tmp_path)]) == 0
    assert f"{metrics['error']:.2%}" in capsys.readouterr().out


def trained_logits(out, pixels):
    """Scaled logits of uint8 pixels, by hand."""
    metrics, model = read_json(out, "metrics.json"), keras.models.load_model(out / "last.keras")
    normal = (pixels / 255 - np.array(metrics["mean"])) / np.array(metrics["std"])
    return model.loss.scale * model(normal.astype("float32"), training=False)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["nowhere.png"], "`images` must be files, folders or patterns of files. Received: nowhere.png"),
        (["*.nothing"], "Received: *.nothing"),
        (["empty"], "Received: empty, a folder without images"),
    ],
)
def test_what_is_not_there_is_not_predicted(tmp_path, monkeypatch, capsys, asked, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert predict.main([str(tmp_path), *asked]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_is_predicted_by_the_images_in_it(folder, tmp_path):
    """By those that would be trained on."""
    (folder / ".thumbs").mkdir()
    image = folder / "rare" / "0 ü.png"
    for name in (".thumbs/x.png", "rare/no suffix", "rare/empty.png"):
        shutil.copy(image, folder / name)
    (folder / "rare" / "empty.png").write_bytes(b"")
    for name in ("Thumbs.db", "labels.csv", "rare/notes.txt"):
        (folder / name).write_text("no image")
    shutil.copy(image, tmp_path / "outside.png")
    expected = [folder / name for name in open_source(folder).names]
    assert len(expected) == 21
    (folder / "rare" / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "rare" / "above").symlink_to(folder)
    expected.append(folder / "rare" / "link.png")
    assert predict.files([str(folder)]) == (sorted(expected), [folder / "labels.csv", folder / "rare" / "notes.txt"])


def test_a_stopped_prediction_keeps_its_rows(folder, tmp_path, monkeypatch, capsys):
    def predicted(run, images, *_):
        yield images[0], ("rare", 0.75, "a cat", 0.25)
        yield images[1], "empty"
        if stops:
            raise KeyboardInterrupt
        yield images[2], ("rare", 0.75, "a cat", 0.25)

    monkeypatch.setattr(predict, "predict", predicted)
    monkeypatch.setattr(predict.cli, "open_code", lambda *_: None)
    out = tmp_path / "out.csv"
    for stops, status, count in ((True, 130, 1), (False, 1, 2)):
        assert predict.main(["run", str(folder / "a cat"), "--out", str(out)]) == status
        assert len(out.read_text().splitlines()) == 1 + count
        end = f"{count} of 12 pictures read, {out}"
        assert capsys.readouterr().err.endswith(f"{'Stopped: ' if stops else ''}{end}\n")
        assert predict.main(["run", str(folder / "a cat")]) == status
        assert len(capsys.readouterr().out.splitlines()) == 1 + count


def test_a_folder_that_is_no_run(folder, tmp_path, capsys):
    assert predict.main([str(tmp_path), str(folder)]) == 2
    assert "is no run folder: it has no config.json" in capsys.readouterr().err


def test_a_run_does_not_go_on_with_other_images(folder, tmp_path):
    config = inputs_config(folder, schedule="constant")
    out = tmp_path / "run"
    with pytest.raises(experiment.RunStoppedError):
        experiment.run(config, out, stop=lambda: True)
    (folder / "a cat" / "0 ü.png").unlink()
    with pytest.raises(RunFolderError, match=r"The images of my images changed since the run in .* began"):
        experiment.run(read_config(out), out, resume=True)
    with pytest.raises(RunFolderError, match="The images of my images changed"):
        experiment.run(dataclasses.replace(read_config(out), epochs=3), out, resume=True)
    assert read_config(out).epochs == 2


@pytest.mark.parametrize("by", ["column", "name"])
def test_a_run_does_not_go_on_with_other_groups(folder, tmp_path, by):
    root, out = tmp_path / "images", tmp_path / "run"
    shutil.copytree(folder, root)
    paths = sorted(path.relative_to(root) for path in root.glob("*/*.png"))
    patients = [f"p{i // 2}" for i in range(len(paths))]

    def write():
        rows = [f"{path},{path.parts[0]},{patient}" for path, patient in zip(paths, patients, strict=True)]
        (root / "table.csv").write_text("\n".join(["path,label,patient", *rows]))

    write()
    config = inputs_config(root / "table.csv") if by == "column" else inputs_config(root, group_by="^.")
    with pytest.raises(experiment.RunStoppedError):
        experiment.run(config, out, stop=lambda: True)
    recorded = read_json(out, "data.json")
    data = inputs.load(config)
    experiment.check_data(out, data)
    content = {**recorded, "fingerprint": recorded["fingerprint"].partition("-")[0]}  # of an earlier version
    (out / "data.json").write_text(json.dumps(content))
    if by == "name":
        experiment.check_data(out, data)
        (out / "data.json").write_text(json.dumps(recorded))
        (path,) = root.glob("rare/*.png")
        path.rename(path.with_name("9.png"))
    else:
        with pytest.raises(RunFolderError, match=r"The groups of the images of table\.csv changed"):
            experiment.check_data(out, data)
        (out / "data.json").write_text(json.dumps(recorded))
        patients[0] = patients[-1]
        write()
    with pytest.raises(RunFolderError, match=r"The groups of the images of .* changed since the run in .* began"):
        experiment.run(read_config(out), out, resume=True)


def test_images_of_a_run_with_groups_are_known_wherever_they_are(folder, tmp_path, monkeypatch):
    @dataclasses.dataclass
    class Model:
        config: Config
        class_names: tuple[str, ...]
        image_shape: tuple[int, int, int]

    config = inputs_config(folder, group_by="^.")
    run = tmp_path / "run"
    with pytest.raises(experiment.RunStoppedError):
        experiment.run(config, run, stop=lambda: True)
    moved = folder.rename(tmp_path / "moved")
    monkeypatch.setattr(run_model, "own_images", lambda run, model, *_, **__: model.config.dataset)
    model = Model(read_config(run), tuple(COUNTS), (16, 16, 3))
    assert evaluate._other(str(moved), str(run), model, None) == (str(moved), True)
    next(moved.glob("a cat/*.png")).unlink()
    evaluated, own = evaluate._other(str(moved), str(run), model, None)
    assert (evaluated.of, own, evaluated.groups) == ("moved, all images", False, None)
    table = moved / "table.csv"
    table.write_text("\n".join(["path,label,patient", *(f"{p},{p.parts[0]},{p.name}" for p in pictures_of(moved))]))
    evaluated, _ = evaluate._other(str(table), str(run), model, None)
    assert len(np.unique(evaluated.groups)) == len({path.name for path in pictures_of(moved)})


def pictures_of(folder):
    return [path.relative_to(folder) for path in sorted(folder.glob("*/*.png"))]


def test_groups_of_the_evaluated_images_make_the_intervals(folder, tmp_path):
    run = tmp_path / "run"
    experiment.run(dataclasses.replace(inputs_config(folder, group_by="^."), epochs=1), run)
    kept = predictions.read(run, len(COUNTS)).groups
    assert 1 < len(np.unique(kept)) < len(kept)
    found = evaluate.evaluate(run, draws=10)
    assert found["groups"] == len(np.unique(kept))
    assert by_predictions_of(run, draws=10).items() <= found["interval"].items()
    assert cli.main(["page", str(run)]) == 0
    assert "bootstrap intervals over the groups" in (run / "index.html").read_text()


def by_predictions_of(run, **options):
    found, metrics = predictions.read(run, len(COUNTS)), read_json(run, "metrics.json")
    return by_predictions(found.labels, found.predicted, metrics["cls_counts"], groups=found.groups, **options)[1]


def inputs_config(folder, **changes):
    way = "host" if BACKEND == "tensorflow" else "device"
    return Config(dataset=str(folder), method="erm", epochs=2, depth=8, jit="off", input=way, **changes)


def test_made_more_imbalanced_and_held_out(folder):
    config = inputs_config(folder, imbalance="longtail", ratio=6, holdout=2)
    data = inputs.load(config)
    split = inputs.split(data, resolve(config, data))
    assert np.bincount(split.eval_labels, minlength=3).tolist() == [2, 2, 0]  # a class of one stays in training
    assert split.cls_counts.tolist() == [8, 3, 1]  # of 10 - 2, 5 - 2 and 1


@pytest.mark.parametrize(
    ("count", "epochs", "batch_size"), [(500, 200, 16), (2_800, 142, 64), (16_000, 25, 128), (500_000, 20, 128)]
)
def test_the_recipe_follows_from_the_images(count, epochs, batch_size):
    recipe = own_recipe(data_set(count, side=8))
    assert (recipe.epochs, recipe.batch_size, recipe.pad) == (epochs, batch_size, 1)
    assert recipe.learning_rate == pytest.approx(0.1 * batch_size / 128)


def test_of_a_learning_rate_that_does_not_follow_from_the_images_nothing_is_said():
    data = data_set(500, side=8)
    assert "a learning rate of 0.0125: " in "\n".join(why(Config(dataset="mine", batch_size=128), data))
    for given in ({"learning_rate": 0.1}, {"optimizer": "adamw"}):
        assert "learning rate" not in "\n".join(why(Config(dataset="mine", **given), data))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset": "digits", "image_size": "16"},
            "`image_size` is for images of your own. Received: image_size='16'",
        ),
        ({"dataset": "mine", "image_size": "0x4"}, "`image_size` must be a side or HEIGHTxWIDTH"),
        ({"dataset": "digits", "skip_broken": True}, "`skip_broken` is for images of your own"),
        ({"dataset": "mine", "ratio": 5.0}, "`ratio` is for an imbalance of longtail or step"),
        ({"dataset": "mine", "imbalance": "steps"}, "`imbalance` must be one of longtail, step, none"),
    ],
)
def test_bad_options(changes, message):
    config = Config(**changes)
    with pytest.raises(ValueError, match=message):
        resolve(config, data_set(20) if config.is_own else None)


def test_images_that_are_not_square_keep_their_size():
    images = np.zeros((8, 10, 6, 1), np.uint8)
    labels = np.arange(8) % 2
    data = ImageDataset("x", images, labels, images, labels, ("a", "b"), (0.5,), (0.2,), "none")
    config = resolve(Config(dataset="mine"), data)
    assert config.image_size == "10x6"
    assert image_size(config) == (10, 6)
    assert config.pad == 0


@pytest.mark.parametrize("changes", [{"method": "rotation"}, {"method": "ldam", "pretraining": "rotation"}])
def test_rotations_of_images_that_are_not_square_are_refused_with_nothing_written(changes, tmp_path):
    images, labels = np.zeros((8, 10, 6, 3), np.uint8), np.arange(8) % 2
    data = ImageDataset("x", images, labels, images, labels, ("a", "b"), (0.5,) * 3, (0.2,) * 3, "none")
    way = "host" if BACKEND == "tensorflow" else "device"
    with pytest.raises(ValueError, match=r"`image_size` must be a square's .* Received: image_size='10x6'"):
        experiment.run(Config(dataset="mine", input=way, **changes), tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()


def test_a_network_that_cannot_be_built_leaves_no_run(folder, tmp_path):
    config = dataclasses.replace(inputs_config(folder), depth=None, backbone="no_such_module:network")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^`backbone`: there is no module 'no_such_module', here or installed"):
            experiment.run(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_pictures_may_have_any_name_but_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("~nobody.png", "a.png"):
        Path(name).touch()
    assert predict.files(["~nobody.png", "a.png"]) == ([Path("~nobody.png"), Path("a.png")], [])
    with pytest.raises(FileNotFoundError, match=r"must be files, folders or patterns of files\. Received: ''"):
        predict.files([""])  # as of a shell's variable that is not set


def test_all_of_other_images_are_evaluated(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "few" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), {"a": "red", "b": "blue"}[name]).save(tmp_path / "few" / name / "0.png")
    images = load_images(tmp_path / "few", test_share=None)
    assert (images.train.tolist(), images.test.tolist()) == ([], [0, 1])


def test_a_decision_is_fitted_on_images_of_a_function_that_was_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "pictures_of.py").write_text(
        "import numpy as np\n"
        "def arrays():\n"
        "    y = np.arange(40) % 2\n"
        "    return (np.arange(2560).reshape(40, 8, 8, 1) % 251 // (1 + y[:, None, None, None])).astype('uint8'), y\n"
    )
    monkeypatch.chdir(tmp_path)
    given = ["--dataset", "pictures_of:arrays", "--method", "erm", "--holdout", "3", "--out", "run", *SMALL]
    assert fit.main(given) == 0
    assert evaluate.main(["run", "--decide", "temperature", "--draws", "0"]) == 2
    assert "is a function, which is not called unasked" in capsys.readouterr().err
    asked = ["--decide", "temperature", "--dataset", "pictures_of:arrays", "--draws", "0"]
    assert evaluate.main(["run", *asked]) == 0
    assert "held-out training images: 6 images, decided by temperature:" in capsys.readouterr().out


def test_own_images_that_moved_are_decided_as_where_they_were(folder, tmp_path, monkeypatch):
    """Each half by the other's strength; of another decision, too, which is fitted where they are now."""
    run = tmp_path / "run"
    given = ["--dataset", str(folder), "--method", "erm", "--holdout", "2", "--decide", "temperature"]
    assert fit.main([*given, "--out", str(run), *SMALL]) == 0
    specs, decided = [], decide.decided
    monkeypatch.setattr(decide, "decided", lambda spec, *rest: specs.append(spec) or decided(spec, *rest))
    there = {decide_by: evaluate.evaluate(run, draws=0, decide_by=decide_by) for decide_by in (None, "temperature")}
    moved = folder.rename(tmp_path / "moved")
    for decide_by, expected in there.items():
        found = evaluate.evaluate(run, str(moved), draws=0, decide_by=decide_by)
        assert found | {"evaluated_on": expected["evaluated_on"]} == expected
    assert specs == ["temperature"] * 4  # without a strength: it is fitted by halves


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "balanced_softmax"}, "Did you mean 'balanced-softmax'"),
        ({"depth": 9}, "`depth`"),
        ({"method": "erm", "loss_arguments": {"beta": 2.0}}, "`beta` is no option of method erm"),
        ({"method": "ldam-drw", "start_epoch": 200}, "`start_epoch`"),
    ],
)
def test_mistakes_are_found_before_the_images_are_read(options, message):
    with pytest.raises(ValueError, match=message):
        check_before_data(Config(dataset="mine", **options))


def test_what_any_images_may_have_passes_before_they_are_read():
    check_before_data(Config(dataset="mine"))
    check_before_data(Config(dataset="mine", method="ldam-drw", start_epoch=199, optimizer="adamw"))


def test_a_folder_that_holds_a_run_is_refused_before_images_are_read(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    monkeypatch.setattr(inputs, "load", lambda *_: pytest.fail("read"))
    assert fit.main(["--dataset", str(folder), "--out", str(tmp_path / "run")]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_presets_of_own_images_need_the_images():
    with pytest.raises(ValueError, match="`data` must be the images of mine"):
        resolve(Config(dataset="mine"))
    config = resolve(Config(dataset="mine"), data_set(20))
    assert resolve(config) == config == resolve(Config(**json.loads(json.dumps(config.values()))))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data")
def test_rows_are_fed_like_arrays():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 6, 5, 3), np.uint8), rng.integers(0, 2, 20)
    positions = rng.permutation(20)[:13]
    normalize = normalization([0.5] * 3, [0.2] * 3)
    for make, take in ((train_dataset, 4), (eval_dataset, 2)):
        options = {"num_classes": 2, "normalize": normalize, "batch_size": 8}
        by_rows = make(Rows(images, positions), labels[positions], **options).take(take)
        by_array = make(images[positions], labels[positions], **options).take(take)
        for (x, y), (x_expected, y_expected) in zip(by_rows, by_array, strict=True):
            np.testing.assert_array_equal(x, x_expected)
            np.testing.assert_array_equal(y, y_expected)


@pytest.mark.parametrize("with_test", [False, True])
def test_a_holdout_keeps_groups_together(tmp_path, with_test):
    rng = np.random.default_rng(0)
    for part in ("train", "test") if with_test else (".",):
        for name in ("a", "b"):
            (tmp_path / "own" / part / name).mkdir(parents=True)
            for group in range(8):
                for view in range(3):
                    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                    Image.fromarray(pixels).save(tmp_path / "own" / part / name / f"{name}{group}_{view}.png")
    images = load_images(tmp_path / "own", group_by="^[^_]+")
    config = Config(dataset=str(tmp_path / "own"), group_by="^[^_]+", holdout=6, method="ldam")
    data = images.dataset()
    config = resolve(config, data)
    split = inputs.split(data, config)
    keys = {np.asarray(images.x[i]).tobytes(): images.names[i].split("/")[-1].split("_")[0] for i in images.train}
    trained, held = ([keys[image.tobytes()] for image in part] for part in (split.train_images, split.eval_images))
    assert not set(trained) & set(held)
    assert np.bincount(split.eval_labels).tolist() == [6, 6]
    assert len(trained) + len(held) == len(images.train)
    of_group = {}
    for key, group in zip(held, split.eval_groups, strict=True):
        of_group.setdefault(key, set()).add(group)
    assert [len(groups) for groups in of_group.values()] == [1] * 4
    assert len(set.union(*of_group.values())) == 4
    tested = inputs.split(data, dataclasses.replace(config, holdout=0))
    assert len(tested.eval_groups) == len(tested.eval_labels) == len(images.test)
