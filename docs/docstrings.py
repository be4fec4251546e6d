"""The house's docstrings, as Griffe reads them: it calls the section of runnable lines "Examples"."""

import re

import griffe


class Docstrings(griffe.Extension):
    """Rename the section."""

    def on_object(self, *, obj, **_):
        """Called for each object that was read."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
