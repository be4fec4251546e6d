"""Image data sets, found offline where possible and read without trusting the files."""

from tf_mmloss.datasets.base import ImageDataset
from tf_mmloss.datasets.registry import NAMES, load

__all__ = ["NAMES", "ImageDataset", "load"]
