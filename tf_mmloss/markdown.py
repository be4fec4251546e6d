"""Markdown of names that come from elsewhere."""

import re


def escaped(text: str) -> str:
    """A text for Markdown, also for a cell of a table, in which nothing of it is markup."""
    return re.sub(r"[\\`*\[\]<>|~&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))
