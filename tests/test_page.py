"""The page of a run and what it is made from, from run folders written by hand, in a browser where there is one."""

import base64
import json
import re
import shlex

import numpy as np
import pytest
from browser import CHECKS
from test_report import write_run

from tf_mmloss.cli import fit, page
from tf_mmloss.comparison import compare
from tf_mmloss.evaluation import evaluate
from tf_mmloss.runs import page as run_page
from tf_mmloss.runs import predictions
from tf_mmloss.runs.folder import RunFolderError, locked, read_config
from tf_mmloss.runs.predictions import Predictions
from tf_mmloss.train.config import Config
from tf_mmloss.train.resolve import resolve

DRAWS = True  # see conftest

HOSTILE = "<script>alert(1)</script>"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def predicted(num_classes=10, images=20):
    """Predictions of which seven in ten are right, at random but always the same."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(num_classes), images)
    found = np.where(rng.random(len(labels)) < 0.7, labels, rng.integers(0, num_classes, len(labels)))
    return Predictions(labels, found, rng.random(len(labels)), rng.random(len(labels)))


def a_run(root, num_classes=10, **options):
    """A finished run folder with everything that its page shows."""
    names = [HOSTILE, *(f"class number {c}" for c in range(1, num_classes))]
    counts = np.maximum(5000 * 0.9 ** np.arange(num_classes), 2).astype(int).tolist()
    metrics = {"evaluated_on": "test split", "class_names": names, "cls_counts": counts}
    metrics["per_class_error"] = [0.25] * (num_classes - 1) + [None]
    folder = write_run(root, metrics=metrics, **options)
    rows = ["epoch,accuracy,val_accuracy,learning_rate", "0,0.25,,0.1", "1,0.5,0.75,0.1", "2,0.6,,0.1"]
    (folder / "history.csv").write_text("\n".join(rows) + "\n")
    (folder / "data.json").write_text(json.dumps({"fingerprint": "1", "report": [f"found {HOSTILE}"]}))
    predictions.save(folder, predicted(num_classes))
    return folder


def a_comparison(root, num_classes=10, methods=("erm", "mm-drw", "ldam-drw"), seeds=3):
    """Finished runs of several methods, the page of their comparison, and what was found."""
    rng = np.random.default_rng(1)
    runs = [a_run(root, num_classes, method=m, seed=s, error=0.2 + 0.01 * s) for s in range(seeds) for m in methods]
    labels = np.repeat(np.arange(num_classes), 20)
    chances = 0.6 + 0.08 * np.arange(len(methods))[:, None, None]
    wrong = rng.random((len(methods), seeds, len(labels))) > chances
    few = np.arange(num_classes) >= num_classes // 2
    found = compare(labels, np.where(wrong, (labels + 1) % num_classes, labels), methods, few=few)
    for row in found["methods"]:
        row["seconds"] = 7200.0
    found |= {"failed": [HOSTILE], "remarks": [HOSTILE], "planned_seeds": seeds + 1, "label": f"{HOSTILE}, as it is"}
    found |= {
        "on": f"{len(labels):,} images of the test split",
        "how": f"Few-shot accuracy is of {HOSTILE}.",
        "command": f"tf-mmloss compare --dataset '{HOSTILE}'",
    }
    found |= {"trained_on": "90 training images", "fit": f"tf-mmloss fit --dataset '{HOSTILE}'"}
    run_page.write_comparison(runs, root / "comparison.html", found)
    return root / "comparison.html", found


def text_of(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html.split("</style>")[1].split("<script>")[0]).split())


@pytest.mark.parametrize("largest", [9, 70_000])
def test_predictions_are_read_as_they_were_saved(tmp_path, largest):
    saved = Predictions(np.array([0, largest]), np.array([largest, 1]), None, np.array([0.0, 1.0]), np.array([1, 0]))
    predictions.save(tmp_path, saved)
    read = predictions.read(tmp_path, largest + 1)
    np.testing.assert_array_equal(read.labels, saved.labels)
    np.testing.assert_array_equal(read.predicted, saved.predicted)
    np.testing.assert_array_equal(read.calibrated, saved.calibrated)
    np.testing.assert_array_equal(read.groups, saved.groups)
    assert read.confidence is None
    assert predictions.read(tmp_path / "none", 10) is None
    with pytest.raises(RunFolderError, match="classes that the run does not have"):
        predictions.read(tmp_path, largest)


def test_a_confidence_larger_than_one_is_refused(tmp_path):
    row = [("labels", "<u4"), ("predicted", "<u4"), ("confidence", "<u4")]
    np.save(tmp_path / predictions.NAME, np.array([(0, 1, 65536)], row))
    with pytest.raises(RunFolderError, match="has a confidence that is larger than 1"):
        predictions.read(tmp_path, 10)


@pytest.mark.parametrize(
    "content",
    [
        np.zeros((3, 2), np.uint16),
        np.zeros(3, [("labels", "<u2"), ("predicted", "<f4")]),
        np.zeros(3, [("labels", "<u2"), ("predicted", "<u2"), ("more", "<u2")]),
        np.zeros((2, 2), [("labels", "<u2"), ("predicted", "<u2")]),
        np.array([{}], object),
        b"no array",
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<u2', 'fortran_order': False, 'shape': (999999999999,), }".ljust(128),
        b"\x93NUMPY\x01\x00\x76\x00{'descr': ('<u2', 'fortran_order': False".ljust(128),
    ],
    ids=[
        "plain",
        "float",
        "another column",
        "two axes",
        "pickle",
        "bytes",
        "a shape without its content",
        "an open bracket",
    ],
)
def test_other_files_are_no_predictions(tmp_path, content):
    path = tmp_path / predictions.NAME
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(RunFolderError, match="holds no predictions"):
        predictions.read(tmp_path, 10)


def test_the_page_says_how_it_went(tmp_path, capsys):
    folder = a_run(tmp_path, method="ldam-drw", error=0.25, seed=3)
    assert page.main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}/index.html\n"
    text = text_of((folder / "index.html").read_text())
    for said in ("LDAM-DRW on CIFAR-10, long-tailed 100:1, seed 3", "25.00 % error", "found &lt;script&gt;", "2.0 h"):
        assert said in text
    found = predicted()
    whole = evaluate(found.labels, np.eye(10)[found.predicted], cls_counts=[5] * 10)
    low, high = whole["interval"]["balanced_accuracy"]
    value = whole["value"]["balanced_accuracy"]
    assert f"balanced accuracy {100 * value:.2f} % {100 * low:.2f} % to {100 * high:.2f} %" in text
    confusion = np.bincount(10 * found.labels + found.predicted, minlength=100).reshape(10, 10)
    assert f"class number 3 {' '.join(str(n) for n in confusion[3] if n)} class number 4" in text
    bins, right = np.minimum((15 * found.confidence).astype(int), 14), found.labels == found.predicted
    gaps = [abs(right[bins == b].mean() - found.confidence[bins == b].mean()) * np.mean(bins == b) for b in set(bins)]
    assert f"as trained: calibration error {100 * sum(gaps):.2f} %" in text


def test_many_classes_take_no_matrix(tmp_path):
    """Of 40,000 classes one would have 1.6 billion cells."""
    folder, count = a_run(tmp_path, 10), 40_000
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics |= {"class_names": [f"class {c}" for c in range(count)], "cls_counts": [5] * count}
    (folder / "metrics.json").write_text(json.dumps(metrics | {"per_class_error": [0.5] * count}))
    labels, found = np.array([0, 0, 39_999, 39_999, 39_999]), np.array([0, 39_999, 39_999, 7, 7])
    predictions.save(folder, Predictions(labels, found))
    said = run_page._predictions(folder, run_page.run_folder.read_json(folder, "metrics.json"))
    assert said["cells"] == [(0, 0, 0.5), (0, 39_999, 0.5), (39_999, 7, 2 / 3), (39_999, 39_999, 1 / 3)]
    assert [(row["true"], row["as"], row["images"]) for row in said["worst"]] == [
        ("class 39999", "class 7", 2),
        ("class 0", "class 39999", 1),
    ]
    assert {text: value for text, value, _ in said["measures"]}["accuracy"] == pytest.approx(0.4)


def test_the_command_makes_the_same_config(tmp_path):
    for options in (
        {"method": "mm-drw", "stop_margin_gradient": False},
        {"method": "ldam-drw", "seed": 3, "learning_rate": 0.05, "precision": "bfloat16"},
        {"dataset": "cifar100", "imbalance": "step", "ratio": 10, "margin_space": "cosine", "flip": False},
        {"dataset": "digits", "ratio": 20, "schedule": "cosine", "depth": 8},
    ):
        folder = a_run(tmp_path / str(len(list(tmp_path.iterdir()))), **options)
        (command,) = re.findall(r"<pre>(.*)</pre>", run_page.write(folder).read_text())
        words = shlex.split(command)
        assert words[:2] == ["tf-mmloss", "fit"]
        assert resolve(Config(**vars(fit.parser().parse_args(words[2:])))) == read_config(folder)


def test_a_run_without_predictions_or_an_end_has_a_page(tmp_path):
    folder = a_run(tmp_path)
    (folder / "predictions.npy").unlink()
    assert "What is taken for what" not in run_page.write(folder).read_text()
    (folder / "metrics.json").unlink()
    text = text_of(run_page.write(folder).read_text())
    assert "Not finished: 3 of 200 epochs are saved. tf-mmloss fit --resume" in text


def test_a_run_that_is_training_has_a_page_that_says_so(tmp_path):
    folder = a_run(tmp_path)
    (folder / "metrics.json").unlink()
    with locked(folder):
        assert page.main([str(folder)]) == 0
        text = text_of((folder / "index.html").read_text())
        assert "In training now: 3 of 200 epochs are saved." in text
        assert "40.00 % error so far, training, augmented 25.00 % error so far, evaluation" in text
        for name in ("history.csv", "environment.json"):  # begun a moment ago
            (folder / name).unlink()
        assert "In training now: 0 of 200 epochs are saved." in text_of(run_page.write(folder).read_text())
    assert "Not finished: 0 of 200" in run_page.write(folder).read_text()


def test_an_unfinished_run_without_its_number_of_epochs_is_of_another_version(tmp_path, capsys):
    folder = a_run(tmp_path)
    (folder / "metrics.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    del config["epochs"]
    (folder / "config.json").write_text(json.dumps(config))
    assert page.main([str(folder)]) == 2
    assert "config.json is of another version: it has no epochs" in capsys.readouterr().err


def test_names_are_text_and_nothing_comes_from_elsewhere(tmp_path):
    folder = a_run(tmp_path)
    other = a_run(tmp_path, method="erm", folder="<img src=x onerror=alert(1)>")
    out = tmp_path / "compare.html"
    assert page.main([str(folder), str(other), "--out", str(out)]) == 0
    for html in (run_page.write(folder).read_text(), out.read_text(), run_page.write(other).read_text()):
        assert HOSTILE not in html
        assert "<img src=x" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
        assert not re.search(r"https?://|src=\"(?!data:)|href=", html)
        assert len(html) < 2_000_000


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_page_of_a_comparison_says_what_to_take(tmp_path, seeds):
    path, found = a_comparison(tmp_path, seeds=seeds)
    html = path.read_text()
    text = text_of(html)
    assert HOSTILE not in html
    best, pair = found["methods"][0], found["pairs"][0]
    chosen = " (the choice)" if found["choice"] == best["name"] == "ldam-drw" else ""
    for said in (
        f"which method? {found['answer'][0]}",
        f"LDAM-DRW{chosen} {100 * best['error']['value']:.2f} % ({100 * best['error']['interval'][0]:.2f} % to",
        f"{seeds} seed{'s' * (seeds > 1)} of {seeds + 1} planned of each method, 200 images of the test split",
        f"{100 * pair['difference']:.1f} {100 * pair['interval'][0]:+.1f} to {100 * pair['interval'][1]:+.1f}",
        f"{3 * seeds} runs, {6 * seeds:.1f} h of training in all",
        "How it was made tf-mmloss compare --dataset",
    ):
        assert said in text
    assert ("corrected for the number of pairs" in text) == (seeds > 1)
    places = [float(x) for x in re.findall(r"(?:left|width): ([-0-9.]+)%", html)]
    assert min(places) == 0
    assert max(places) == 100


def test_the_better_method_is_better_by_more_than_nothing_also_in_error():
    labels = np.repeat(np.arange(4), 50)
    right = np.random.default_rng(0).random((2, 3, 200)) < np.array([0.6, 0.9])[:, None, None]
    answers = np.where(right, labels, (labels + 1) % 4)
    shown = {}
    for measure in ("error", "balanced_accuracy"):
        found = compare(labels, answers, ["erm", "ldam"], few=[False, False, True, True], measure=measure)
        (shown[measure],) = run_page._comparison(found | {"planned_seeds": 3, "on": "", "trained_on": ""})["pairs"]
    pair = shown["error"]
    assert (pair["better"], pair["worse"]) == ("LDAM", "ERM")
    assert 0 < pair["interval"][0] < pair["difference"] < pair["interval"][1]
    assert pair["difference"] == pytest.approx(shown["balanced_accuracy"]["difference"])  # of classes of one size
    assert pair["interval"] == pytest.approx(shown["balanced_accuracy"]["interval"])


def test_runs_of_other_numbers_of_training_images_have_none_of_one_of_them(tmp_path):
    runs, out = [a_run(tmp_path), a_run(tmp_path, ratio=10)], tmp_path / "page.html"
    run_page.write_comparison(runs, out)
    assert "With the training images of each class" in out.read_text()
    metrics = json.loads((runs[1] / "metrics.json").read_text())
    (runs[1] / "metrics.json").write_text(json.dumps(metrics | {"cls_counts": [77] * 10}))
    run_page.write_comparison(runs, out)
    text = text_of(out.read_text())
    assert "Of runs with other numbers of training images" in text
    assert "class number 1 25.00 % 25.00 %" in text


def test_runs_side_by_side_have_a_page_in_a_new_folder(tmp_path, capsys):
    out = tmp_path / "a" / "new" / "page.html"
    assert page.main([str(a_run(tmp_path)), str(a_run(tmp_path, method="erm")), "--out", str(out)]) == 0
    assert "2 runs side by side" in out.read_text()


def test_what_cannot_have_a_page_is_refused(tmp_path, capsys):
    folder = a_run(tmp_path)
    assert page.main([str(tmp_path / "none")]) == 2
    assert page.main([str(folder), "--out", "x.html"]) == 2
    (folder / "index.html").symlink_to(tmp_path / "elsewhere")
    assert page.main([str(folder)]) == 2
    (folder / "metrics.json").unlink()
    assert page.main([str(folder), str(a_run(tmp_path, method="erm")), "--out", str(tmp_path / "c.html")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert ["no run folder" in said[0], "`out`" in said[1], "no link" in said[2], "no finished" in said[3]] == [
        True
    ] * 4
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "c.html").exists()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of a run of 200 classes, one of two runs side by side, and one of a comparison."""
    root = tmp_path_factory.mktemp("pages")
    comparison, _ = a_comparison(root, 200)
    first, second = sorted(path for path in root.iterdir() if path.is_dir())[:2]
    (first / "plots").mkdir()
    (first / "plots" / "mistakes.png").write_bytes(PNG)
    run_page.write_comparison([first, second], root / "two.html")
    small = root / "small"  # a matrix with names, at least
    small.mkdir()
    few = run_page.write(a_run(small, 2))
    return {"run": run_page.write(first), "few": few, "two": root / "two.html", "comparison": comparison}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "few", "two", "comparison"])
def test_in_a_browser_everyone_can_read_it(pages, browser, name, scheme, width):
    browser.open(pages[name], width, scheme)
    assert browser.ask("innerWidth") == width
    assert (browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") == (
        scheme == "light"
    )
    assert browser.ask(CHECKS) == []
    assert browser.ask("document.body.textContent").count(HOSTILE) >= 1
    assert browser.requests == []
    assert browser.complaints == []


def test_the_checks_find_faults(tmp_path, browser):
    """Every kind that `CHECKS` knows, in one page."""
    path = tmp_path / "bad.html"
    path.write_text(
        """<title></title><h1>a</h1><h3>b</h3><style>.wide { overflow-x: auto } :focus-visible { outline: none }</style>
        <p style="color: #888">grey</p><p style="width: 5000px">long</p><img src="http://127.0.0.1:9/x.png"><button
        tabindex=1>x</button><table><tr><th>y</th></tr></table><div class=wide><div style="width: 900px">z</div></div>
        <svg viewBox="0 0 999 9" width="99"><text font-size="9" y="9">s</text></svg>
        <meta name=viewport content="user-scalable=no"><p id=a><b id=a></b><a href="#a"></a><input><li>l</li>
        <ul><p>u</p></ul><script>console.error("!")</script>"""
    )
    browser.open(path, 390)
    found = " ".join(browser.ask(CHECKS))
    for fault in ("no language", "one main", "wide", "overflows", "positive tabindex", "heading out of order",
                  "no alternative text", "no label", "no caption", "th without scope", "by keys", "too small",
                  "contrast 3.5", "focus is not seen", "enlarged", "id twice",
                  "no name: <a", "no name: <input", "not in a list", "no item", "too low"):  # fmt: skip
        assert fault in found, fault
    assert browser.requests == ["http://127.0.0.1:9/x.png"]
    assert any("!" in json.dumps(said) for said in browser.complaints)


def test_in_a_browser_tables_sort_by_mouse_and_by_keys(pages, browser):
    def column(number):
        cells = f"table.sortable tbody tr > :nth-child({number})"
        return browser.ask(f"[...document.querySelectorAll({cells!r})].map((cell) => cell.textContent.trim())")

    browser.open(pages["run"])
    head = "table.sortable thead th:nth-child(2)"
    for up in (True, False):
        browser.click(f"{head} button")
        images = [int(text.replace(",", "")) for text in column(2)]
        assert images == sorted(images, reverse=not up)
        assert len(set(images)) > 50
        said = browser.ask(f"document.querySelector({head!r}).getAttribute('aria-sort')")
        assert said == ("ascending" if up else "descending")
    browser.ask("document.querySelector('table.sortable thead button').focus()")
    browser.press("Enter")
    assert column(1)[:3] == [HOSTILE, "class number 1", "class number 10"]
    browser.press("Tab")
    browser.press("Tab")
    for _ in range(2):  # a class without an error is the last one either way
        browser.press("Enter")
        assert column(3)[-1] == "–"
    assert browser.complaints == []


def test_pages_are_small(pages):
    assert {name: path.stat().st_size < 2_000_000 for name, path in pages.items()} == dict.fromkeys(pages, True)
