"""List the runs below a folder, the best first.

tf-mmloss runs                      # below runs/
tf-mmloss runs DIR --by balanced
"""

import argparse

from tf_mmloss import cli

ORDERS = ("error", "balanced")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = cli.parser("runs", __doc__)
    main.add_argument("folder", type=cli.path, metavar="DIR", nargs="?", default="runs", help="default: runs")
    main.add_argument("--by", choices=ORDERS, default="error", help="error (default) or balanced: balanced error")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(arguments)
    from tf_mmloss import methods
    from tf_mmloss.runs import folder as run_folder

    root = options.folder
    if not root.is_dir():
        return cli.failed(ValueError(f"`folder` must be a folder. Received: folder={str(root)!r}"))
    done: dict[str, list[tuple[float, list[str]]]] = {}
    unfinished, unreadable = [], []
    for folder in run_folder.run_folders(root):
        try:
            config = run_folder.read_json(folder, "config.json", ["dataset", "imbalance", "ratio", "method", "seed"])
            label = run_folder.data_label(config)
            known = methods.METHODS.get(config["method"])
            if known and known.task == "rotation":  # errors of another task
                label += ", rotations"
            if not run_folder.is_finished(folder):
                failed = ", failed" if run_folder.is_failed(folder) else ""
                line = f"{folder}: epoch {run_folder.epochs_saved(folder)} of {config.get('epochs')}{failed}"
                unfinished.append(line)
                continue
            metrics = run_folder.read_json(folder, "metrics.json", ["error", "balanced_accuracy", "seconds"])
        except run_folder.RunFolderError as error:
            unreadable.append(str(error))
            continue
        top_1, balanced = metrics["error"], 1 - metrics["balanced_accuracy"]
        held = " (held-out)" if config.get("holdout") else ""
        cells = [f"{top_1:.2%}{held}", f"{balanced:.2%}", config["method"], str(config["seed"]),
                 run_folder.duration(metrics["seconds"]), str(folder)]  # fmt: skip
        done.setdefault(label, []).append((top_1 if options.by == "error" else balanced, cells))
    head = ["error", "balanced error", "method", "seed", "time", "folder"]
    for label, rows in sorted(done.items()):
        table = [head, *(cells for _, cells in sorted(rows))]
        widths = [max(len(row[i]) for row in table) for i in range(len(head))]
        print(f"{label}\n" + "\n".join(
            "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ))  # fmt: skip
    for title, lines in (("not finished", unfinished), ("cannot be read", unreadable)):
        if lines:
            print(f"{title}\n" + "\n".join(f"  {line}" for line in lines))
    if not done and not unfinished and not unreadable:
        print(f"no runs below {root}")
    return 0
