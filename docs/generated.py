"""Pages of the site that are made from the methods, from `results/` and from the benchmarks."""

import csv
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from scipy import stats

from tf_mmloss.methods import METHODS, Method, is_function, signature
from tf_mmloss.methods.options import docstring
from tf_mmloss.train.presets import RECIPES

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "results.csv"
COMPARISONS = ROOT / "results" / "comparisons"  # each the comparison.md of a `tf-mmloss compare`
BENCHMARKS = ROOT / "benchmarks" / "results.json"


def methods() -> str:
    """The page of the methods."""
    gains, named = _gains(), {name: method for name, method in METHODS.items() if not is_function(name)}
    parts = [
        "# Methods\n\nWhat `--method` names, made from the code. All train under the "
        "recipe of the data set. The gain is the test error of erm minus that of the method, in points, at the "
        "last epoch, where both were run with the method's own options ([Results](results.md)); what was not run "
        "has none. The cost is beside a run of erm: the slowest loss takes "
        f"{_goal(json.loads(BENCHMARKS.read_text(encoding='utf-8')), *_COSTS[0])['median']:.1%} of a step of "
        "ResNet-32 ([Benchmarks](benchmarks.md)).\n",
        _table(
            ["Method", "Loss", "Loss needs", "Stages", "Cost", "Gain"],
            [
                [
                    f"[`{name}`](#{name})",
                    f"`{method.loss}`",
                    ", ".join(_needs(method)) or "–",
                    _stages(method),
                    _cost(method),
                    "; ".join(gains.get(name, [])),
                ]
                for name, method in named.items()
            ],
        ),
    ]
    parts += [_section(name, method, gains.get(name, [])) for name, method in named.items()]
    return "\n".join(parts)


def measured() -> str:
    """A table for each setting that was run, the lowest error first."""
    parts = []
    for setting, by_method in _errors().items():
        rows = []
        for name, runs in sorted(by_method.items(), key=lambda item: statistics.mean(r["error"] for r in item[1])):
            row = [f"[`{name}`](methods.md#{name})", _mean([r["error"] for r in runs])]
            rows.append([*row, _mean([r["rare"] for r in runs]), str(len(runs))])
        parts.append(f"**{setting}**\n\n{_table(['Method', 'Error in %', 'Accuracy of the rare in %', 'Runs'], rows)}")
    return "\n".join(parts)


def own() -> str:
    """A table of the images of one's own that were trained on."""
    found: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    with RESULTS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["imbalance"] == "none" and row["dataset"] not in RECIPES and "holdout" not in row["options"]:
                found[row["dataset"], row["method"], row["options"], row["epochs"]].append(row)
    rows = [
        [
            f"`{dataset}`",
            f"`{method}`",
            f"{options}; {epochs} epochs",
            _mean([float(row["last_epoch_error"]) for row in runs]),
            _mean([float(row["balanced_accuracy"]) for row in runs]),
            str(len(runs)),
        ]
        for (dataset, method, options, epochs), runs in found.items()
    ]
    return _table(["Images", "Method", "Options", "Error in %", "Balanced accuracy in %", "Runs"], rows)


def chosen() -> str:
    """A row for each set that several methods were run on: what was best there, and by how much."""
    settings: dict[tuple[str, ...], dict[str, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    with RESULTS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            options = re.sub(r"(precision|margin space) \w+(, )?", "", row["options"]).strip(" ,")
            if "holdout" not in options:
                of = ("dataset", "imbalance", "ratio", "depth", "epochs")
                spaces = re.search(r"margin space \w+", row["options"])
                name = row["method"] + (f", {spaces[0]}" if spaces else "")
                settings[*(row[key] for key in of), options][name].append(row)
    rows = []
    for (dataset, imbalance, ratio, depth, epochs, options), by_method in settings.items():
        if len(by_method) < 2:
            continue
        first = next(iter(by_method.values()))[0]
        counts = json.loads((RESULTS.parent / first["run"] / "metrics.json").read_text(encoding="utf-8"))["cls_counts"]
        kind = {"longtail": "long-tailed", "step": "step", "none": "as it is"}[imbalance]
        recipe = "the strong recipe" if "strong" in options else "the default recipe"
        rows.append(
            [
                f"`{dataset}`, {kind}" + ("" if imbalance == "none" else f" {float(ratio):g}:1"),
                f"{len(counts):,}; {max(counts):,} to {min(counts):,}",
                f"ResNet-{depth}, {epochs} epochs, {recipe}",
                _best(by_method, "last_epoch_error", min),
                _best(by_method, "balanced_accuracy", max),
            ]
        )
    heads = [
        "Data",
        "Classes; training images of one",
        "Trained",
        "Lowest error in %",
        "Highest balanced accuracy in %",
    ]
    return _table(heads, rows)


def _best(by_method: dict[str, list[dict[str, str]]], column: str, best: Callable) -> str:
    """The best of a column by the mean, what it gains over erm, and whether seeds tell the two apart.

    p is multiplied by the number of the other methods (Bonferroni), as the best was picked among them.
    """
    values = {name: [float(row[column]) for row in runs] for name, runs in by_method.items()}
    name = best(values, key=lambda one: statistics.mean(values[one]))
    said = f"`{name}` {_mean(values[name])} (n={len(values[name])})"
    if name == "erm" or "erm" not in values:
        others = [other for other in values if other != name]
        next_one = best(others, key=lambda one: statistics.mean(values[one]))
    else:
        next_one = "erm"
    gain = abs(statistics.mean(values[name]) - statistics.mean(values[next_one]))
    if min(len(values[name]), len(values[next_one])) < 2:
        sure = "one seed: not known how sure"
    else:
        p = stats.ttest_ind(values[name], values[next_one], equal_var=False).pvalue
        p = min(1.0, p * (len(values) - 1))
        sure = f"Welch's p {'< 0.01' if p < 0.01 else f'= {p:.2f}'}"
    return f"{said}, {gain:.2f} points from `{next_one}`; {sure}"


def compared() -> str:
    """What `tf-mmloss compare` said of each set that it was run on."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(COMPARISONS.glob("*.md"))]
    return "\n".join(re.sub("^# (.+): which method\\?$", r"### \1", text, flags=re.M) for text in texts)


def costs() -> str:
    """What the options cost, of a training step on the processor that the benchmarks name."""
    report = json.loads(BENCHMARKS.read_text(encoding="utf-8"))
    loss, sam, policy = (_goal(report, part, words) for part, words in _COSTS)
    rows = [
        [f"any loss (the slowest is `{loss['ours'].partition(',')[0]}`)", f"{loss['median']:.1%} of the step"],
        ["`--augment autoaugment,cutout`", f"the step at {policy['median']:.0%} of its speed without"],
        ["`--sam 0.05`", f"{sam['median']:.1f} times the step"],
    ]
    return _table(["Option", "What it costs, ResNet-32, batches of 128"], rows)


_COSTS = (("losses", "slowest"), ("options of the step", "SAM"), ("options of the step", "AutoAugment"))


def _goal(report: dict, part: str, words: str) -> dict:
    return next(goal for goal in report["goals"] if goal["part"] == part and words in goal["text"])


def _section(name: str, method: Method, gains: list[str]) -> str:
    said = docstring(method.loss)
    paper = re.search(r"^Reference:\n((?:    .*\n?)+)", said, re.M)
    options = {name: option for loss in method.losses for name, option in signature(loss).options.items()}
    defaults = method.defaults()
    lines = [
        f"## {name}\n",
        f"{said.splitlines()[0]}\n",
        f"```text\n{equation(said)}\n```\n",
        f"- Constants: {method.source}",
    ]
    if paper:
        lines.append(f"- Paper: {' '.join(paper[1].split())}")
    lines += [
        f"- Loss needs class counts: {_needs_counts(method)}",
        f"- Head: {_head(method)}",
        f"- Stages: {_stages(method)}",
        f"- Cost: {_cost(method)}",
    ]
    if options:
        values = {option.name: defaults.get(option.name, option.default) for option in options.values()}
        lines.append(
            "- Options: " + ", ".join(f"`--{key.replace('_', '-')}` ({value})" for key, value in values.items())
        )
    if gains:
        lines.append(f"- Gain over erm, in points: {'; '.join(gains)}")
    return "\n".join(lines) + "\n"


def equation(said: str) -> str:
    """The indented lines of a docstring before its arguments."""
    before = said.partition("\nArgs:")[0]
    lines = [line[4:] for line in before.splitlines() if line.startswith("    ")]
    return "\n".join(lines)


def _needs(method: Method) -> list[str]:
    counts = ["class counts"] if _needs_counts(method) == "yes" else []
    return counts + (["a cosine head"] if method.head == "cosine" else [])


def _needs_counts(method: Method) -> str:
    return "yes" if re.search(r"^    cls_counts: ", docstring(method.loss), re.M) else "no"


def _head(method: Method) -> str:
    return f"{method.head}, or cosine by `--classifier cosine`" if method.cosine is not None else method.head


def _stages(method: Method) -> str:
    said = ["after rotation prediction"] if method.pretraining != "none" else []
    for stage in method.own_stages:
        balanced = stage.scheme and f"{'re-weights' if stage.weights else 're-samples'} ({stage.scheme})"
        influence = stage.starts and method.loss == "InfluenceBalancedLoss" and "weighs by influence"
        done = " and ".join(filter(None, [stage.part and f"trains the {stage.trains} alone", balanced, influence]))
        if done:
            said.append(f"{done} {_when(stage.starts)}")
    return ", ".join(said) or "one"


def _cost(method: Method) -> str:
    """Beside a run of erm."""
    if method.pretraining != "none":
        return "as erm, and the pre-training"
    if any(stage.part for stage in method.own_stages):
        return "less than erm: a part is frozen"
    return "as erm"


def _when(starts: float | str) -> str:
    if isinstance(starts, str):
        return "from the first drop of the rate"
    return f"from {starts:.0%} of the epochs" if starts else "throughout"


def _errors() -> dict[str, dict[str, list[dict[str, float]]]]:
    """Runs by setting and method, of the methods' own options: a precision is none of them."""
    found: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    with RESULTS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["dataset"] not in RECIPES or re.sub(r"precision \w+", "", row["options"]).strip(" ,;"):
                continue
            kind = {"longtail": "long-tailed", "step": "step"}.get(row["imbalance"], row["imbalance"])
            setting = (
                f"{row['dataset']}, {kind} {float(row['ratio']):g}:1, ResNet-{row['depth']}, {row['epochs']} epochs"
            )
            rare = float(row["few_accuracy"] or row["medium_accuracy"])
            found[setting][row["method"]].append({"error": float(row["last_epoch_error"]), "rare": rare})
    return {setting: dict(by_method) for setting, by_method in found.items()}


def _gains() -> dict[str, list[str]]:
    gains: dict[str, list[str]] = defaultdict(list)
    for setting, by_method in _errors().items():
        for name, runs in by_method.items():
            if name != "erm" and "erm" in by_method:
                plain = statistics.mean(run["error"] for run in by_method["erm"])
                gain = plain - statistics.mean(run["error"] for run in runs)
                short = setting.partition(", ResNet")[0]
                gains[name].append(f"{gain:+.2f} ({short}; n={len(runs)}, erm n={len(by_method['erm'])})")
    return gains


def _mean(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["-"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"
