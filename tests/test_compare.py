"""The command that compares methods: its runs, its answer, how it is stopped and shared, and what it refuses."""

import csv
import dataclasses
import json
import re
import shlex
import shutil

import numpy as np
import pytest
from helpers import BACKEND
from PIL import Image

pytest.importorskip("tensorflow", reason="runs read their images through tf.data")
pytest.importorskip("matplotlib")

from tf_mmloss import NonFiniteLossError, cli, comparison, datasets, decide
from tf_mmloss.cli import compare as command
from tf_mmloss.cli import fit
from tf_mmloss.runs import plots
from tf_mmloss.runs.folder import locked, note_failure, read_config
from tf_mmloss.runs.model import RunModel, own_images
from tf_mmloss.train import compare, experiment
from tf_mmloss.train.config import Config
from tf_mmloss.train.resolve import pretraining, resolve

SMALL = ["--dataset", "digits", "--ratio", "20", "--depth", "8", "--epochs", "2"]
TWO = ["--methods", "erm,mm-drw", "--seeds", "2"]
RUNS = ["erm-seed0", "mm-drw-seed0", "erm-seed1", "mm-drw-seed1"]


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A comparison that was killed in its third run, and resumed."""
    out, real, begun = tmp_path_factory.mktemp("compare") / "out", experiment.run, []

    def run(config, folder, **options):
        begun.append(folder.name)
        if len(begun) == 3:  # after an epoch
            options["stop"] = lambda: True
            with pytest.raises(experiment.RunStoppedError):
                real(config, folder, **options)
            raise Killed
        return real(config, folder, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "run", run)
        with pytest.raises(Killed):
            command.main([*SMALL, *TWO, "--out", str(out)])
        assert begun == RUNS[:3]
        assert "1 seed of 2 planned of each method" in (out / "comparison.md").read_text()  # what was finished
        for name in ("comparison.md", "comparison.csv"):  # as if it had been killed while it wrote them
            path = out / name
            path.with_name(f"{path.stem}.partial-{7:018d}{path.suffix}").write_text("half a")
        begun.clear()
        begun += [None] * 10  # kills no more
        assert command.main(["--resume", str(out)]) == 0
        assert begun[10:] == RUNS[2:]
    return out


def copied(done, tmp_path):
    return shutil.copytree(done, tmp_path / "out")


def test_a_killed_comparison_ends_with_everything(done):
    assert {path.name for path in done.iterdir()} >= {
        *("compare.json", "comparison.csv", "comparison.html", "comparison.md", "comparison.svg", "comparison.png"),
        *RUNS,
    }
    for name in RUNS:
        config = read_config(done / name)
        assert (f"{config.method}-seed{config.seed}", config.holdout, config.epochs) == (name, 12, 2)
        metrics = json.loads((done / name / "metrics.json").read_text())
        assert metrics["evaluated_on"] == "held-out training images"
    assert not list(done.glob("*.partial-*"))
    with open(done / "comparison.csv", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"erm", "mm-drw"}
    assert sum(int(row["choice"]) for row in rows.values()) == 1
    for method, row in rows.items():
        found = [json.loads((done / f"{method}-seed{seed}" / "metrics.json").read_text()) for seed in (0, 1)]
        low, high = (float(row[f"difference_to_best_{end}"]) for end in ("low", "high"))
        assert low <= float(row["difference_to_best"]) <= high
        for name in ("error", "balanced_accuracy"):  # of the same predictions, computed elsewhere
            assert float(row[name]) == pytest.approx(sum(one[name] for one in found) / 2, abs=0.005)
            assert 0 <= float(row[f"{name}_low"]) <= float(row[name]) <= float(row[f"{name}_high"]) <= 1
    text = (done / "comparison.md").read_text()
    assert "| method | error (%) | balanced accuracy (%) | few-shot accuracy (%) |" in text
    assert "2 seeds of each method, 120 held-out training images; " in text
    counts = json.loads((done / RUNS[0] / "metrics.json").read_text())["cls_counts"]
    assert f"{sum(counts)} training images of 10 classes, {max(counts)} of the largest and {min(counts)} of the" in text
    assert "Few-shot accuracy is that of the rarest classes, 6, 7, 8, 9." in text
    html = (done / "comparison.html").read_text()
    (again,) = re.findall(r"<pre>tf-mmloss compare (.*)</pre>", html)
    options = vars(command.parser().parse_args(shlex.split(again)))
    methods, seeds, measure = (options.pop(name) for name in ("methods", "seeds", "measure"))
    plan = compare.Plan(tuple(methods.split(",")), seeds, Config(**options), measure.replace("-", "_"))
    assert plan == compare.read_plan(done)
    assert html.count(">MM-DRW<") >= 2 + 2  # two runs, the difference, the classes


def test_a_finished_comparison_is_not_trained_again(done, tmp_path, monkeypatch, capsys):
    out = copied(done, tmp_path)
    monkeypatch.setattr(experiment, "run", None)
    before = (out / "comparison.md").read_bytes()
    (out / "comparison.md").unlink()
    assert command.main([*SMALL, *TWO, "--out", str(out)]) == 0
    assert (out / "comparison.md").read_bytes() == before
    assert before.decode() in capsys.readouterr().out


def test_a_decision_shares_the_runs_of_its_method(done, tmp_path, monkeypatch, capsys):
    out = copied(done, tmp_path)
    plan = json.loads((out / "compare.json").read_text())
    plan["methods"] = ["mm-drw", "erm+logit-adjustment", "erm", "erm+logit-adjustment:0"]
    (out / "compare.json").write_text(json.dumps(plan))
    monkeypatch.setattr(experiment, "run", None)
    assert command.main(["--resume", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "4 methods, 2 of them trained, by 2 seeds" in printed
    assert "| ERM + logit-adjustment |" in printed.replace("**", "")
    assert "From the simplest: erm, erm+logit-adjustment, erm+logit-adjustment:0, mm-drw." in printed
    assert "METHOD+DECISION shares the training of METHOD" in printed
    with open(out / "comparison.csv", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert {name: row["additions"] for name, row in rows.items()} == {
        **{"erm": "0", "erm+logit-adjustment": "1", "erm+logit-adjustment:0": "1", "mm-drw": "2"}
    }
    assert rows["erm"]["error"] == rows["erm+logit-adjustment:0"]["error"]
    assert rows["erm"]["seconds"] == rows["erm+logit-adjustment"]["seconds"]
    errors = []
    for seed in (0, 1):
        model = RunModel.load(out / f"erm-seed{seed}")
        _, images, labels, _ = own_images(out / f"erm-seed{seed}", model, None)
        scores = decide.decided("logit-adjustment", model.trained, labels, model.logits(np.asarray(images))).scores
        errors.append(np.mean(scores.argmax(axis=1) != labels))
    assert float(rows["erm+logit-adjustment"]["error"]) == pytest.approx(np.mean(errors))
    assert rows["erm+logit-adjustment"]["error"] != rows["erm"]["error"]


def test_priors_that_are_taken_out_twice_are_named_before_any_work_and_in_the_result(
    done, tmp_path, monkeypatch, capsys
):
    out = copied(done, tmp_path)
    monkeypatch.setattr(experiment, "run", None)
    names = "erm+logit-adjustment:1,mm-drw+logit-adjustment:1"
    assert command.main(["--resume", str(out), "--methods", names]) == 0
    plan, result = capsys.readouterr().out.split("# digits", maxsplit=1)
    said = "mm-drw+logit-adjustment:1: the training balances the classes already; --decide logit-adjustment:1 does so"
    for text in (plan, result, (out / "comparison.html").read_text()):
        assert said in text
        assert "erm+logit-adjustment:1: " not in text
    assert "4 methods, 2 of them trained, by 2 seeds: " in plan
    assert re.search(r"\n4 runs of 2 epochs on \d+ training images of 10 classes, ", plan)
    assert "Balanced accuracy on 120 held-out training images decides." in plan


def test_what_another_process_trains_is_left_to_it(done, tmp_path, capsys):
    out = copied(done, tmp_path)
    shutil.rmtree(out / RUNS[2])
    with locked(out / RUNS[2]):
        assert command.main(["--resume", str(out)]) == 3
    printed = capsys.readouterr().out
    assert "another process trains it" in printed
    assert "1 seed of 2 planned of each method" in printed
    assert "one seed" in printed  # no certainty
    assert f"not finished: {RUNS[2]}. Continue: " in printed


def test_a_method_whose_loss_is_nan_is_left_out_and_named(done, tmp_path, monkeypatch, capsys):
    out = copied(done, tmp_path)
    plan = json.loads((out / "compare.json").read_text())
    plan["methods"].append("ldam")
    (out / "compare.json").write_text(json.dumps(plan))

    begun = []

    def run(config, folder, **_):
        begun.append(folder.name)
        folder.mkdir()
        note_failure(folder, error)  # as a run does
        raise error

    error = NonFiniteLossError("The loss became nan.")
    monkeypatch.setattr(experiment, "run", run)
    assert command.main(["--resume", str(out)]) == 0
    assert begun == ["ldam-seed0"]  # the other seed would be left out, too
    assert "Left out, as a loss became NaN: ldam." in capsys.readouterr().out
    monkeypatch.setattr(experiment, "run", None)
    assert command.main(["--resume", str(out)]) == 0  # the same again
    said = (
        f"ldam-seed0 failed in an earlier try, and stays left out. To try it again: {cli.program('fit')} --resume {out}"
    )
    assert f"{said}/ldam-seed0\n" in capsys.readouterr().out
    plan = compare.read_plan(out)
    assert compare.failed_methods(out, plan) == ["ldam"]
    shutil.copy(out / "erm-seed0" / "metrics.json", out / "ldam-seed0")  # it was, and ended well
    assert compare.failed_methods(out, plan) == []


def test_a_finished_run_of_another_config_is_not_compared(done, tmp_path, monkeypatch, capsys):
    """Where the plan was removed, or a run was brought from elsewhere."""
    out = copied(done, tmp_path)
    (out / "compare.json").unlink()
    monkeypatch.setattr(experiment, "run", None)
    assert command.main([*SMALL, *TWO, "--batch-size", "64", "--out", str(out)]) == 2
    assert "erm-seed0 holds a run of another config (batch_size: 16 there, 64 asked for)" in capsys.readouterr().err
    assert not (out / "compare.json").exists()


def test_a_finished_run_of_other_images_is_not_compared(done, tmp_path, monkeypatch, capsys):
    out = copied(done, tmp_path)
    (out / "erm-seed0" / "data.json").write_text('{"fingerprint": "other", "origin": "", "report": []}')
    monkeypatch.setattr(experiment, "run", None)
    assert command.main(["--resume", str(out)]) == 2
    assert "The images of digits changed since the run in" in capsys.readouterr().err


def test_what_tells_runs_apart_beside_their_methods_is_said(done, tmp_path, monkeypatch, capsys):
    out = copied(done, tmp_path)
    assert "Heads: dense of erm; cosine of mm-drw." in (done / "comparison.md").read_text()
    assert "same program" not in (done / "comparison.md").read_text()
    path = out / "mm-drw-seed1" / "environment.json"
    start = json.loads(path.read_text())["starts"][0]
    path.write_text(json.dumps({"starts": [start | {"backend": "other", "processor": "a slow one"}]}))
    monkeypatch.setattr(experiment, "run", None)
    assert command.main(["--resume", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"by the same program, which may make a difference: backend {BACKEND}, other." in printed
    assert "Times are of several processors: " in printed
    assert "a slow one." in printed


def test_what_other_processes_added_to_the_plan_stays_in_the_report(done, tmp_path, monkeypatch, capsys):
    out = copied(done, tmp_path)

    def work(folder, plan, data, **_):
        content = json.loads((out / "compare.json").read_text())
        (out / "compare.json").write_text(json.dumps(content | {"seeds": 5}))
        return []

    monkeypatch.setattr(compare, "work", work)
    assert command.main(["--resume", str(out)]) == 0
    assert "2 seeds of 5 planned of each method" in capsys.readouterr().out


def test_a_picture_that_cannot_be_drawn_leaves_the_numbers(done, tmp_path, monkeypatch, capsys):
    def fails(*_, **__):
        raise RuntimeError("no font")

    out = copied(done, tmp_path)
    (out / "comparison.html").unlink()
    monkeypatch.setattr(plots, "comparison", fails)
    assert command.main(["--resume", str(out)]) == 0
    assert "comparison.svg cannot be drawn (RuntimeError: no font)" in capsys.readouterr().out
    assert (out / "comparison.html").exists()


def test_the_runs_of_a_final_comparison_are_not_to_be_trained_again(done, tmp_path, monkeypatch, capsys):
    """The same runs as if they were of --final: what they were evaluated on is taken for the test split."""
    out, splits = copied(done, tmp_path), compare.inputs.split
    plan = json.loads((out / "compare.json").read_text())
    del plan["options"]["holdout"]
    (out / "compare.json").write_text(json.dumps(plan))
    for name in RUNS:
        config = json.loads((out / name / "config.json").read_text())
        (out / name / "config.json").write_text(json.dumps(config | {"holdout": 0}))
    monkeypatch.setattr(experiment, "run", None)
    monkeypatch.setattr(compare.inputs, "split", lambda data, c: splits(data, dataclasses.replace(c, holdout=12)))
    assert command.main(["--resume", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Balanced accuracy on 120 images of the test split decides." in printed
    assert "All of these runs are trained on all training images: those of the choice are " in printed
    for text in (printed, (out / "comparison.html").read_text()):
        assert "tf-mmloss fit" not in text


def test_what_is_not_finished_is_continued_with_the_same_data_and_backend(done, tmp_path, monkeypatch, capsys):
    out = tmp_path / "which one"
    shutil.copytree(done, out)
    shutil.rmtree(out / RUNS[3])

    def busy(*_, **__):
        raise compare.RunBusyError("busy")

    monkeypatch.setattr(experiment, "run", busy)
    given = ["--data-dir", str(tmp_path), "--backend", BACKEND]
    assert command.main(["--resume", str(out), *given]) == 3
    continued = f"compare --resume '{out}' --data-dir {tmp_path} --backend {BACKEND}\n"
    assert f"not finished: {RUNS[3]}. Continue: " in (printed := capsys.readouterr().out)
    assert printed.endswith(continued)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "run", interrupted)
    assert command.main(["--resume", str(out), *given]) == 130
    assert (printed := capsys.readouterr().out).endswith(continued)
    assert f"What was compared before is in {out}/comparison.md. Continue: " in printed


def test_nothing_to_compare_is_said_with_its_reason(done, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    for name in (RUNS[1], *RUNS[2:]):
        shutil.rmtree(out / name)

    def run(config, folder, **_):
        if reason == "nan":
            folder.mkdir()
            note_failure(folder, error := NonFiniteLossError("The loss became nan."))
            raise error
        raise experiment.RunStoppedError("stopped")

    monkeypatch.setattr(experiment, "run", run)
    reason = "stopped"
    assert command.main(["--resume", str(out)]) == 3
    assert "Nothing to compare yet: no seed is finished by all methods.\n" in capsys.readouterr().out
    assert len(list(out.glob("comparison.*"))) == 5  # of what was finished before
    reason = "nan"
    assert command.main(["--resume", str(out)]) == 1
    said = "Nothing to compare: fewer than two methods are left. Left out, as a loss became NaN: erm, mm-drw.\n"
    assert said in capsys.readouterr().out
    assert not list(out.glob("comparison.*"))


def test_hours_stop_and_what_is_finished_is_compared(done, tmp_path, monkeypatch, capsys):
    out = copied(done, tmp_path)
    for name in RUNS[2:]:
        shutil.rmtree(out / name)
    asked = []

    def run(config, folder, *, stop, **_):
        asked.append(stop())
        raise experiment.RunStoppedError("stopped")

    monkeypatch.setattr(experiment, "run", run)
    assert command.main(["--resume", str(out), "--hours", "1e-9"]) == 3
    assert asked == [True]
    assert "1 seed of 2 planned" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`methods` must be given"),
        (["--methods", "erm,mm-dwr"], "`methods` must be one of .*Received: methods='mm-dwr'. Did you mean 'mm-drw'?"),
        (["--methods", "erm,rotation"], "`methods` must be one of"),
        (["--methods", "erm,mine:method"], "must be names of methods; one's own is a name too where"),
        ([*TWO, "--holdout", "0.2"], "or a share of each class in (0, 1) of own images or with `imbalance` none"),
        (["--methods", "erm"], "`methods` must be two to 20, each once"),
        (["--methods", "erm,mm,erm"], "`methods` must be two to 20, each once"),
        (["--methods", "erm+logit-adjustment:1,erm+logit-adjustment:1.0"], "`methods` must be two to 20, each once"),
        (["--methods", "erm,erm+logit-adjustmant"], "`methods` erm+logit-adjustmant: `decide` must be one of"),
        (["--methods", "erm,erm+logit-adjustmant"], "Did you mean 'logit-adjustment'?"),
        (
            ["--methods", "emr+temperature,erm"],
            "`methods` must be one of .*Received: methods='emr'. Did you mean 'erm'?",
        ),
        (["--methods", "erm,erm+none"], "`methods` erm+none: the decision none is erm alone"),
        (["--methods", "erm,erm+temperature"], "the answers are those of erm alone, and answers are what is compared"),
        (["--methods", "erm,erm+logit-adjustment:x"], "must be logit-adjustment, or logit-adjustment:NUMBER"),
        (["--methods", "erm,mm-drw+tau-normalisation"], "tau-normalisation needs a dense head"),
        (["--methods", "erm,erm+logit-adjustment", "--final"], "none are held out: give a strength"),
        ([*TWO, "--decide", "temperature"], "METHOD+DECISION, as in --methods erm,erm+logit-adjustment"),
        ([*TWO, "--beta", "1.5"], "`beta` is an option of single methods"),
        ([*TWO, "--method", "erm"], "`method` is an option of single methods"),
        ([*TWO, "--start-epoch", "1"], "`start_epoch` is an option of single methods"),
        ([*TWO, "--seeds", "0"], "`seeds` must be an integer >= 1"),
        ([*TWO, "--measure", "balanced"], "Did you mean 'balanced_accuracy'?"),
        ([*TWO, "--hours", "0"], "`hours` must be a finite number > 0"),
        ([*TWO, "--holdout", "0"], "`holdout` must be an integer >= 1"),
        ([*TWO, "--holdout", "500"], "`holdout` must leave training images of every class"),
        ([*TWO, "--final", "--holdout", "5"], "`holdout` is not for --final"),
        ([*TWO, "--depth", "9"], "`depth` must be 6n+2"),
        ([*TWO, "--learning-rate", "0"], "`learning_rate` must be"),
        ([*TWO, "--seed", str(2**32 - 1)], "`seed` must be below 2^32"),
        (["--resume", "nowhere"], "nowhere holds no comparison"),
    ],
)
def test_mistakes_exit_with_2_before_any_work(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "run", None)
    given = arguments if "--resume" in arguments else [*SMALL, "--out", "out", *arguments]
    assert command.main(given) == 2
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "erm,ldam-drw", "--depth", "9"], "`depth` must be"),
        (["--methods", "erm,ldam-drw", "--precision", "float7"], "`precision` must be"),
    ],
)
def test_mistakes_are_found_before_own_images_are_read(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tf_mmloss.train.inputs.load", lambda *_: pytest.fail("the images were read"))
    assert command.main(["--dataset", str(tmp_path), *options, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_are_no_markup_in_the_text(done):
    found = compare.report(done, datasets.load("digits"))
    found["answer"].append("Classes without evaluated images are in no number: a|b.")
    text = compare.text({**found, "few": ["<b>", "x|y"]}, "*mine*")
    assert text.startswith("# \\*mine\\*: which method?\n")
    assert r"the rarest classes, \<b\>, x\|y." in text
    assert r"no number: a\|b." in text


def test_another_plan_in_the_folder_is_refused(done, tmp_path, capsys, monkeypatch):
    out = copied(done, tmp_path)
    monkeypatch.setattr(experiment, "run", None)
    assert command.main([*SMALL, "--methods", "erm,mm", "--seeds", "2", "--out", str(out)]) == 2
    assert (
        "holds another comparison (methods: ['erm', 'mm-drw'] there, ['erm', 'mm'] asked for)"
        in capsys.readouterr().err
    )
    assert command.main(["--resume", str(out), "--seeds", "1"]) == 2
    assert "holds another comparison (seeds: 2 there, 1 asked for)" in capsys.readouterr().err
    assert command.main([*SMALL, *TWO, "--batch-size", "64", "--out", str(out)]) == 2
    assert "holds another comparison (batch_size: None there, 64 asked for)" in capsys.readouterr().err
    assert command.main(["--resume", str(out), "--seeds", "0"]) == 2
    assert "`seeds` must be an integer >= 1" in capsys.readouterr().err
    assert command.main(["--resume", str(out), "--methods", "mm-dwr"]) == 2
    assert "Did you mean 'mm-drw'?" in capsys.readouterr().err
    assert command.main(["--resume", str(out), "--measure", "error"]) == 2
    assert "`measure` must not be given with --resume" in capsys.readouterr().err


def test_seeds_and_methods_are_added(done, tmp_path, monkeypatch, capsys):
    out, asked = copied(done, tmp_path), []

    def run(config, folder, **_):
        asked.append(folder.name)
        raise experiment.RunStoppedError("stopped") if len(asked) in (2, 4) else ResourceExhausted("out of memory")

    monkeypatch.setattr(experiment, "run", run)
    assert command.main(["--resume", str(out), "--seeds", "3", "--methods", " ldam"]) == 3
    assert asked == ["ldam-seed0", "ldam-seed1"]
    printed = capsys.readouterr()
    assert "ldam-seed0 ended in ResourceExhausted, and is tried again by the next command" in printed.out + printed.err
    assert "RuntimeError" not in printed.err
    assert "out of memory" in printed.err  # its traceback
    assert "not finished: ldam-seed0, ldam-seed1, erm-seed2, mm-drw-seed2, ldam-seed2. Continue" in printed.out
    plan = compare.read_plan(out)
    assert (plan.methods, plan.seeds) == (("erm", "mm-drw", "ldam"), 3)
    assert command.main([*SMALL, "--methods", "mm-drw,erm,ldam", "--seeds", "4", "--out", str(out)]) == 3
    assert asked[2:] == ["ldam-seed0", "ldam-seed1"]


class ResourceExhausted(RuntimeError):  # noqa: N818
    """As TensorFlow's."""


def test_the_choice_can_be_trained_by_the_command_that_is_shown(done):
    text = (done / "comparison.md").read_text()
    (shown,) = re.findall(r"^    tf-mmloss fit (.*)$", text, re.M)
    config = Config(**vars(fit.parser().parse_args(shlex.split(shown))))
    with open(done / "comparison.csv", newline="") as file:
        chosen = next(row["method"] for row in csv.DictReader(file) if row["choice"] == "1")
    expected = read_config(done / f"{chosen}-seed0")
    assert (config.method, config.holdout, config.depth, config.epochs) == (chosen, 0, 8, 2)
    assert resolve(config).values() == expected.values() | {"holdout": 0, "eval_every": 1}
    plan = compare.read_plan(done)
    fitted = compare._fit(plan, "erm+logit-adjustment")
    assert (fitted["decide"], fitted["holdout"], fitted["method"]) == ("logit-adjustment", 12, "erm")
    given = compare._fit(plan, "erm+logit-adjustment:1")
    assert (given["decide"], given.get("holdout")) == ("logit-adjustment:1", None)


def test_the_time_of_a_run_has_that_of_its_backbone(done, tmp_path):
    config = Config(dataset="digits", ratio=20, depth=8, epochs=2, method="ldam-drw-ssp")
    backbone = pretraining(resolve(config))
    for name, one, seconds in (("run", resolve(config), 10.0), (backbone.name, backbone, 3.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(one.values()))
        metrics = json.loads((done / RUNS[0] / "metrics.json").read_text())
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics | {"seconds": seconds}))
    assert compare._seconds(tmp_path / "run") == 13.0


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "digits-longtail20"),
        ({"recipe": "strong"}, "digits-longtail20-strong"),
        ({"recipe": "strong", "seed": 3}, "digits-longtail20-strong"),
    ],
)
def test_the_folder_is_named_after_no_method(options, name):
    assert command._name(Config(dataset="digits", ratio=20, method="erm", **options)) == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, not 1"),
        ({"methods": ["erm", "nn"]}, "`methods` must be one of"),
        ({"methods": "erm,mm"}, "methods must be a list"),
        ({"methods": ["erm", ["mm"]]}, "`methods`"),
        ({"seeds": 10**9}, "`seeds`"),
        ({"options": {"data": 1}}, "unknown options data"),
        ({"options": {"beta": 1.0}}, "`beta` is an option of single methods"),
        ({"options": {"seed": "a"}}, "`seed` must be an integer"),
        ({"options": {"dataset": "os:system"}}, "is a function that would be called"),
    ],
)
def test_a_plan_of_others_is_checked(change, message, tmp_path, capsys):
    plan = {"version": 1, "methods": ["erm", "mm"], "seeds": 1, "measure": "error", "options": {}, "fingerprint": ""}
    (tmp_path / "compare.json").write_text(json.dumps(plan | change))
    assert command.main(["--resume", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["compare.json"]


def test_classes_too_small_for_a_held_out_image_are_refused_or_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TF_MMLOSS_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (37, 8, 8, 3), np.uint8)
    labels = np.repeat([0, 1, 2], [24, 12, 1])
    np.savez(tmp_path / "birds.npz", x=pixels, y=labels)
    configs = []

    def run(config, folder, *, data, **_):
        configs.append(config)
        raise experiment.RunStoppedError("stopped")

    monkeypatch.setattr(experiment, "run", run)
    given = ["--dataset", str(tmp_path / "birds.npz"), *TWO, "--out", str(tmp_path / "out")]
    assert command.main(given) == 2
    assert "needs an evaluated image of every class" in (said := capsys.readouterr().err)
    assert "Received: none of 2" in said
    assert not (tmp_path / "out").exists()
    assert not configs
    assert command.main([*given, "--measure", "error"]) == 3
    assert "classes too small for an evaluated image, left out of every number: 2" in capsys.readouterr().out
    assert [(config.holdout, config.eval_every) for config in configs] == [(0.2, 200)]
    shutil.rmtree(tmp_path / "out")
    assert command.main([*given, "--measure", "few-accuracy", "--epochs", "3"]) == 2
    assert "`measure` few_accuracy needs evaluated images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_evaluated_images_of_one_group_are_refused_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TF_MMLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(experiment, "run", None)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for place in range(12):  # three places, each with both classes: training, held out, test
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"place{place % 3}-{place}.png")
    given = ["--dataset", str(tmp_path / "pets"), "--group-by", "place[0-9]", *TWO, "--out", str(tmp_path / "out")]
    assert command.main(given) == 2
    assert "two groups or more among the evaluated images" in (said := capsys.readouterr().err)
    assert "Received: 8 images of one group" in said
    assert not (tmp_path / "out").exists()


def test_equally_simple_methods_are_named_in_the_order_of_the_choice():
    labels = np.repeat(np.arange(4), 10)
    right = np.random.default_rng(0).random((2, 3, 40)) < np.array([0.6, 0.75])[:, None, None]
    names = ["ldam", "balanced-softmax"]
    added = [compare.additions(name) for name in names]
    assert added[0] == added[1]
    answers = np.where(right, labels, (labels + 1) % 4)
    found = comparison.compare(labels, answers, names, few=np.arange(4) > 1, additions=added)
    assert (found["best"], found["choice"]) == ("balanced-softmax", "ldam")
    for row in found["methods"]:
        row |= {"seconds": 1.0, "additions": added[0]}
    said = dict.fromkeys(("on", "trained_on", "how", "fit", "choice_runs"), "")
    found |= {"planned_seeds": 3, "failed": [], "remarks": [], **said}
    assert "From the simplest: ldam, balanced-softmax." in compare.text(found, "x")


def test_no_difference_is_not_a_negative_one():
    labels = np.array([0, 0, 1, 1])
    found = comparison.compare(labels, np.zeros((2, 1, 4), int), ["erm", "ldam"], few=[False, True])
    assert "-0.0 (" not in compare._difference(found["pairs"][0])
    found["methods"] = [row | {"seconds": 1.0, "additions": 0} for row in found["methods"]]
    rows = list(csv.DictReader(compare._csv(found).splitlines()))
    assert [row["difference_to_best"] for row in rows] == ["0.0", "0.0"]


def test_help_has_the_defaults_of_a_comparison():
    said = " ".join(command.parser().format_help().split())
    assert "evaluate every N epochs and at the end; default: at the end alone" in said
    assert "--beta" not in said


def test_runs_are_seed_by_seed_so_that_every_stop_is_fair():
    plan = compare.Plan(("erm", "mm"), 2, Config(dataset="digits", seed=5))
    assert [(cell.method, cell.seed) for cell in plan.cells()] == [("erm", 5), ("mm", 5), ("erm", 6), ("mm", 6)]
    plan = compare.Plan(("erm+temperature", "mm", "erm"), 1, plan.config)
    assert [cell.method for cell in plan.cells()] == ["erm", "mm"]


@pytest.mark.parametrize(
    ("cls_counts", "expected"),
    [([500, 50, 19], [2]), ([500, 90, 50], [2]), ([19, 9, 3, 2, 1, 1], [4, 5]), ([30, 30], [0])],
)
def test_the_rarest_classes(cls_counts, expected):
    assert compare.rarest(cls_counts).nonzero()[0].tolist() == expected
