"""The site's generated pages have every method, its equation, and no number that is not in the results."""

import csv
import importlib.util
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path

import pytest
from scipy import stats

from tf_mmloss.methods import METHODS, is_function
from tf_mmloss.methods.options import docstring

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def generated():
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs" / "generated.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_method_has_its_section_and_an_equation(generated):
    page = generated.methods()
    named = {name: method for name, method in METHODS.items() if not is_function(name)}  # other tests open functions
    assert re.findall("^## (.+)$", page, re.M) == list(named)
    for name, method in named.items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        found = generated.equation(docstring(method.loss))
        assert "l = " in found
        assert found in section
        assert method.source in section
        assert ("\n- Cost: as erm, and the pre-training\n" in section) == (name == "ldam-drw-ssp")
        assert ("\n- Cost: less than erm" in section) == (name in ("crt", "lws", "gcl-crt", "mislas"))


def test_gains_are_those_of_the_results(generated):
    with (ROOT / "results" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    sections = generated.methods()
    for dataset, options, ratio in (("cifar10", "precision bfloat16", 100), ("digits", "", 20)):
        own = [r for r in rows if (r["dataset"], r["options"]) == (dataset, options)]
        errors = {m: [float(r["last_epoch_error"]) for r in own if r["method"] == m] for m in ("erm", "ldam-drw")}
        gain = statistics.mean(errors["erm"]) - statistics.mean(errors["ldam-drw"])
        counts = f"n={len(errors['ldam-drw'])}, erm n={len(errors['erm'])}"
        assert f"{gain:+.2f} ({dataset}, long-tailed {ratio}:1; {counts})" in sections
    assert "Gain over erm" not in sections.partition("\n## lade\n")[2].partition("\n## ")[0]


def test_measured_tables_leave_other_options_out(generated):
    tables = generated.measured()
    with (ROOT / "results" / "results.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if (r["dataset"], r["method"]) == ("cifar10", "mm-drw")]
    own = [r for r in rows if r["options"] == "precision bfloat16"]
    assert 0 < len(own) < len(rows)
    row = next(line for line in tables.splitlines() if "`mm-drw`" in line)
    assert row.endswith(f"| {len(own)} |")


def test_what_was_best_is_said_with_how_sure_it_is(generated):
    with (ROOT / "results" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = generated.chosen()
    emoji = {
        (method, column): [float(r[column]) for r in rows if (r["dataset"], r["method"]) == ("data/emoji", method)]
        for method in ("erm", "balanced-softmax")
        for column in ("last_epoch_error", "balanced_accuracy")
    }
    (line,) = (line for line in table.splitlines() if "`data/emoji`" in line)
    plain, other = (emoji[name, "last_epoch_error"] for name in ("erm", "balanced-softmax"))
    gain = abs(statistics.mean(plain) - statistics.mean(other))
    p = stats.ttest_ind(plain, other, equal_var=False).pvalue
    n = len(plain)
    assert statistics.mean(plain) < statistics.mean(other)
    assert f"`erm` {statistics.mean(plain):.2f} ± {statistics.stdev(plain):.2f} (n={n}), {gain:.2f} points from" in line
    assert f"`balanced-softmax`; Welch's p = {p:.2f} |" in line
    counts = json.loads((ROOT / "results" / "emoji-erm-seed0" / "metrics.json").read_text())["cls_counts"]
    assert f"| {len(counts)}; {max(counts):,} to {min(counts):,} |" in line
    (line,) = (line for line in table.splitlines() if "`cifar10`" in line and "the default recipe" in line)
    best = min(
        statistics.mean(float(r["last_epoch_error"]) for r in rows if (r["dataset"], r["method"], r["options"]) == key)
        for key in {(r["dataset"], r["method"], r["options"]) for r in rows}
        if key[0] == "cifar10" and "strong" not in key[2]
    )
    assert f"{best:.2f}" in line.split("|")[4]
    assert "one seed: not known how sure" in line
    # The best of several was picked: p counts the others.
    (line,) = (line for line in table.splitlines() if "`digits`" in line)
    digits = defaultdict(list)
    for r in rows:
        if r["dataset"] == "digits":
            digits[r["method"], r["options"]].append(float(r["last_epoch_error"]))
    first = min(digits.values(), key=statistics.mean)
    p = stats.ttest_ind(first, digits["erm", ""], equal_var=False).pvalue * (len(digits) - 1)
    assert f"Welch's p {'< 0.01' if p < 0.01 else f'= {p:.2f}'} |" in line


def test_images_of_ones_own_are_those_of_the_results(generated):
    with (ROOT / "results" / "results.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["imbalance"] == "none" and "/" in r["dataset"]]
    assert {"data/emoji", "data/infrared-solar"} <= {row["dataset"] for row in rows}
    table = generated.own()
    assert all(f"`{row['dataset']}`" in table for row in rows)
    assert all(f"`{row['dataset']}`" not in generated.measured() for row in rows)


def test_images_of_ones_own_have_no_balanced_test_split(generated, tmp_path, monkeypatch):
    with generated.RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["options"] = ""
    path = tmp_path / "results.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setattr(generated, "RESULTS", path)
    assert "cifar10, " in generated.measured()
    assert "data/" not in generated.measured() + generated.methods()


def test_costs_and_comparisons_are_what_was_measured(generated):
    report = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    found = {
        goal["text"]: goal["median"] for goal in report["goals"] if goal["part"] in ("losses", "options of the step")
    }
    costs = generated.costs()
    assert f"{found['SAM, time over the plain step']:.1f} times the step" in costs
    assert f"{found['AutoAugment and Cutout, speed over the step without']:.0%} of its speed" in costs
    compared = generated.compared()
    files = sorted((ROOT / "results" / "comparisons").glob("*.md"))
    assert len(re.findall("^### ", compared, re.M)) == len(files) > 0
    assert not re.findall("^# ", compared, re.M)
    for path in files:
        assert path.read_text().splitlines()[2] in compared
