"""What installed packages add, by their entry points."""

import importlib.metadata

METHODS = "tf_mmloss.methods"
SOURCES = "tf_mmloss.sources"
BACKBONES = "tf_mmloss.backbones"
AUGMENTATIONS = "tf_mmloss.augmentations"


def entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """The entry points of a group by their names; nothing is imported."""
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=group)}
