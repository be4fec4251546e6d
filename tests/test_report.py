"""results.csv and the tables of results, from run folders written by hand."""

import csv
import io
import json

import numpy as np
import pytest

from reproduction import report
from reproduction.published_code import MM_DRW
from tf_mmloss import methods
from tf_mmloss.methods import open_function
from tf_mmloss.runs import predictions
from tf_mmloss.train.config import Config
from tf_mmloss.train.resolve import resolve

DRAWS = True  # see conftest

NAMES = [f"class{c}" for c in range(10)]
PAGE = "# Title\n\n<!-- results:begin -->\nold\n<!-- results:end -->\n\nThe rest.\n"


def write_run(root, *, folder=None, error=0.22, best=0.21, seconds=7200.0, metrics=(), **options):
    """Write a finished run folder; return its path."""
    config = resolve(Config(**options))
    path = root / (folder or config.name)
    path.mkdir(parents=True)
    content = {
        "error": error,
        "balanced_accuracy": 1 - error,
        "shot_accuracy": {"many": 0.875, "medium": 0.5, "few": None},
        "per_class_error": [error] * 9 + [1.0],
        "best_epoch": {"epoch": 3, "error": best, "evaluated": 40},
        "cls_counts": [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
        "class_names": NAMES,
        "epochs": config.epochs,
        "seconds": seconds,
        "images_per_second": 900.4,
        **dict(metrics),
    }
    versions = {"python": "3.11.7", "keras": "3.15.1", "tensorflow": "2.21.0"}
    start = {"versions": versions, "backend": "tensorflow", "commit": "0123456789ab", "cores": 2, "processor": "CPU"}
    for name, data in (
        ("config", config.values()),
        ("metrics", content),
        ("environment", {"starts": [start]}),
    ):
        (path / f"{name}.json").write_text(json.dumps(data))
    return path


@pytest.fixture
def place(tmp_path):
    """A folder of runs, a page of results and a README."""
    (tmp_path / "docs").mkdir()
    for name in ("docs/results.md", "README.md"):
        (tmp_path / name).write_text(PAGE)
    return tmp_path


def run_report(place, *more):
    return report.main(["--runs", str(place / "results"), "--page", str(place / "docs" / "results.md"), *more])


def page(place):
    return (place / "docs" / "results.md").read_text()


def readme(place):
    return (place / "README.md").read_text()


def test_only_the_default_runs_or_named_pages_change_pages(place, monkeypatch, capsys):
    write_run(place / "results")
    write_run(place / "mine")
    monkeypatch.chdir(place)
    before = page(place)
    assert report.main(["--runs", "mine"]) == 0
    assert page(place) == readme(place) == before
    assert (place / "mine" / "results.csv").exists()
    assert capsys.readouterr().out == "1 runs: mine/results.csv\n"
    assert report.main(["--runs", str(place / "results")]) == 0
    assert page(place) != before
    assert readme(place) != before
    for option, name in (("--page", "docs/results.md"), ("--readme", "README.md")):
        (place / name).write_text(before)
        assert report.main(["--runs", "mine", option, name]) == 0
        assert (place / name).read_text() != before


def test_the_readme_has_the_papers_training_sets_the_best_method_first(place):
    for seed, error in enumerate([0.22, 0.23, 0.24]):
        write_run(place / "results", error=error, seed=seed, precision="bfloat16")
    write_run(place / "results", method="ldam-drw", error=0.2)
    write_run(place / "results", dataset="cifar100", method="ldam-drw", error=0.6)
    write_run(place / "results", method="erm", error=0.3)
    write_run(place / "results", method="erm", folder="half", precision="bfloat16", error=0.31)
    write_run(place / "results", method="ldam-drw", recipe="record", error=0.15)
    write_run(place / "results", method="ldam-drw", recipe="strong", folder="strong", error=0.17)
    write_run(place / "results", folder="short", epochs=30, error=0.1)
    write_run(place / "results", dataset="digits", ratio=20, error=0.09)
    assert run_report(place, "--readme", str(place / "README.md")) == 0
    assert """
| Training set | Method | Error in %, last epoch | Published, best epoch | Elsewhere |
| --- | --- | --- | --- | --- |
| CIFAR-10, long-tailed 100:1 | LDAM-DRW, record recipe | 15.00 (n=1) | – | – |
| CIFAR-10, long-tailed 100:1 | LDAM-DRW, strong recipe | 17.00 (n=1) | – | 17.40 (Son et al.) |
| CIFAR-10, long-tailed 100:1 | LDAM-DRW | 20.00 (n=1) | 22.97 | 22.03 ± 0.17 (DDC, n=3); 22.27 (BagofTricks-LT, n=1) |
| CIFAR-10, long-tailed 100:1 | MM-DRW | 23.00 ± 1.00 (n=3) | 21.98 | – |
| CIFAR-10, long-tailed 100:1 | ERM | 30.00 (n=1) | 29.64 | 28.75 ± 0.10 (DDC, n=3) |
| CIFAR-10, long-tailed 100:1 | ERM, precision bfloat16 | 31.00 (n=1) | 29.64 | 28.75 ± 0.10 (DDC, n=3) |
| CIFAR-100, long-tailed 100:1 | LDAM-DRW | 60.00 (n=1) | 57.96 | 57.27 ± 0.28 (DDC, n=3); 57.53 (BagofTricks-LT, n=1) |
""" in readme(place)


def test_differences_are_those_of_welchs_test(place):
    for seed, errors in enumerate([(0.22, 0.20), (0.23, 0.21), (0.27, 0.205)]):
        for method, error in zip(("mm-drw", "ldam-drw"), errors, strict=True):
            write_run(place / "results", method=method, seed=seed, error=error)
            write_run(place / "results", method=method, seed=seed, error=error, recipe="strong")
            write_run(place / "results", method=method, seed=seed, error=error, depth=20, folder=f"20-{method}-{seed}")
    write_run(place / "results", method="erm", error=0.3)
    assert run_report(place) == 0
    # Recipes and networks are not mixed.
    # By hand: means 20.5 and 24; variances 0.25 and 7; t = -3.5 / sqrt(7.25 / 3) on 2.1424 degrees of freedom.
    assert [line for line in page(place).splitlines() if "3 and 3" in line] == [
        f"| CIFAR-10, long-tailed 100:1 | LDAM-DRW{kind} | MM-DRW{kind} | 3 and 3 | -3.50 [-9.78, +2.78] | 0.14 |"
        for kind in ("", ", depth 20", ", strong recipe")
    ]


def test_a_small_chance_is_not_printed_as_none(place):
    for seed in range(3):
        write_run(place / "results", seed=seed, error=0.2 + seed / 1000)
        write_run(place / "results", method="ldam-drw", seed=seed, error=0.3 + seed / 1000)
    assert run_report(place) == 0
    (line,) = [line for line in page(place).splitlines() if "3 and 3" in line]
    assert line.endswith(
        "| +10.00 [+9.77, +10.23] | &lt; 0.01 |"
    )  # t = 0.1 / sqrt(2 * 1e-6 / 3) on 4 degrees of freedom


def line_of(place, start):
    (line,) = [line for line in page(place).splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def refused(place, capsys, *said):
    """The report is refused for the said reasons, and nothing is written."""
    before = page(place)
    assert run_report(place) == 2
    error = capsys.readouterr().err
    assert all(text in error for text in said), error
    assert page(place) == before
    assert not (place / "results" / "results.csv").exists()


def test_the_whole_report_byte_for_byte(place, capsys):
    for seed, error in enumerate([0.22, 0.23, 0.24]):
        write_run(place / "results", error=error, best=error - 0.01 * seed, seconds=3600.0 * (seed + 1), seed=seed)
    write_run(place / "results", method="erm", precision="bfloat16", error=0.2964, seconds=1800.0)
    write_run(place / "results", folder="short", epochs=30, margin_space="cosine", error=0.4)
    write_run(place / "results", dataset="digits", ratio=20, error=0.09, best=0.07, seconds=25.0)
    (place / "results" / "growing").mkdir()
    (place / "results" / "growing" / "config.json").write_text("{}")
    assert run_report(place) == 0
    said = capsys.readouterr()
    assert "6 runs" in said.out
    assert "skipped" in said.err
    assert "growing" in said.err
    assert page(place) == (
        """# Title

<!-- results:begin -->
Top-1 error on the test split in %, mean ± standard deviation over n seeds. Ours is that of the last epoch; the paper \
reports the best epoch on the test split, ours of k evaluated epochs stands beside it.

| Data set | Method | Ours (last epoch) | Best epoch | Published (best epoch) | Elsewhere | Time of the fastest run |
| --- | --- | --- | --- | --- | --- | --- |
| CIFAR-10, long-tailed 100:1 | ERM, precision bfloat16 | 29.64 (n=1) | 21.00 (k=40) | 29.64 | 28.75 ± 0.10 (DDC, n=3) \
| 30 min, CPU, 2 cores |
| CIFAR-10, long-tailed 100:1 | MM-DRW | 23.00 ± 1.00 (n=3) † | 22.00 ± 0.00 (k=40) | 21.98 | – \
| 1.0 h, CPU, 2 cores |

† More than 1 point from the published error.

Elsewhere: the same training set, network and recipe with other code. DDC: runs of Wang et al. (NeurIPS 2023), epoch \
not stated. BagofTricks-LT: the gallery of Zhang et al. (AAAI 2021), best epoch. Son et al.: AAAI 2025, from whom the \
strong recipe is, epoch not stated.

Runs shorter or longer than their recipe's:

| Data set | Method | Ours (last epoch) | Best epoch | Time of the fastest run |
| --- | --- | --- | --- | --- |
| CIFAR-10, long-tailed 100:1 | MM-DRW, margin space cosine, 30 epochs | 40.00 (n=1) | 21.00 (k=40) \
| 2.0 h, CPU, 2 cores |

Data sets that are not the paper's:

| Data set | Method | Ours (last epoch) | Best epoch | Time of the fastest run |
| --- | --- | --- | --- | --- |
| digits, long-tailed 20:1 | MM-DRW | 9.00 (n=1) | 7.00 (k=40) | 25 s, CPU, 2 cores |

By how much the best evaluated epoch on the test split is better than the last, in points of error:

| Lines above | Mean over a line's seeds | At most in a run |
| --- | --- | --- |
| of the paper's data sets | 1.00 to 19.00 | 19.00 |
| of data sets that are not the paper's | 2.00 to 2.00 | 2.00 |

CIFAR-10, long-tailed 100:1: error of each class in %, last epoch, mean over seeds:

| Method | class0 | class1 | class2 | class3 | class4 | class5 | class6 | class7 | class8 | class9 |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| training images | 5000 | 2997 | 1796 | 1077 | 645 | 387 | 232 | 139 | 83 | 50 |
| ERM, precision bfloat16 | 29.6 | 29.6 | 29.6 | 29.6 | 29.6 | 29.6 | 29.6 | 29.6 | 29.6 | 100.0 |
| MM-DRW | 23.0 | 23.0 | 23.0 | 23.0 | 23.0 | 23.0 | 23.0 | 23.0 | 23.0 | 100.0 |
| MM-DRW, margin space cosine, 30 epochs | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 100.0 |
<!-- results:end -->

The rest.
"""
    )
    lines = (place / "results" / "results.csv").read_bytes().decode().split("\n")
    assert lines[0] == (
        "run,dataset,imbalance,ratio,method,options,precision,depth,epochs,seed,last_epoch_error,best_epoch_error,"
        "balanced_accuracy,many_accuracy,medium_accuracy,few_accuracy,epochs_evaluated,hours,images_per_second,"
        "processor,cores,backend,keras,commit"
    )
    assert lines[1] == (
        "cifar10-longtail100-erm-seed0,cifar10,longtail,100.0,erm,precision bfloat16,bfloat16,32,200,0,29.640,21.000,"
        "70.360,87.500,50.000,,40,0.5000,900,CPU,2,tensorflow 2.21.0,3.15.1,0123456789ab"
    )
    assert len(lines) == 1 + 6 + 1
    assert lines[-1] == ""


def test_several_training_sets_are_shown_as_the_papers_table(place):
    write_run(place / "results", method="mm-drw", error=0.2198)
    write_run(place / "results", method="cb-rs", error=0.29, dataset="cifar10")
    for seed, error in enumerate([0.5457, 0.5657]):
        write_run(place / "results", method="mm-drw", dataset="cifar100", imbalance="step", error=error, seed=seed)
    write_run(place / "results", method="ldam-drw-ssp", imbalance="step", ratio=10, error=0.2)
    write_run(
        place / "results",
        method="mm-drw",
        imbalance="step",
        ratio=10,
        margin_space="cosine",
        error=0.12,
        folder="cosine",
    )
    write_run(place / "results", folder="every-5", imbalance="step", ratio=10, eval_every=5, error=0.1148, seed=1)
    write_run(place / "results", imbalance="step", ratio=10, error=0.1348)
    write_run(place / "results", method="ldam", imbalance="step", ratio=5, error=0.1)
    write_run(place / "results", method="rotation", error=0.4)
    assert run_report(place) == 0
    begin = page(place).index("CIFAR-10, ours")
    assert page(place)[begin:].startswith(
        """CIFAR-10, ours (last epoch) / published (best epoch):

| Method | long-tailed 100:1 | step 10:1 | step 5:1 |
| --- | --- | --- | --- |
| LDAM |  |  | 10.00 (n=1) / – |
| CB-RS | 29.00 (n=1) / 29.45 |  |  |
| LDAM-DRW+SSP |  | 20.00 (n=1) / 11.83 † |  |
| MM-DRW | 21.98 (n=1) / 21.98 | 12.48 ± 1.41 (n=2) / 11.48 |  |
| MM-DRW, margin space cosine |  | 12.00 (n=1) / 11.48 |  |

| Data set | Method |"""
    )
    assert "CIFAR-100, ours" not in page(place)  # one imbalance, which the next table shows
    assert "ROTATION" not in page(place)
    assert ",rotation," in (place / "results" / "results.csv").read_text()


def test_check_says_what_is_out_of_date(place, capsys):
    write_run(place / "results")
    assert run_report(place, "--check") == 1
    assert "results.md is not up to date" in capsys.readouterr().err
    assert page(place) == PAGE
    assert run_report(place) == 0
    assert run_report(place, "--check") == 0
    write_run(place / "results", seed=1)
    assert run_report(place, "--check") == 1
    said = capsys.readouterr().err
    assert "results.md" in said
    assert "results.csv" in said


@pytest.mark.parametrize(("error", "marked"), [(0.2298, False), (0.2299, True), (0.2098, False), (0.2097, True)])
def test_more_than_one_point_from_published_is_marked(place, error, marked):
    write_run(place / "results", error=error)  # published: 21.98
    assert run_report(place) == 0
    assert line_of(place, "CIFAR-10, long-tailed")[2].endswith("†") == marked
    assert ("† More than 1 point" in page(place)) == marked


def test_published_numbers_are_found_once_and_are_those_of_the_papers():
    with open(report.PUBLISHED, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"].startswith((report.PAPER, *report.ELSEWHERE))]
    keys = [tuple(row[key] for key in ("source", "method", "dataset", "imbalance", "ratio")) for row in rows]
    assert len(set(keys)) == len(keys)
    for label in ("ERM", "Focal", "LDAM", "MM", "LDAM-DRW", "MM-DRW", "MM-LDAM-DRW"):
        assert sum(key[:2] == (report.PAPER, label) for key in keys) == 8
    found = {
        source: " ".join(f"{row['method']} {row['top1_error']}" for row in rows if column(row, source))
        for source in (report.PAPER, *report.ELSEWHERE)
    }
    assert found == {
        "MM paper Table 1": "ERM 29.64 Focal 29.62 LDAM 26.65 MM 26.56 CB-RS 29.45 CB-RW 27.63 CB-Focal 25.43 "
        "HG-DRS 27.16 LDAM-HG-DRS 24.42 M-DRW 24.94 LDAM-DRW 22.97 LDAM-DRW+SSP 22.17 MM-DRW 21.98 MM-LDAM-DRW 21.37",
        "independent re-run": "ERM 28.75 LDAM-DRW 22.03 VS 19.71",
        "BagofTricks-LT gallery": "LDAM-DRW 22.27 Balanced Softmax 22.46",
        "Son et al., AAAI 2025": "ERM 21.52 LDAM 20.08 ERM-DRW 17.76 LDAM-DRW 17.40 Balanced Softmax 16.43",
    }


def column(row, source):
    """Whether a row is of a source's column CIFAR-10, long-tailed 100:1."""
    setting = (row["dataset"], row["imbalance"], row["ratio"])
    return row["source"].startswith(source) and setting == ("cifar10", "longtail", "100")


def test_other_options_are_other_lines_and_other_seeds_are_not(place):
    write_run(place / "results", seed=0, error=0.2)
    write_run(place / "results", seed=1, error=0.21)
    write_run(place / "results", folder="beta", beta=1.2, weights="inverse", depth=20)
    assert run_report(place) == 0
    assert line_of(place, "CIFAR-10, long-tailed 100:1 | MM-DRW |")[2] == "20.50 ± 0.71 (n=2) †"
    assert line_of(place, "CIFAR-10, long-tailed 100:1 | MM-DRW, beta 1.2, weights inverse, depth 20")


def test_another_recipe_is_a_line_with_its_name_and_nothing_published_beside_it(place):
    write_run(place / "results", method="balanced-softmax", error=0.2162)
    write_run(place / "results", method="balanced-softmax", folder="strong", recipe="strong", pad=2, error=0.1639)
    assert run_report(place) == 0
    assert line_of(place, "CIFAR-10, long-tailed 100:1 | Balanced Softmax |")[5] == "22.46 (BagofTricks-LT, n=1)"
    strong = line_of(place, "CIFAR-10, long-tailed 100:1 | Balanced Softmax, strong recipe, pad 2 |")
    assert (strong[2], strong[4], strong[5]) == ("16.39 (n=1)", "–", "16.43 (Son et al.)")


def test_single_held_out_runs_are_in_the_csv_only(place):
    write_run(place / "results")
    for search in ("a", "b"):
        write_run(place / "results", folder=f"{search}/trial-0", holdout=100, beta=1.1, error=0.01)
    assert run_report(place) == 0
    assert "held out" not in page(place)
    rows = list(csv.DictReader(io.StringIO((place / "results" / "results.csv").read_text())))
    assert [row["options"] for row in rows] == ["", "beta 1.1, holdout 100", "beta 1.1, holdout 100"]


def test_a_search_is_a_line_best_trial_first(place):
    write_run(place / "results")
    trials = [(10.0, "cosine", 0.31), (30.0, "cosine", 0.29), (10.0, "logit", 0.3)]
    for trial, (scale, space, error) in enumerate(trials):
        options = {"scale": scale, "margin_space": space, "delta_neg": 0.6, "beta": 1.1, "holdout": 500, "epochs": 30}
        write_run(place / "results", folder=f"mm-tuning/trial-{trial}", method="mm", error=error, **options)
    assert run_report(place) == 0
    assert line_of(place, "CIFAR-10, long-tailed 100:1 | MM, beta 1.1 |") == [
        *("CIFAR-10, long-tailed 100:1", "MM, beta 1.1", "30", "500"),
        "**scale 30, margin space cosine: 29.00**; scale 10, margin space logit: 30.00; "
        "scale 10, margin space cosine: 31.00",
    ]


def test_options_stand_in_the_order_of_the_loss_whatever_other_methods_there_are(place, monkeypatch):
    options = dict(reversed(methods.loss_options().items()))
    monkeypatch.setattr(methods, "loss_options", lambda: options)
    for trial, beta in enumerate((1.1, 1.2)):
        write_run(place / "results", folder=f"s/{trial}", holdout=500, epochs=30, delta_neg=0.7 + trial, beta=beta)
    write_run(place / "results", delta_neg=0.7, beta=1.2, scale=20.0, weights="inverse")
    assert run_report(place) == 0
    assert "| MM-DRW, delta neg 0.7, beta 1.2, scale 20, weights inverse | 22.00 (n=1)" in page(place)
    assert "**delta neg 0.7, beta 1.1: 22.00**; delta neg 1.7, beta 1.2: 22.00" in page(place)


def test_held_out_runs_of_other_methods_and_data_are_no_search(place):
    write_run(place / "results")
    for name, options in {"a": {"method": "erm"}, "b": {"method": "ldam"}, "c": {"ratio": 10}}.items():
        write_run(place / "results", folder=f"mixed/{name}", holdout=100, epochs=30, **options)
    assert run_report(place) == 0
    assert "held out" not in page(place)


def test_runs_made_in_different_ways_share_a_line(place):
    # The first seed's options are the line's.
    ways = [{"input": "device", "jit": "on", "strategy": "mirrored"}, {"eval_every": 1}, {"eval_every": 100}]
    for seed, way in enumerate(ways):
        evaluated = {"best_epoch": {"epoch": 3, "error": 0.2, "evaluated": 200 // way.get("eval_every", 1)}}
        write_run(place / "results", seed=seed, error=0.2 + seed / 100, metrics=evaluated, **way)
    assert run_report(place) == 0
    assert line_of(place, "CIFAR-10, long-tailed 100:1 | MM-DRW |")[2:4] == [
        "21.00 ± 1.00 (n=3)",
        "20.00 ± 0.00 (k=2 or 200)",
    ]
    assert "input device" not in page(place)
    assert "input device" in (place / "results" / "results.csv").read_text()


def test_a_resumed_run_names_every_machine(place):
    folder = write_run(place / "results")
    environment = json.loads((folder / "environment.json").read_text())
    environment["starts"].append({**environment["starts"][0], "processor": "B|C", "commit": None})
    (folder / "environment.json").write_text(json.dumps(environment))
    assert run_report(place) == 0
    assert r"CPU; B\|C, 2 cores" in page(place)


def test_runs_of_more_than_one_commit_are_named(place):
    for method, commits in (("erm", ["a", "b"]), ("ldam", ["a", "a"]), ("mm", ["a-dirty"])):
        folder = write_run(place / "results", method=method, folder=method)
        environment = json.loads((folder / "environment.json").read_text())
        environment["starts"] = [{**environment["starts"][0], "commit": commit} for commit in commits]
        (folder / "environment.json").write_text(json.dumps(environment))
    assert run_report(place) == 0
    assert page(place).partition("\n<!-- results:end -->")[0].splitlines()[-1] == (
        "Runs begun under one commit and continued under another: erm. Runs made with changes that no commit has: mm."
    )


def test_images_of_ones_own_have_tables_of_their_own(place):
    write_run(place / "results", method="erm", error=0.3)
    write_run(place / "results", dataset="digits", ratio=20, error=0.09)
    assert run_report(place) == 0
    before = page(place).partition("<!-- results:end -->")[0].strip()
    of_images = {"epochs": 9, "pad": 3, "flip": True, "batch_size": 64, "learning_rate": 0.05, "image_size": "48"}
    names = {"class_names": ["cat", "mo|th"], "cls_counts": [90, 8], "per_class_error": [0.125, None]}
    for seed, error in enumerate((0.2, 0.3)):
        write_run(
            place / "results", dataset="data/pets", method="erm", seed=seed, error=error, metrics=names, **of_images
        )
    write_run(
        place / "results", dataset="data/pets", method="erm", holdout=5, folder="held", metrics=names, **of_images
    )
    assert run_report(place) == 0
    blocks = page(place).partition("<!-- results:end -->")[0].partition("Images of one's own")
    assert blocks[0].rstrip() in before
    by_class = "CIFAR-10, long-tailed 100:1: error of each class"
    assert before.partition(by_class)[2] in page(place)  # the other tables are what they were
    assert "| of one's own | 4.00 to 4.00 | 9.00 |" in page(place)  # the best epochs have 21 %
    assert (
        "| pets, as it is | ERM, image size 48, 9 epochs | 25.00 ± 7.07 (n=2) | 75.00 ± 7.07 (n=2) | 2.0 h, CPU"
    ) in blocks[2]
    assert """
pets, as it is: error of each class in %, last epoch, mean over seeds:

| Class | Training images | Test images | ERM |
| --- | --- | --- | --- |
| cat | 90 | – | 12.5 |
| mo\\|th | 8 | – | – |
""" in blocks[2]


OF_IMAGES = {"epochs": 9, "pad": 3, "flip": True, "batch_size": 64, "learning_rate": 0.05, "image_size": "48"}


def write_own(place, dataset, error, names=("cat", "dog"), counts=(90, 8), **options):
    metrics = {"class_names": list(names), "cls_counts": list(counts), "per_class_error": [error, 2 * error]}
    options = {"method": "erm", "folder": f"{dataset}-{error}", **OF_IMAGES, **options}
    return write_run(place / "results", dataset=dataset, error=error, metrics=metrics, **options)


def test_sets_of_images_of_one_name_are_told_apart(place):
    write_own(place, "a/pets", 0.1)
    write_own(place, "b/pets", 0.2)
    write_own(place, "birds", 0.3)
    write_own(place, "birds", 0.4, counts=(70, 8), method="ldam", test_share=0.4)
    write_own(place, "<!-- results:end -->", 0.5)
    assert run_report(place) == 0
    lines = page(place).splitlines()
    titles = [line.partition(": error of each class")[0] for line in lines if ": error of each class" in line]
    assert titles == [
        *("&lt;!-- results:end -->, as it is", "a/pets, as it is", "b/pets, as it is"),
        *("birds, as it is, 98 training images", "birds, as it is, 78 training images"),
    ]
    assert lines[lines.index(f"{titles[2]}: error of each class in %, last epoch, mean over seeds:") + 4] == (
        "| cat | 90 | – | 20.0 |"
    )
    assert sum(line.startswith("| b/pets, as it is | ERM, image size 48, 9 epochs | 20.00") for line in lines) == 1
    assert run_report(place) == 0  # the page still has its markers once


def test_of_images_of_ones_own_the_options_are_named_that_differ(place):
    write_own(place, "pets", 0.1)
    write_own(place, "pets", 0.2, pad=4)
    write_own(place, "birds", 0.3, pad=5, image_size="32")
    assert run_report(place) == 0
    found = {line.split(" | ")[1] for line in page(place).splitlines() if "(n=1)" in line}
    sized = "ERM, image size 48"
    assert found == {f"{sized}, pad 3, 9 epochs", f"{sized}, pad 4, 9 epochs", "ERM, image size 32, 9 epochs"}
    rows = csv.DictReader(io.StringIO((place / "results" / "results.csv").read_text()))
    assert {row["options"] for row in rows} == {"image size 48, pad 3", "image size 48, pad 4", "image size 32"}


def test_the_test_images_of_each_class_are_those_of_the_predictions(place):
    folder = write_own(place, "pets", 0.25, seed=1)
    labels = np.array([0, 0, 0, 1])
    predictions.save(folder, predictions.Predictions(labels, np.array([0, 0, 1, 1])))
    write_own(place, "pets", 0.35, seed=0)  # without
    assert run_report(place) == 0
    assert "| cat | 90 | 3 | 30.0 |\n| dog | 8 | 1 | 60.0 |" in page(place)


@pytest.mark.parametrize(
    "text",
    ["no markers", PAGE.replace(":end", ":fin"), PAGE + PAGE, "<!-- results:end --><!-- results:begin -->"],
)
def test_a_page_without_its_markers_is_refused(place, capsys, text):
    write_run(place / "results")
    (place / "docs" / "results.md").write_text(text)
    refused(place, capsys, "<!-- results:begin -->", "<!-- results:end -->")


def test_a_page_outside_the_markers_is_kept_to_the_byte(place):
    write_run(place / "results")
    (place / "docs" / "results.md").write_bytes(b"a\r\n<!-- results:begin --><!-- results:end -->\r\n\xc3\xa4")
    assert run_report(place) == 0
    content = (place / "docs" / "results.md").read_bytes()
    assert content.startswith(b"a\r\n<!-- results:begin -->\nTop-1")
    assert content.endswith(b"|\n<!-- results:end -->\r\n\xc3\xa4")


def test_nothing_finished_is_refused(place, capsys):
    refused(place, capsys, "results has no finished run")
    (write_run(place / "results") / "metrics.json").unlink()
    refused(place, capsys, "1 unfinished")


def test_a_config_of_another_version_is_refused(place, capsys):
    write_run(place / "results")
    folder = write_run(place / "results", seed=1)
    config = json.loads((folder / "config.json").read_text())
    for changed, said in (
        ({**config, "colour": "red"}, "unknown keys, of another version: colour"),
        ({**config, "method": "none"}, "`method`"),
        ({}, "no dataset or no method"),
        ([], "not a JSON object"),
    ):
        (folder / "config.json").write_text(json.dumps(changed))
        refused(place, capsys, str(folder), said)
    (folder / "config.json").unlink()
    refused(place, capsys, str(folder), "config.json")


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"epochs": 7}, "7 epochs"),
        ({"error": "low"}, "another version"),
        ({"error": None}, "another version"),
        ({"shot_accuracy": {}}, "'many'"),
        ({"class_names": ["one"]}, "1 class_names"),
    ],
)
def test_metrics_of_another_version_are_refused(place, capsys, metrics, said):
    folder = write_run(place / "results", metrics=metrics)
    refused(place, capsys, str(folder), said)


def test_one_name_for_two_configs_is_refused(place, capsys):
    write_run(place / "results", folder="a/run")
    write_run(place / "results", folder="b/run", beta=1.2)
    refused(place, capsys, "a/run", "b/run", "beta: 1.5 and 1.2")


def test_one_config_in_two_folders_is_refused(place, capsys):
    write_run(place / "results", folder="a")
    write_run(place / "results", folder="b", eval_every=5)
    refused(place, capsys, "results/a", "results/b", "same config")


def write_predicting_run(place, wrong, **options):
    """A run with predictions of 100 images of ten classes, all right but for those in `wrong`."""
    folder = write_run(place / "results", error=len(wrong) / 100, **options)
    labels = np.arange(100) % 10
    predicted = labels.copy()
    predicted[list(wrong)] = (labels[list(wrong)] + 1) % 10
    predictions.save(folder, predictions.Predictions(labels, predicted))
    return folder


def same_images(place):
    """The lines of the table of differences on the same images, without their training set."""
    start = "| CIFAR-10, long-tailed 100:1 | "
    after = page(place).partition("image by image")[2].partition("error of each class")[0]
    return [line.removeprefix(start) for line in after.splitlines() if line.startswith(start)]


def test_differences_on_the_same_images_are_those_of_mcnemars_test(place):
    write_predicting_run(place, range(5), method="ldam-drw")
    write_predicting_run(place, range(4, 20))
    write_run(place / "results", method="erm")  # without predictions
    others = {"strong": {"recipe": "strong"}, "small": {"depth": 20}, "augmented": {"augment": "cutout"}}
    for name, options in others.items():  # nothing to be compared with
        write_predicting_run(place, [], method="ldam-drw", folder=name, **options)
    assert run_report(place) == 0
    # By hand: 4 images are wrong in the first alone, 15 in the second alone; 2 sum_{k <= 4} C(19, k) / 2^19 = 0.0192.
    # The variance of the mean is that of ten classes of ten images, 90 degrees of freedom: 1.9867 * 4.333 = 8.61.
    assert same_images(place) == ["LDAM-DRW | MM-DRW | 0 | -11.00 [-19.61, -2.39] | 0.02 |"]


def test_differences_on_the_same_images_are_those_of_all_seeds(place):
    for seed, (one, other) in enumerate([(range(10), range(5, 27)), (range(2, 14), range(5, 31))]):
        write_predicting_run(place, one, method="ldam-drw", seed=seed)
        write_predicting_run(place, other, seed=seed)
    assert run_report(place) == 0
    # Errors of 10 and 12 % against 22 and 26 %: -12 and -14 points.
    assert same_images(place) == ["LDAM-DRW | MM-DRW | 0, 1 | -13.00 [-28.06, +2.06] | 0.06 |"]


def test_predictions_of_another_network_or_of_other_images_are_refused(place, capsys):
    folder = write_predicting_run(place, range(5), method="ldam-drw")
    other = write_predicting_run(place, range(5))
    right = np.arange(100) % 10
    predictions.save(other, predictions.Predictions(right, right))
    refused(place, capsys, str(other), "error of 0.00 %, not 5.00 %")
    for labels in (right[::-1], right[:20]):
        predicted = labels.copy()
        predicted[: len(labels) // 20] += 1
        predictions.save(other, predictions.Predictions(labels, predicted % 10))
        refused(place, capsys, str(other), "other images than", str(folder))


def test_the_figure_is_of_means_over_seeds_and_checked_by_what_it_shows(place, monkeypatch, capsys):
    for seed, error in enumerate((0.2, 0.3)):
        write_run(place / "results", method="ldam-drw", seed=seed, error=error, precision="bfloat16")
    write_run(place / "results", method="balanced-softmax", error=0.25)
    write_run(place / "results", margin_space="cosine", error=0.24)
    write_run(place / "results", folder="other", beta=1.2)
    write_run(place / "results", folder="step", imbalance="step")
    write_run(place / "results", folder="strong", recipe="strong")
    drawn = report.figure(report.read_runs(place / "results")[0])
    assert {label: one["per_class_error"] for label, one in drawn.items()} == {
        "LDAM-DRW (n=2)": [0.25] * 9 + [1.0],
        "MM-DRW, margin space cosine (n=1)": [0.24] * 9 + [1.0],
        "Balanced Softmax (n=1)": [0.25] * 9 + [1.0],
    }
    monkeypatch.chdir(place)
    assert report.main([]) == 0
    assert report.main(["--check"]) == 0
    picture = place / "results" / report.FIGURE.with_suffix(".png")
    before = picture.read_bytes()
    picture.write_bytes(b"")
    assert report.main(["--check"]) == 1
    assert "per_class_error.png is not up to date" in capsys.readouterr().err
    assert report.main([]) == 0
    assert picture.read_bytes() == before
    write_run(place / "results", method="erm", error=0.3)
    assert report.main(["--check"]) == 1
    assert "per_class_error.png is not up to date" in capsys.readouterr().err


def test_the_constants_of_a_margin_space_are_no_options(place):
    """Those that were searched for it are its preset; others are named."""
    write_run(place / "results", method="mm", margin_space="cosine")
    write_run(place / "results", method="mm", margin_space="cosine", delta_neg=0.6, folder="other")
    assert run_report(place) == 0
    found = {line.split(" | ")[1] for line in page(place).splitlines() if "(n=1)" in line}
    assert found == {"MM, margin space cosine", "MM, margin space cosine, delta neg 0.6"}


def test_a_run_of_the_published_code_has_its_line(place):
    open_function(MM_DRW)
    write_run(place / "results", dataset="cifar100", method=MM_DRW, folder="published")
    assert run_report(place) == 0
    assert "| CIFAR-100, long-tailed 100:1 | MM-DRW as the published code computes it | 22.00 (n=1) |" in page(place)
