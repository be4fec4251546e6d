"""Own images: from a folder, a table, arrays, TFDS or a function to uint8 pixels of one size, split. No Keras.

`open_source` finds them, `load_images` reads, checks, caches and splits them. A kind of source is a file in `sources/`.
"""

from tf_mmloss.data.load import Images, load_images
from tf_mmloss.data.source import DataError, Dirt, ImageError, Source
from tf_mmloss.data.sources import open_source, source_help

__all__ = ["DataError", "Dirt", "ImageError", "Images", "Source", "load_images", "open_source", "source_help"]
