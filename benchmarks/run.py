"""Measure the training step, the loss and the input pipeline beside other implementations.

Peers take turns (A B C A B C), so that a ratio compares neighbours in time; all get the same threads.
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from peer import Peer

import tf_mmloss

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Contestant:
    """What a `Peer` runs: `module.prepare(**options)`, so many `steps` a turn, of `images` images each.

    `backend` is that of Keras, and chooses the interpreter; `variables` are added to the environment. `function` is one
    of several that a module prepares: those contestants share a process.
    """

    module: str
    options: dict[str, Any]
    steps: int
    images: int
    backend: str = "tensorflow"
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    function: str = ""


@dataclasses.dataclass(frozen=True)
class Goal:
    """A number that each round gives, and the bound on its median.

    Attributes:
        part: where it is measured.
        measure: "speed" (ours / theirs), "time" (ours / theirs), "arrays" (peak memory, ours - theirs, in
            arrays of (batch, classes)) or "images" (ours a second).
        ours, theirs: contestants; of several of ours the slowest one counts, of several rivals the fastest.
        bound: a lower one for "speed" and "images", else an upper one.
    """

    part: str
    text: str
    measure: str
    ours: str | tuple[str, ...]
    theirs: tuple[str, ...]
    bound: float

    @property
    def at_least(self) -> bool:
        return self.measure in ("speed", "images")


PACKAGE_32, PACKAGE_16 = "tf_mmloss float32", "tf_mmloss bfloat16"
TORCH_32, TORCH_32_LAST = "PyTorch float32, channels first", "PyTorch float32, channels_last"
TORCH_16, TORCH_16_COMPILED = "PyTorch bfloat16, channels_last", "PyTorch bfloat16, channels_last, compiled"
TORCH_16_KEPT = f"{TORCH_16_COMPILED}, heap kept"
# Every loss of the package, by its name there.
LOSSES = tuple(name for name, module in tf_mmloss._MODULE_OF.items() if module == "losses" and name != "LongTailLoss")
LOSS_CLASSES = (10, 100)
MM, CROSS_ENTROPY = "MaxMarginLoss", "Keras SparseCategoricalCrossentropy"
COSINE, DENSE = "CosineDense", "Keras Dense"
BACKENDS = {"": "tensorflow", ", JAX": "jax", ", PyTorch": "torch"}
FED, AUGMENTED, SHARP = "float32, fed by the pipeline", "float32, fed with AutoAugment and Cutout", "float32, SAM"
POLICY, PILLOW = "tf_mmloss AutoAugment and Cutout", "Pillow, AutoAugment and Cutout of single images"
KERAS_POLICY = "Keras RandAugment, on batches"
PACKAGE_DATA, MAP_DATA = "tf_mmloss pipeline", "tf.data map of single images"
FIRST_READING, LATER_READING = "tf_mmloss, first epoch", "tf_mmloss, later epochs"
KERAS_READING, TORCH_READING = "Keras image_dataset_from_directory", "PyTorch DataLoader with Pillow"
# glibc then keeps what is freed; else PyTorch has it cleared and mapped by the system again, step after step.
KEEP_THE_HEAP = {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_THRESHOLD_": str(2**30)}


def named(loss: str, classes: int) -> str:
    """The contestant of a loss on so many classes."""
    return f"{loss}, {classes} classes"


def parts(quick: bool, threads: int) -> dict[str, dict[str, Contestant]]:
    """Every part's contestants. `quick` is tiny and only proves that everything runs."""
    batch, depth, turns = (8, 8, 1) if quick else (128, 32, 4)
    common = {"batch": batch, "threads": threads}

    def package(precision: str, **more: Any) -> Contestant:
        options = {"precision": precision, "depth": depth, **common, **more}
        return Contestant("keras_step", options, turns, batch)

    def torch(channels_last: bool = True, bfloat16: bool = False, compiled: bool = False) -> Contestant:
        options = {"channels_last": channels_last, "bfloat16": bfloat16, "compiled": compiled, "depth": depth}
        return Contestant("torch_step", {**options, **common}, turns, batch, "torch")

    def convolutions(backend: str) -> Contestant:
        return Contestant("convolutions", {"depth": depth, **common}, turns, batch, backend)

    def loss(of: str, batch: int, classes: int, steps: int, backend: str = "tensorflow") -> Contestant:
        options = {"of": of, "batch": batch, "classes": classes, "threads": threads}
        return Contestant("loss", options, 1 if quick else steps, batch, backend)

    def pipeline(kind: str, steps: int) -> Contestant:
        options = {"kind": kind, "images": 100 if quick else 50_000, **common}
        return Contestant("pipeline", options, 2 if quick else steps, batch)

    def reading(kind: str, backend: str = "tensorflow") -> Contestant:
        images = 60 if quick else 20_000
        return Contestant("reading", {"kind": kind, "images": images, **common}, 1, images, backend)

    classes = 1000 if quick else 100_000
    return {
        "step": {
            PACKAGE_32: package("float32"),
            PACKAGE_16: package("bfloat16"),
            TORCH_32: torch(channels_last=False),
            TORCH_32_LAST: torch(),
            TORCH_16: torch(bfloat16=True),
            TORCH_16_COMPILED: torch(bfloat16=True, compiled=True),
            TORCH_16_KEPT: dataclasses.replace(torch(bfloat16=True, compiled=True), variables=KEEP_THE_HEAP),
            MM: loss("mm", batch, 10, 20),
        },
        "losses": {
            PACKAGE_32: package("float32"),
            **{
                named(loss, classes): Contestant(
                    "losses", {"classes": classes, **common}, 1 if quick else 20, batch, function=loss
                )
                for classes in LOSS_CLASSES
                for loss in LOSSES
            },
        },
        "options of the step": {
            PACKAGE_32: package("float32"),
            SHARP: package("float32", sam=0.05),
            FED: package("float32", augment="none"),
            AUGMENTED: package("float32", augment="autoaugment,cutout"),
        },
        "convolutions": {"TensorFlow": convolutions("tensorflow"), "PyTorch": convolutions("torch")},
        # JAX frees a step's arrays during the next one: a step a turn.
        **{
            f"{size}loss{label}": {
                MM: loss("mm", rows, classes, steps, backend),
                CROSS_ENTROPY: loss("cross_entropy", rows, classes, steps, backend),
            }
            for size, rows in ((("", 8),) if quick else (("", 256), ("large ", 4096)))
            for label, backend in BACKENDS.items()
            for steps in (3 if rows == 256 and backend != "jax" else 1,)
        },
        **{
            f"head{label}": {
                COSINE: loss("cosine", 16, classes, 1, backend),
                DENSE: loss("dense", 16, classes, 1, backend),
            }
            for label, backend in BACKENDS.items()
        },
        "pipeline": {PACKAGE_DATA: pipeline("package", 400), MAP_DATA: pipeline("map", 100)},
        "augmentation": {
            POLICY: pipeline("policy", 40),
            PILLOW: pipeline("pillow", 40),
            KERAS_POLICY: pipeline("keras", 10),
        },
        "reading": {
            FIRST_READING: reading("first"),
            LATER_READING: reading("later"),
            KERAS_READING: reading("keras"),
            TORCH_READING: reading("torch", "torch"),
        },
    }


GOALS = (
    Goal(
        "losses",
        "the slowest of all losses, value and gradient, share of the float32 step",
        "time",
        tuple(named(loss, classes) for classes in LOSS_CLASSES for loss in LOSSES),
        (PACKAGE_32,),
        0.05,
    ),
    Goal("options of the step", "SAM, time over the plain step", "time", SHARP, (PACKAGE_32,), 2.1),
    Goal("options of the step", "AutoAugment and Cutout, speed over the step without", "speed", AUGMENTED, (FED,), 0.9),
    Goal("step", "float32 step, speed over PyTorch eager channels-first", "speed", PACKAGE_32, (TORCH_32,), 1.2),
    Goal(
        "step",
        "bfloat16 step, speed over PyTorch's fastest",
        "speed",
        PACKAGE_16,
        (TORCH_32_LAST, TORCH_16, TORCH_16_COMPILED),
        1.0,
    ),
    Goal("step", "bfloat16 step, speed over PyTorch's with the heap kept", "speed", PACKAGE_16, (TORCH_16_KEPT,), 1.0),
    Goal("step", "MM loss and gradient, share of the float32 step", "time", MM, (PACKAGE_32,), 0.05),
    Goal("step", "MM loss and gradient, share of the bfloat16 step", "time", MM, (PACKAGE_16,), 0.05),
    *(
        goal
        for part in (f"{size}loss{label}" for label in BACKENDS for size in ("", "large "))
        for goal in (
            Goal(part, "MM loss and gradient, time over Keras' cross-entropy", "time", MM, (CROSS_ENTROPY,), 1.5),
            # A temporary is a whole array; what is below half of one is noise.
            Goal(part, "MM loss and gradient, (B, C) arrays beyond Keras'", "arrays", MM, (CROSS_ENTROPY,), 0.5),
        )
    ),
    Goal("pipeline", "augmented images a second", "images", PACKAGE_DATA, (), 60_000),
    Goal(
        "reading", "JPEGs to a first epoch at 64 x 64, speed over Keras'", "speed", FIRST_READING, (KERAS_READING,), 1.5
    ),
    Goal(
        "reading", "JPEGs to a later epoch at 64 x 64, speed over Keras'", "speed", LATER_READING, (KERAS_READING,), 3.0
    ),
)


def measure(contestants: dict[str, Contestant], rounds: int, torch_python: str) -> dict[str, dict[str, Any]]:
    """Let the contestants take turns; return every sample of each."""
    peers: dict[str, Peer] = {}
    results: dict[str, dict[str, Any]] = {}
    process_of = {
        name: json.dumps([c.module, c.options, c.backend, c.variables]) if c.function else name
        for name, c in contestants.items()
    }
    try:
        for name, c in contestants.items():
            python = torch_python if c.backend == "torch" else sys.executable
            if process_of[name] not in peers:
                peers[process_of[name]] = Peer(c.module, c.options, python, c.backend, c.variables)
        ready = {process: peer.ready() for process, peer in peers.items()}
        for name, c in contestants.items():
            results[name] = {**dataclasses.asdict(c), **ready[process_of[name]], "samples": []}
        for _ in range(rounds):
            for name, c in contestants.items():
                if "missing" not in results[name]:
                    results[name]["samples"].append(peers[process_of[name]].time(c.steps, c.function))
    finally:
        for peer in peers.values():
            peer.close()
    for result in results.values():
        if result["samples"]:
            result["median_seconds"] = median(sample["seconds"] for sample in result["samples"])
    return results


def judge(goal: Goal, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The goal's number in every round, the median and whether it is within the bound (None: no rival there)."""
    judged: dict[str, Any] = {**dataclasses.asdict(goal), "at_least": goal.at_least, "values": [], "met": None}
    rivals = [name for name in goal.theirs if results[name]["samples"]]
    if goal.theirs and not rivals:
        return judged
    own = (goal.ours,) if isinstance(goal.ours, str) else goal.ours
    slowest = max(own, key=lambda name: results[name]["median_seconds"])
    ours = results[slowest]
    rival = min(rivals, key=lambda name: results[name]["median_seconds"], default=slowest)
    theirs = results[rival]
    judged |= {"ours": slowest, "theirs": rival}
    for a, b in zip(ours["samples"], theirs["samples"], strict=True):
        if goal.measure == "speed":
            value = b["seconds"] / a["seconds"]
        elif goal.measure == "time":
            value = a["seconds"] / b["seconds"]
        elif goal.measure == "images":
            value = ours["images"] / a["seconds"]
        else:
            array = 4 * ours["images"] * ours["options"]["classes"]
            value = ((a["peak"] - ours["facts"]["peak"]) - (b["peak"] - theirs["facts"]["peak"])) / array
        judged["values"].append(value)
    judged["median"] = median(judged["values"])
    judged["met"] = judged["median"] >= goal.bound if goal.at_least else judged["median"] <= goal.bound
    return judged


def joined(before: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A report with the parts of another in place of its own; what they were measured on stands under "later"."""
    made = {name: new[name] for name in ("date", "quick", "threads", "hardware", "load", "versions")}
    return {
        **before,
        "parts": {**before["parts"], **new["parts"]},
        "goals": [goal for goal in before["goals"] if goal["part"] not in new["parts"]] + new["goals"],
        "skipped": {name: why for name, why in before["skipped"].items() if name not in new["parts"]} | new["skipped"],
        "later": {**before.get("later", {}), **dict.fromkeys(new["parts"], made)},
    }


def profile(quick: bool, threads: int) -> dict[str, float]:
    """What `profile_step.py` sees of the bfloat16 step, in a process of its own."""
    options = {"precision": "bfloat16", "depth": 8, "batch": 8, "steps": 1} if quick else {}
    words = [f"--{name}={value}" for name, value in {**options, "threads": threads}.items()]
    done = subprocess.run([sys.executable, str(HERE / "profile_step.py"), *words], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def available_memory() -> float:
    """Bytes that can be had without swapping; unlimited where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def hardware() -> dict[str, Any]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "bfloat16": sorted({"avx512_bf16", "amx_bf16"} & set(flags)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only proves that everything runs")
    parser.add_argument("--out", type=Path, default=HERE / "results.json", help="where to write the results")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each contestant")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has PyTorch")
    parser.add_argument("--only", nargs="+", metavar="PART", help="measure these parts, and keep the others of --out")
    args = parser.parse_args()
    every = parts(args.quick, args.threads)
    if unknown := [name for name in args.only or () if name not in every]:
        parser.error(f"--only must name parts of {', '.join(every)}. Received: {', '.join(unknown)}")
    chosen = {name: every[name] for name in args.only or every}

    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": args.quick,
        "threads": args.threads,
        "hardware": hardware(),
        "load": [os.getloadavg()[0]],
        "versions": {"python": platform.python_version()},
        "parts": {},
        "goals": [],
        "skipped": {},
    }
    for part, contestants in chosen.items():
        # Twelve arrays of 4096 x 100,000 numbers: the logits of both, and the temporaries of one.
        if part.startswith("large") and available_memory() < 12 * 4 * 4096 * 100_000:
            report["skipped"][part] = "too little memory"
            continue
        print(f"{part}: ...", flush=True)
        results = measure(contestants, 2 if args.quick else args.rounds, args.torch_python)
        report["parts"][part] = results
        for name, result in results.items():
            report["versions"] |= result.get("facts", {}).get("versions", {})
            median_seconds = result.get("median_seconds")
            print(f"  {name}: {f'{1000 * median_seconds:.2f} ms' if median_seconds else 'not installed'}", flush=True)
        report["goals"] += [judge(goal, results) for goal in GOALS if goal.part == part]
    if not args.only:
        report["profile"] = profile(args.quick, args.threads)
    report["load"].append(os.getloadavg()[0])
    measured = report["goals"]
    if args.only:
        report = joined(json.loads(args.out.read_text()), report)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    for goal in measured:
        print(f"{goal['text']}: {goal.get('median', float('nan')):.3g} (goal {goal['bound']:g}, met: {goal['met']})")


if __name__ == "__main__":
    main()
