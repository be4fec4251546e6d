"""Pre-train a backbone by predicting rotations (SSP), for runs with `--pretraining rotation`.

    tf-mmloss pretrain --dataset cifar10 --ratio 100
    tf-mmloss fit --dataset cifar10 --ratio 100 --method ldam-drw-ssp

Every image of a batch is rotated by 0, 90, 180 or 270 degrees and the network says by which; the labels are not
used. The images, the schedule and the network are those of the run that starts from it, but for a dense head on the
four rotations: all other weights are carried over. The command takes the options of `fit`, and leaves a run folder
like any other. A run looks for it beside its own folder, and makes it if it is not there.
"""

from tf_mmloss.cli import fit


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return fit.main(arguments, __doc__, "pretrain", method="rotation")
