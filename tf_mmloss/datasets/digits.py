"""Handwritten digits, 8x8: small enough to come with scikit-learn, so they need no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
1998; the copy of its test set in scikit-learn.
"""

import numpy as np

from tf_mmloss.datasets.base import ImageDataset, missing_package

LICENCE = (
    "CC BY 4.0: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning "
    "Repository, 1998. Distributed with scikit-learn under BSD-3-Clause."
)
TEST_PER_CLASS = 50
SPLIT_SEED = 0
# Of the 1,297 training images divided by 255, rounded.
MEAN = (0.3057,)
STD = (0.3761,)


def load_digits() -> ImageDataset:
    """Return 1,297 training and 500 test digits, 50 test images of each class.

    The split is fixed; images keep scikit-learn's order within a split. Values 0 .. 16 become 0 .. 255.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise missing_package("The data set `digits`, which comes with scikit-learn,", error) from error
    digits = datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    labels = digits.target.astype(np.int64)
    rng = np.random.default_rng(SPLIT_SEED)
    in_test = np.zeros(len(labels), bool)
    for label in range(10):
        in_test[rng.permutation(np.flatnonzero(labels == label))[:TEST_PER_CLASS]] = True
    names = tuple(str(name) for name in digits.target_names)
    train, test = (images[~in_test], labels[~in_test]), (images[in_test], labels[in_test])
    return ImageDataset("digits", *train, *test, names, MEAN, STD, LICENCE)
