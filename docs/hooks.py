"""What the site takes from outside its folder: pages of the repository, methods and pictures and tables of runs."""

import re
from pathlib import Path

import generated
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "contributing.md": "CONTRIBUTING.md",
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
}
WIDE = ("methods.md", "results.md")  # of wide tables, which take the place of the contents
PICTURES = Path("results/figures")


def on_files(files, config):
    """Add them."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "methods.md", content=generated.methods()))
    for picture in sorted((ROOT / PICTURES).glob("*.png")):
        files.append(File.generated(config, f"figures/{picture.name}", content=picture.read_bytes()))
    return files


def on_page_markdown(markdown, page, **_):
    """Point to the pictures where the site has them; a link to code is its name."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    if page.file.src_uri in PAGES:
        markdown = re.sub(r"\[([^]]+)\]\((?!https?:)[^)]*\)", r"\1", markdown)
    for mark in ("chosen", "measured", "own", "compared", "costs"):
        markdown = markdown.replace(f"<!-- {mark} -->", getattr(generated, mark)())
    return re.sub(rf"\((?:\.\./)?{PICTURES.as_posix()}/", "(figures/", markdown)
