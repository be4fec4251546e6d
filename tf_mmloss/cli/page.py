"""Make a page of a run, RUN/index.html, or of several runs side by side.

    tf-mmloss page runs/cifar10-longtail100-mm-drw-seed0
    tf-mmloss page runs/A runs/B --out compare.html

A run makes its own page when it ends. The page is one file that needs nothing else: it can be sent and printed. Of a
run that is still training it shows what is there.
"""

import argparse
from pathlib import Path

from tf_mmloss import cli


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = cli.parser("page", __doc__)
    main.add_argument("runs", nargs="+", type=cli.path, metavar="RUN", help="a run folder")
    main.add_argument("--out", type=cli.path, metavar="FILE", help="of several runs; default: compare.html")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(arguments)
    try:
        with cli.imports():
            from tf_mmloss.runs import page

        if len(options.runs) == 1:
            if options.out:
                raise ValueError(f"`out` is for several runs: the page of one is RUN/{page.NAME}.")
            path = page.write(options.runs[0])
        else:
            path = options.out or Path("compare.html")
            cli.check_out_file(path)
            page.write_comparison(options.runs, path)
    except cli.USER_ERRORS as error:
        return cli.failed(error)
    print(path)
    return 0
