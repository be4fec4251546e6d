"""Train several methods on one data set, and say which one to take, and how sure that is.

    tf-mmloss compare --dataset photos/ --methods erm,ldam-drw,mm-drw,balanced-softmax --seeds 3
    tf-mmloss compare --dataset digits --ratio 20 --methods erm,mm-drw --epochs 30 --measure error
    tf-mmloss compare --dataset photos/ --methods erm,mm-drw --out runs/which --hours 8
    tf-mmloss compare --dataset photos/ --methods erm,erm+logit-adjustment,balanced-softmax
    tf-mmloss compare --resume runs/which --seeds 5

Every method is trained with every seed, all alike: the options of fit that are not of a method are for all. They are
evaluated on images held out of the training split; the test split is not looked at, unless --final says so. The
answer weighs two kinds of chance, other seeds and other images, and says so where the methods cannot be told apart.

METHOD+DECISION, as in erm+logit-adjustment, is METHOD decided as fit's --decide does; it shares the runs of METHOD.
A strength is fitted on the held-out images, of which each half is decided by that of the other half.

The command can be stopped at any moment, with ctrl-C or harder; the same command, or --resume, continues. --resume
takes --seeds and --methods too, which then are added; who adds seeds until something is told apart is more often wrong
than one time in twenty. Several commands with one --out, on hosts with one file system, share the runs. What is
finished is compared after every seed and whenever one ends.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from tf_mmloss import cli
from tf_mmloss._validation import number
from tf_mmloss.cli import backend, fit
from tf_mmloss.train import progress, resolve, show
from tf_mmloss.train.config import Config, code_named, of_a_method

MEASURE = "balanced-accuracy"


def parser() -> argparse.ArgumentParser:
    """The command line. Options that are not given are absent, so that --resume can tell."""
    main = cli.parser("compare", __doc__, argument_default=argparse.SUPPRESS)
    group = main.add_argument_group("comparison")
    group.add_argument(
        "--methods",
        metavar="A,B,...",
        help="two or more of the names of fit's --method, or METHOD+DECISION with one of --decide",
    )
    group.add_argument("--seeds", type=int, metavar="N", help="runs of each method; default 3; of 1, nothing is sure")
    group.add_argument(
        "--measure", help="what decides: balanced-accuracy (default), error or few-accuracy (the rarest classes)"
    )
    group.add_argument(
        "--final",
        action="store_true",
        help="evaluate on the test split: once, to report methods that were chosen before",
    )
    group.add_argument("--hours", type=float, metavar="H", help="stop at the end of the epoch in which they are over")
    group.add_argument(
        "--out", type=cli.path, metavar="DIR", help="the comparison's folder; default: runs/compare- and a name"
    )
    group.add_argument("--resume", type=cli.path, metavar="DIR", help="continue the comparison in this folder")
    group.add_argument("--data-dir", type=cli.path, metavar="DIR", help="where CIFAR is, as for fit")
    backend.add_option(group)
    cli.add_progress_options(main)
    fit.add_config_options(main)
    refused = of_a_method()
    for action in main._actions:  # they stay, for a message that says why they are refused
        if action.dest in refused:
            action.help = argparse.SUPPRESS
        elif action.dest == "eval_every":
            action.help = "evaluate every N epochs and at the end; default: at the end alone, which is compared"
    return main


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status: 3 if runs are left, by --hours or to other processes."""
    options: dict[str, Any] = vars(parser().parse_args(arguments))
    with progress.shown(options.pop("how", "lines")):
        return _run(options)


def _run(options: dict[str, Any]) -> int:
    """Run the command with its options."""
    try:
        with cli.imports():  # here: --help needs no Keras
            from tf_mmloss import comparison
            from tf_mmloss.train import compare, inputs
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    names = ("methods", "seeds", "measure", "final", "hours", "out", "resume", "data_dir", "backend")
    methods, seeds, measure, final, hours, out, resume, data_dir, chosen = (options.pop(n, None) for n in names)
    folder: Path | None = None

    def again(folder: Path) -> str:
        return cli.resuming("compare", folder, data_dir=data_dir, backend=chosen, **code_named(plan.config))

    try:
        backend.check(chosen)
        if hours is not None:
            number("hours", hours, above=0)
        if resume is not None:
            plan = _resumed(resume, methods, seeds, measure, final, out, options)
            folder = resume
        else:
            if methods is None:
                raise ValueError("`methods` must be given: --methods NAME,NAME,..., or --resume DIR. Received: None")
            if final and "holdout" in options:
                raise ValueError(
                    f"`holdout` is not for --final, which evaluates on the test split. Received: {options['holdout']}"
                )
            wanted = tuple(name.strip() for name in methods.split(","))
            seeds, deciding = 3 if seeds is None else seeds, (measure or MEASURE).replace("-", "_")
            compare.check(wanted, seeds, deciding, options)
            plan = compare.Plan(wanted, seeds, Config(**{"method": comparison.bare(wanted[0]), **options}), deciding)
            if not final and "holdout" in options:
                resolve.check_holdout(plan.config, at_least=1)
            folder = out or Path(f"runs/compare-{_name(plan.config)}")
        cli.check_out(folder)
        held = plan.config.holdout or int(resume is None and not final)  # what it will be depends on the images
        if resolve.has_gaps(plan.config):
            plan.check_before_data(held)
        else:
            plan.resolve(holdout=held)
        data = inputs.load(plan.config, data_dir)
        why = show.why(plan.config, data) if plan.config.is_own else ()
        progress.tell("\n".join((*data.report, *why)))
        config = plan.config
        if resume is None:
            epochs = resolve.resolve(config, data if config.is_own else None).epochs
            config = dataclasses.replace(
                config,
                holdout=0 if final else config.holdout or resolve.holdout(config, data),
                eval_every=options.get("eval_every", epochs),  # what is compared is the end
            )
        plan = dataclasses.replace(plan, config=config)
        progress.tell(compare.begin(folder, plan, data))
        left = compare.work(folder, plan, data, data_dir=data_dir, hours=hours)
        found = compare.report(folder, data)
    except KeyboardInterrupt:
        if folder is None or not (folder / compare.PLAN).exists():
            print("\nStopped: nothing was begun.", file=sys.stderr)
        else:
            so_far = folder / "comparison.md"
            there = f" What was compared before is in {so_far}." if so_far.exists() else ""
            said = f"\nStopped. Every complete epoch is saved.{there} Continue: {again(folder)}"
            progress.tell(said, "stopped")
        return 130
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    if found is None:
        failed, what = compare.failed_methods(folder, plan), {}
        text = "Nothing to compare yet: no seed is finished by all methods."
        if len(plan.methods) - len(failed) < 2:
            text = "Nothing to compare: fewer than two methods are left."
        if failed:
            text += f" Left out, as a loss became NaN: {', '.join(failed)}."
    else:
        text = f"{found['text']}\nEverything is in {folder}"
        what = {"answer": " ".join(found["answer"]), "choice": found["choice"]}
    if left:
        text += f"\nnot finished: {', '.join(left)}. Continue: {again(folder)}"
    progress.tell(f"\n{text}", "result", folder=folder, left=left, **what)
    return 3 if left else 0 if found else 1


def _name(config: Any) -> str:
    """Of the comparison's folder: the run's name without its method and seed."""
    name: str = config.name
    before, _, after = name.removesuffix(f"-seed{config.seed}").rpartition(f"-{config.method}")
    return before + after


def _resumed(
    resume: Path, methods: str | None, seeds: Any, measure: Any, final: Any, out: Any, options: dict[str, Any]
) -> Any:
    """The plan of a folder, with more seeds and methods; what names code must be given again, and nothing else may."""
    from tf_mmloss.train import compare

    plan = compare.read_plan(resume)
    wanted = tuple(dict.fromkeys([*plan.methods, *(name.strip() for name in (methods or "").split(",") if name)]))
    seeds = plan.seeds if seeds is None else seeds
    compare.check(wanted, seeds, plan.measure, {})
    plan = dataclasses.replace(plan, methods=wanted, seeds=seeds)
    named = code_named(plan.config)
    again = {name: value for name, value in options.items() if named.get(name) != value}
    given = {"measure": measure, "final": final, "out": out, **again}
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"`{name}` must not be given with --resume DIR, whose plan says it. Received: {value!r}")
    for name, value in named.items():
        if name not in options:
            raise ValueError(
                f"`{name}` of {resume} is a function that would be called: give --{name} {value} again to say that you "
                "trust it."
            )
    return plan
