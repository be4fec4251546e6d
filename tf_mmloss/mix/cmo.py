"""CMO: CutMix whose pasted images are those of rare classes."""

from tf_mmloss.mix.cutmix import CutMix


class CMO(CutMix):
    """A box of an image that was drawn by inverse class frequency, in an image that was drawn as usual.

    Image and labels are those of `CutMix`; half of the batches are mixed, and none in the first four and the last
    three epochs, as in the published code.

    Example:
        >>> mixing = CMO([12, 8], epochs=200)
        >>> images, targets = mixing(x.astype("float32"), y % 2, 0, 0, 0, partners=(x.astype("float32"), y % 2))
        >>> targets.shape
        (20, 2)

    Reference:
        Park et al., The Majority Can Help the Minority: Context-rich Minority Oversampling for Long-tailed
        Classification, CVPR 2022.
    """

    name = "cmo"
    help = "a box of an image of a rare class, but in the first four and the last three epochs"
    draws_rare = True
    begins, spared = 4, 3
