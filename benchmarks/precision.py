"""Does bfloat16 cost accuracy? The same short runs in both precisions, over several seeds.

    python benchmarks/precision.py --data-dir DIR

Trains MM-DRW on CIFAR-10 longtail 100 for 30 epochs, seeds 0 to 2, in float32 and in bfloat16, and prints the table
that report.py puts into README.md. Run folders go to precision/. Call it again to go on; several processes share the
work.
"""

import argparse
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

PRECISIONS = ("float32", "bfloat16")
SEEDS = (0, 1, 2)
EPOCHS = 30


def train(runs: Path, data_dir: str | None, seeds: tuple[int, ...] = SEEDS, **options: Any) -> bool:
    """Train what is missing; return whether nothing failed.

    Args:
        runs: folder of the run folders.
        data_dir: where CIFAR is.
        seeds: of the runs.
        options: of the runs' `Config`, beside method and seed.
    """
    from reproduction import table  # here: the report needs no Keras
    from tf_mmloss.train.config import Config
    from tf_mmloss.train.resolve import resolve

    cells = [table.Cell("mm-drw", resolve(Config(method="mm-drw", seed=seed, **options))) for seed in seeds]
    how = {"eval_every": cells[0].config.epochs}
    failed = [table.work(cells, runs / p, how={**how, "precision": p}, data_dir=data_dir) for p in PRECISIONS]
    return not any(failed)


def read(runs: Path) -> dict[str, list[dict[str, Any]]]:
    """The results of each precision's finished runs, with their seeds."""
    from tf_mmloss.runs import folder as run_folder

    found: dict[str, list[dict[str, Any]]] = {}
    for precision in PRECISIONS:
        folders = [f for f in run_folder.run_folders(runs / precision) if run_folder.is_finished(f)]
        found[precision] = [
            {**run_folder.read_json(f, "config.json"), **run_folder.read_json(f, "metrics.json")} for f in folders
        ]
    return {precision: sorted(rows, key=lambda row: row["seed"]) for precision, rows in found.items() if rows}


def render(results: dict[str, list[dict[str, Any]]]) -> str:
    """A Markdown table: top-1 error of each precision, over seeds."""
    lines = ["| precision | error | of each seed |", "| - | - | - |"]
    for precision, rows in results.items():
        errors = [100 * row["error"] for row in rows]
        spread = f" ± {stdev(errors):.2f}" if len(errors) > 1 else ""
        each = ", ".join(f"{error:.2f}" for error in errors)
        lines.append(f"| {precision} | {mean(errors):.2f}{spread} % (n={len(errors)}) | {each} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", metavar="DIR", help="where CIFAR is, as for training/fit.py")
    parser.add_argument("--runs", type=Path, default=HERE / "precision", metavar="DIR", help="the run folders")
    args = parser.parse_args()
    complete = train(args.runs, args.data_dir, epochs=EPOCHS)
    print(render(read(args.runs)))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
