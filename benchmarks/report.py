"""Write README.md from results.json, or ACCELERATOR.md from accelerator.json."""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import precision

HERE = Path(__file__).parent
UNITS = {"speed": "x", "time": "x", "arrays": "", "images": "/s"}

TEXT = """# Benchmarks

    python benchmarks/run.py        # measures, writes results.json; --torch-python for a PyTorch elsewhere
    python benchmarks/precision.py  # trains in float32 and in bfloat16; --data-dir for CIFAR
    python benchmarks/memory.py     # trains on images that take ten times the memory which it may use
    python benchmarks/report.py     # writes this file from these

    python benchmarks/accelerator.py --minutes 25    # training on one GPU; --quick to rehearse on a CPU
    python benchmarks/report.py --results benchmarks/accelerator.json --out benchmarks/ACCELERATOR.md

All contestants have the same threads and take turns in processes of their own, A B C A B C, so that a ratio compares
neighbours in time. A step is forward, backward and SGD with momentum and weight decay, of ResNet-32 on 32x32 images
with a cosine head and the LDAM loss; the PyTorch network is [our own](torch_step.py), trained in a plain loop, and its
bfloat16 is autocast. The loss is measured as value and gradient at the logits, the head by features and kernel, on
TensorFlow where nothing else is said. "Augmentation" makes batches of 32 x 32 by AutoAugment's policy and Cutout; what
it costs the step is in "Options of the step". Processor time counts all threads and suffers less than the clock when
other programs run, but waiting threads that spin count too. "Reading" goes from 20,000 JPEGs in class folders, of about
200 x 150 pixels, to the augmented batches of an epoch at 64 x 64: ours decodes them once and averages where Keras
samples, in as many processes as cores, which must be free to be of use. Of that first epoch's processor time two thirds
are decoding (simplejpeg, 0.12 ms an image) and resizing (Pillow, 0.08 ms), an eighth the epoch itself; all the rest of
reading, with digests and files, is 0.07 ms. The goal of 1.5 leaves about 0.15 ms for the two: it would take a resizing
that samples, or other pixels than Pillow decodes. Its memory is that of the main process, without mapped files; the
processes that decode, of ours and of PyTorch's, count in the processor time alone. On Linux, PyTorch gives freed memory
back to the system and faults it in again page by page, step after step; "heap kept" is PyTorch with two variables of
glibc that stop it.
"""


PROFILE = """The bfloat16 step, by TensorFlow's profiler (`profile_step.py`): shares of the time of all operations,
which run two at a time. What remains is the convolutions, and single passes over memory: normalisation, ReLU,
additions. The convolutions are oneDNN's kernels for bfloat16, in PyTorch too, but of another version and on other
threads: the part "Convolutions" has what they take alone."""

PRECISION = """Is bfloat16 as accurate? `precision.py` trains the same runs in both: MM-DRW, CIFAR-10 longtail 100,
30 epochs, top-1 error on the test split, mean ± standard deviation over seeds."""


MEMORY = """`memory.py` trains on {images:,} JPEGs of {side} x {side} pixels, {decoded} decoded, in a process that may
not take a tenth of that, {limit}, beyond what a small run before it needed. It took {used} at most (anonymous memory;
RLIMIT_DATA refuses the set as an array), and {seconds:.0f} s for reading and an epoch, on a busy machine. The pixels
are in a file that is mapped: what the system keeps of it in memory is not the process's."""


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["-"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def goals(report: dict[str, Any]) -> str:
    rows = []
    for goal in report["goals"]:
        of = f"{goal['part'].partition(', ')[2]}, {size(report, goal['part'])}".removeprefix(", ")
        of_all = ": " + goal["ours"] if goal["part"] == "losses" else ""
        title = goal["text"] + of_all + (f" ({of})" if "loss" in goal["part"] else "")
        unit = UNITS[goal["measure"]]
        bound = f"{'>=' if goal['at_least'] else '<='} {goal['bound']:,g}{unit}"
        if goal["met"] is None:
            rows.append([title, bound, "rival not installed", "", ""])
            continue
        spread = f"{number(min(goal['values']))} to {number(max(goal['values']))}"
        rows.append([title, bound, f"**{number(goal['median'])}{unit}**", spread, "yes" if goal["met"] else "**no**"])
    return table(["goal", "bound", "measured (median)", "min to max", "met"], rows)


def size(report: dict[str, Any], part: str) -> str:
    options = next(iter(report["parts"][part].values()))["options"]
    return f"batch {options['batch']:,}" + (f", {options['classes']:,} classes" if "classes" in options else "")


def contestants(report: dict[str, Any], part: str) -> str:
    rows = []
    for name, result in report["parts"][part].items():
        if not result["samples"]:
            rows.append([name, f"{result['missing']} not installed", *[""] * 5])
            continue
        seconds = [sample["seconds"] for sample in result["samples"]]
        processor = median(sample["processor"] for sample in result["samples"])
        faults = median(sample["page_faults"] for sample in result["samples"])
        before = result["facts"].get("peak")
        memory = "" if before is None else f"{(result['samples'][-1]['peak'] - before) / 2**20:,.0f}"
        rows.append(
            [
                name,
                f"{1000 * result['median_seconds']:,.2f}",
                f"{1000 * min(seconds):,.2f} to {1000 * max(seconds):,.2f}",
                f"{1000 * processor:,.2f}",
                f"{result['images'] / result['median_seconds']:,.0f}",
                f"{faults:,.0f}",
                memory,
            ]
        )
    head = [
        "contestant",
        "ms (median)",
        "min to max",
        "processor ms",
        "images/s",
        "page faults",
        "peak MiB above input",
    ]
    title = f"## {part[0].upper()}{part[1:]} ({size(report, part)})"
    later = report.get("later", {}).get(part)
    when = "\n".join(
        ["", *facts(later, len(next(iter(report["parts"][part].values()))["samples"])), ""] if later else []
    )
    return f"{title}\n{when}\n{table(head, rows)}"


def shares(report: dict[str, Any]) -> str:
    """Where the time of the bfloat16 step goes."""
    spent = report["profile"]
    rows = [[name, f"{time / sum(spent.values()):.1%}"] for name, time in spent.items()]
    return f"## Where the step's time goes\n\n{PROFILE}\n\n{table(['operations', 'share'], rows)}"


def facts(report: dict[str, Any], rounds: int) -> list[str]:
    """What it was measured on, and when."""
    hardware = report["hardware"]
    extensions = ", ".join(hardware["bfloat16"]) or "no bfloat16 instructions"
    return [
        f"- {hardware['processor']}, {hardware['cores']} cores ({extensions}), {hardware['system']}; "
        f"{report['threads']} threads each",
        f"- load average {report['load'][0]:.1f} at the beginning and {report['load'][1]:.1f} at the end "
        f"(an idle machine: 0 and about {report['threads']})",
        "- " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        f"- {report['date']}, {rounds} rounds"
        + (", QUICK: sizes too small to mean anything" if report["quick"] else ""),
    ]


def memory(found: dict[str, Any]) -> str:
    """What memory.py measured."""
    sizes = {name: mib(found[name]) for name in ("decoded", "limit", "used")}
    return f"## Memory\n\n{MEMORY.format(**{**found, **sizes})}"


def mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def render(report: dict[str, Any], runs: Path = HERE / "precision") -> str:
    """The text of README.md, from what run.py wrote and the run folders of precision.py."""
    samples = max(len(result["samples"]) for part in report["parts"].values() for result in part.values())
    sections = [*(contestants(report, part) for part in report["parts"]), shares(report)]
    if found := precision.read(runs):
        sections.append(f"## Precision\n\n{PRECISION}\n\n{precision.render(found)}")
    if (HERE / "memory.json").exists():
        sections.append(memory(json.loads((HERE / "memory.json").read_text())))
    return "\n".join([TEXT, *facts(report, samples), "", "## Goals\n", goals(report), "", "\n\n".join(sections), ""])


ACCELERATOR = """# One accelerator

    python benchmarks/accelerator.py                                   # measures, writes accelerator.json
    python benchmarks/report.py --results benchmarks/accelerator.json --out benchmarks/ACCELERATOR.md

It needs Keras with JAX, or PyTorch, and no TensorFlow; `--torch-python` names an interpreter of another environment,
`--minutes` a time limit, `--only` contestants. ResNet-32, batch 128, 32x32 images, cosine head, LDAM loss, SGD with
momentum and weight decay. Contestants take turns in processes of their own; the host draws the rows of every epoch of
ours, while PyTorch trains on one batch that lies on the device, without augmentation. Off bfloat16 both multiply in
TF32 on a GPU. The images a second of several runs and processes are summed, and the minutes are a run's share: 200
epochs of CIFAR-10, long-tailed 100:1.
"""


def accelerator(report: dict[str, Any]) -> str:
    """The text of ACCELERATOR.md."""
    hardware, run = report["hardware"], report["run"]
    images = run["epochs"] * run["images"]
    rows = []
    for name, result in report["contestants"].items():
        if not result["samples"]:
            missing = f"{result['missing']} not installed" if "missing" in result else "not reached"
            rows.append([name, result.get("failed", missing), *[""] * 5])
            continue
        speeds = [sample["images_per_second"] for sample in result["samples"]]
        busy = [percent for sample in result["samples"] for percent in sample["busy"]]
        memory = result["samples"][-1]["device_memory"]
        # The warm-up is a step and what compiling it takes.
        compiling = result["warm_up"] - min(sample["seconds"] for sample in result["samples"])
        rows.append(
            [
                name,
                number(result["images_per_second"]),
                f"{number(min(speeds))} to {number(max(speeds))}",
                number(images / result["images_per_second"] / 60),
                f"{sum(busy) / len(busy):.0f}%" if busy else "",
                f"{memory / 2**20:,.0f}" if memory else "",
                f"{max(compiling, 0):.0f}",
            ]
        )
    head = ["contestant", "images/s (median)", "min to max", "minutes a run", "GPU busy", "peak MiB", "compile s"]
    devices = {result["facts"]["device"] for result in report["contestants"].values() if "facts" in result}
    facts = [
        f"- {'; '.join(hardware['gpu']) or 'no GPU'}; JAX and PyTorch say: {', '.join(sorted(devices))}",
        f"- {hardware['processor']}, {hardware['cores']} cores, {hardware['system']}",
        "- " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        f"- {report['date']}, {report['rounds']} rounds",
    ]
    if report["quick"]:
        facts.append("- **A REHEARSAL: sizes too small to mean anything**")
    return "\n".join([ACCELERATOR, *facts, "", table(head, rows), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results.json", help="what a measurement wrote")
    parser.add_argument("--out", type=Path, default=HERE / "README.md", help="the file to write")
    args = parser.parse_args()
    report = json.loads(args.results.read_text())
    args.out.write_text(accelerator(report) if report.get("kind") == "accelerator" else render(report))


if __name__ == "__main__":
    main()
