"""Figures of run folders written by hand: they are drawn, the same bytes each time, and say what they show."""

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tf_mmloss.comparison import MEASURES
from tf_mmloss.datasets.rows import Rows
from tf_mmloss.runs import folder as run_folder
from tf_mmloss.runs import page, plots
from tf_mmloss.runs.predictions import Predictions

DRAWS = True  # see conftest

FIGURES = ("class_distribution", "learning_curves", "per_class_error")
HISTORY = """epoch,accuracy,learning_rate,reweighting,val_accuracy
0,0.5,0.05,0.0,
1,0.6,0.1,0.0,0.4
2,0.7,0.1,0.0,
3,0.8,0.001,1.0,0.6
"""


@pytest.fixture
def drawn(monkeypatch):
    """The axes of every figure, which is not saved: that takes long."""
    axes = []

    def savefig(figure, path, **options):
        Path(path).touch()
        if path.endswith(".svg"):
            axes.extend(figure.axes)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return axes


def write_run(folder, num_classes=10, **options):
    config = {"dataset": "cifar10", "imbalance": "longtail", "ratio": 100.0, "method": "mm-drw", "seed": 0}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**config, "start_epoch": 3, **options}))
    metrics = {
        "cls_counts": [int(5000 * 100 ** (-c / (num_classes - 1))) for c in range(num_classes)],
        "class_names": [f"class ${c}$" for c in range(num_classes)],
        "per_class_error": [c / num_classes for c in range(num_classes)],
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "history.csv").write_text(HISTORY)
    return folder


def texts(axes):
    return [text.get_text() for text in axes.figure.legends[0].get_texts()] if axes.figure.legends else []


def test_a_run_gets_three_figures_with_the_same_bytes_each_time(tmp_path):
    folder = write_run(tmp_path / "run")
    plots.plot_run(folder)
    files = {path.name: path.read_bytes() for path in (folder / "plots").iterdir()}
    assert sorted(files) == sorted(f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg"))
    assert not any(re.search(rb"<dc:date>|\d{4}-\d\d-\d\d", files[f"{name}.svg"]) for name in FIGURES)
    plots.plot_run(folder)
    assert {path.name: path.read_bytes() for path in (folder / "plots").iterdir()} == files


def test_figures_say_what_they_show(tmp_path, drawn):
    plots.plot_run(write_run(tmp_path / "run"))
    distribution, curves, errors = drawn
    assert distribution.get_title() == "CIFAR-10, long-tailed 100:1, 12,406 images"
    assert curves.get_title() == errors.get_title() == "CIFAR-10, long-tailed 100:1: MM-DRW, seed 0"
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in drawn)


def test_titles_name_the_recipe_and_the_margin_space(tmp_path, drawn):
    options = {"recipe": "strong", "margin_space": "cosine"}
    a = write_run(tmp_path / "a", **options)
    plots.plot_run(a)
    said = "CIFAR-10, long-tailed 100:1: MM-DRW, strong recipe, margin space cosine, seed 0"
    assert [axes.get_title() for axes in drawn[1:]] == [said, said]
    b = write_run(tmp_path / "b", method="ldam-drw", recipe="strong", margin_space=None)
    c = write_run(tmp_path / "c", **{**options, "recipe": "paper"})
    drawn.clear()
    plots.compare([a, b], tmp_path)
    assert drawn[0].get_title() == "CIFAR-10, long-tailed 100:1, seed 0, strong recipe"
    assert texts(drawn[0]) == ["MM-DRW, margin space cosine", "LDAM-DRW"]
    plots.compare([a, c], tmp_path)
    assert drawn[1].get_title() == "CIFAR-10, long-tailed 100:1, MM-DRW, seed 0, margin space cosine"
    assert texts(drawn[1]) == ["strong recipe", "MM-DRW"]


@pytest.mark.parametrize("counts", [[9] * 10, None])
def test_names_that_would_touch_are_turned_and_shortened(tmp_path, counts):
    def labels(names):
        figure, axes = plots._figure()
        plots._class_axis(axes, names, counts)
        found = axes.get_xticklabels()
        figure.canvas = FigureCanvasAgg(figure)
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in found]
        touching = any(a.x1 >= b.x0 for a, b in pairwise(boxes))
        return [text.get_text() for text in found], {text.get_rotation() for text in found}, touching

    cifar = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    texts, rotations, touching = labels(cifar)
    assert texts == (cifar if counts is None else [f"{name}\n9" for name in cifar])
    assert rotations == {0}
    assert not touching
    long = ["Hot-Spot-Multi", "Offline-Module", *cifar[:7], "a name without any end at all"]
    texts, rotations, _ = labels(long)
    assert texts[0::9] == [f"{name}{', 9' if counts else ''}" for name in (long[0], "a name without any …")]
    assert rotations == {35}


def test_a_search_says_of_what_it_is_and_has_its_legend_outside(tmp_path, drawn):
    rows = [{"trial": "1", "delta_neg": 0.6, "error": 0.3}, {"trial": "0", "delta_neg": 1.2, "error": 0.4}]
    plots.search(rows, tmp_path / "search", title="CIFAR-10, long-tailed 100:1: MM")
    (axes,) = drawn
    assert axes.figure.get_suptitle() == "CIFAR-10, long-tailed 100:1: MM, 2 trials"
    assert axes.get_xlabel() == "delta neg"
    assert axes.get_legend() is None
    assert texts(axes) == ["best"]


def test_distribution_is_logarithmic_from_a_ratio_of_10(tmp_path, drawn):
    for smallest in (11, 10):
        plots.class_distribution([100, smallest], ["a", "b"], tmp_path / "figure")
    assert [axes.get_yscale() for axes in drawn] == ["linear", "log"]
    assert [bar.get_height() for bar in drawn[0].patches] == [100, 11]


def test_a_class_of_one_image_has_a_bar(tmp_path, drawn):
    plots.class_distribution([500, 1], ["a", "b"], tmp_path / "figure")
    (axes,) = drawn
    bottom, top = axes.transData.transform([(0, 1), (0, 500)])[:, 1] - axes.transAxes.transform((0, 0))[1]
    assert 0.02 * top < bottom < 0.2 * top


@pytest.mark.parametrize("name", ["photos", "photos of the birds of Europe in the winter of 2024, " * 3, "x" * 150])
def test_titles_stay_in_the_figure(tmp_path, drawn, name):
    methods = [
        {"name": "erm"} | {measure: {"value": 0.5, "interval": [0.4, 0.6], "by_seed": [0.5]} for measure in MEASURES}
    ]
    found = {"methods": methods, "choice": "erm", "measure": "error", "seeds": 3}
    plots.comparison(found, tmp_path / "figure", title=f"{name}, as it is")
    plots.class_distribution([500, 1], ["a", "b"], tmp_path / "figure", title=name)
    plots.search([{"trial": "1", "beta": 0.6, "error": 0.3}], tmp_path / "figure", title=f"{name}, as it is: MM")
    plots.plot_run(write_run(tmp_path / "run", dataset=name))
    titles = []
    for figure in dict.fromkeys(axes.figure for axes in drawn):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        shown = [axes.title for axes in figure.axes if axes.get_title()] + (
            [figure._suptitle] if figure._suptitle else []
        )
        for text in shown:
            box = text.get_window_extent(canvas.get_renderer())
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1
            titles.append(text.get_text())
    assert len(titles) == 6
    assert all("\n" not in title for title in titles[:1]) == (name == "photos")


def test_learning_curves_take_blanks_and_mark_drops_and_deferral(tmp_path, drawn):
    (tmp_path / "history.csv").write_text(HISTORY)
    rows = run_folder.read_history(tmp_path)
    assert rows[0] == {"epoch": 0, "accuracy": 0.5, "learning_rate": 0.05, "reweighting": 0}
    plots.learning_curves(rows, tmp_path / "figure", start_epoch=3, stage="re-weighted")
    lines = {line.get_label(): line.get_xydata().tolist() for line in drawn[0].lines}
    assert lines["training (augmented)"] == [[1, 50], [2, 40], [3, pytest.approx(30)], [4, pytest.approx(20)]]
    assert lines["evaluation"] == [[2, 60], [4, 40]]
    assert lines["drop of learning rate"] == [[3.5, 0], [3.5, 1]]  # the warm-up is no drop
    (deferred,) = drawn[0].patches
    assert (deferred.get_x(), deferred.get_width()) == (3.5, 1)
    assert "re-weighted" in texts(drawn[0])


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("mm-drw", "re-weighted"),
        ("hg-drs", "re-sampled"),
        ("crt", "the head alone, re-sampled"),
        ("mislas", "head and class factors alone, re-sampled"),
        ("ib", "the last stage"),  # the loss changes, and nothing is re-balanced
        ("another-packages", "the last stage"),
    ],
)
def test_the_last_stage_is_named_by_what_it_does(tmp_path, drawn, method, said):
    folder = write_run(tmp_path / "run", method=method)
    plots.plot_run(folder)
    assert said in texts(drawn[1])
    rows, config = run_folder.read_history(folder), run_folder.read_json(folder, "config.json")
    (shaded,) = page._curves(rows, config)["shaded"]
    assert shaded[-1] == f"{said} from epoch 4 on"


def test_the_end_of_a_cosine_is_no_drop(tmp_path, drawn):
    rates = [0.1 * (1 + np.cos(np.pi * e / 8)) / 2 for e in range(8)]
    rows = [{"epoch": e, "accuracy": 0.5, "learning_rate": rate} for e, rate in enumerate(rates)]
    assert rates[7] < rates[6] / 2
    plots.learning_curves(rows, tmp_path / "figure", None)
    assert texts(drawn[0]) == ["training (augmented)"]


@pytest.mark.parametrize("start_epoch", [None, 4])
def test_learning_curves_of_a_run_that_defers_nothing(tmp_path, drawn, start_epoch):
    rows = [{"epoch": e, "accuracy": 0.5, "learning_rate": 0.1} for e in range(4)]
    plots.learning_curves(rows, tmp_path / "figure", start_epoch)
    assert texts(drawn[0]) == ["training (augmented)"]


def test_runs_side_by_side_share_a_title_and_are_told_apart_by_the_legend(tmp_path, drawn):
    a = write_run(tmp_path / "a", method="erm", start_epoch=None)
    b = write_run(tmp_path / "b")
    assert plots.main([str(a), str(b), "--out", str(tmp_path / "new" / "out")]) == 0
    assert (tmp_path / "new" / "out").is_dir()
    assert drawn[0].get_title() == "CIFAR-10, long-tailed 100:1, seed 0"
    assert texts(drawn[0]) == ["ERM", "MM-DRW"]
    assert len(drawn[0].patches) == 20
    c = write_run(tmp_path / "c", precision="bfloat16")
    plots.compare([b, c], tmp_path)  # b's config is silent on its precision
    assert texts(drawn[1]) == [f"MM-DRW ({b})", f"MM-DRW ({c})"]
    d, e = (write_run(tmp_path / space, margin_space=space, beta=1.5) for space in ("cosine", "logit"))
    plots.compare([a, d, e], tmp_path)
    assert drawn[2].get_title() == "CIFAR-10, long-tailed 100:1, seed 0"
    assert texts(drawn[2]) == ["ERM", "MM-DRW, margin space cosine", "MM-DRW, margin space logit"]


def test_a_hundred_classes_are_thin_bars_and_means_of_ten(tmp_path, drawn):
    plots.plot_run(write_run(tmp_path / "run", num_classes=100, dataset="cifar100"))
    distribution, _, errors = drawn
    assert len(distribution.patches) == 100
    assert len(distribution.get_xticklabels()) < 15
    (means,) = errors.patches
    assert means.get_data().values == pytest.approx([4.5 + 10 * i for i in range(10)])
    assert texts(errors) == ["MM-DRW, mean of 10"]


def test_runs_that_cannot_be_compared_are_refused(tmp_path, capsys):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", num_classes=5)
    assert plots.main([str(a), str(b), "--out", str(tmp_path)]) == 2
    assert "same classes" in capsys.readouterr().err
    metrics = json.loads((a / "metrics.json").read_text())
    (b / "metrics.json").write_text(json.dumps({**metrics, "evaluated_on": "held-out training images"}))
    assert plots.main([str(a), str(b), "--out", str(tmp_path)]) == 2
    assert "evaluated on the same images" in capsys.readouterr().err
    with pytest.raises(ValueError, match="From 1 to 7 runs"):
        plots.per_class_error({}, tmp_path / "figure")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "not JSON"),
        ("config.json", "[]", "not a JSON object but a list"),
        ("config.json", '{"dataset": "cifar10"}', "no imbalance, ratio, method, seed, start_epoch"),
        ("metrics.json", None, "no metrics.json"),
        ("metrics.json", "{}", "no cls_counts"),
        ("history.csv", None, "no history.csv"),
        ("history.csv", "", "no rows"),
        ("history.csv", "epoch,accuracy\n", "no rows"),
        ("history.csv", "loss\n1\n", "without an epoch"),
        ("history.csv", "epoch\nfirst\n", "could not convert"),
        ("history.csv", "epoch\n1,2\n", "no history of epochs"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_named(tmp_path, name, content, said):
    folder = write_run(tmp_path / "run")
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(run_folder.RunFolderError, match=said) as raised:
        plots.plot_run(folder)
    assert str(folder) in str(raised.value)
    assert not (folder / "plots").exists()


def test_plots_need_neither_keras_nor_pyplot():
    heavy = {"keras", "tensorflow", "matplotlib.pyplot"}
    code = f"import sys; from tf_mmloss.runs import plots; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_pictures_of_images_fit_a_page_however_large_they_are(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (96, 96, 96, 3), dtype=np.uint8)  # noise: nothing is larger
    plots.examples(images, np.arange(96) // 8, [f"class {c}" for c in range(12)], tmp_path / "examples.png")
    content = (tmp_path / "examples.png").read_bytes()
    assert 100_000 < len(content) <= run_folder.PICTURE_BYTES
    with Image.open(tmp_path / "examples.png") as picture:
        assert min(picture.size) > 500


def test_mistakes_name_their_files(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        plots, "_save_images", lambda figure, path: titles.extend(text.get_text() for text in figure.axes[0].texts)
    )
    images = np.zeros((4, 8, 8, 3), np.uint8)
    names = ["a/0.png", "a/1.png", "b/a long name of a picture 2.png", "b/3.png"]
    labels, predicted = np.array([1, 0, 0]), np.array([1, 1, 1])
    found = Predictions(labels, predicted, np.array([0.9, 0.6, 0.8]))
    plots.mistakes(Rows(images, [3, 2, 1], names), found, ["cat", "dog"], tmp_path / "mistakes.png")
    assert titles == [
        "cat\ntaken for dog\n80% sure\n1.png",
        f"cat\ntaken for dog\n60% sure\n…{names[2][-23:]}",
    ]
    titles.clear()
    plots.mistakes(images[:3], found, ["cat", "dog"], tmp_path / "mistakes.png")
    assert titles == ["cat\ntaken for dog\n80% sure", "cat\ntaken for dog\n60% sure"]


def test_letters_of_any_script_are_drawn_without_a_warning(tmp_path, recwarn):
    found = Predictions(np.array([0]), np.array([1]), np.array([0.9]))
    plots.mistakes(np.zeros((1, 8, 8, 3), np.uint8), found, ["\u732b", "\U0001f436"], tmp_path / "mistakes.png")
    assert (tmp_path / "mistakes.png").exists()
    assert not recwarn.list
