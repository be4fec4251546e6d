"""The site, where `make docs` has built it: it needs no network, its search works, and everyone can read it."""

import re
import time
from pathlib import Path

import pytest
from browser import CHECKS

SITE = Path(__file__).parents[1] / "build" / "site"
# What a theme of others and Markdown decide: icons, tables that scroll, captions, the browser's own mark of the focus.
OF_THE_THEME = re.compile("no label|overflows|no caption|th without|cannot be scrolled|focus is not|.*too low: <button")

pytestmark = pytest.mark.skipif(not SITE.is_dir(), reason="no site: make docs")


def test_no_page_takes_anything_from_elsewhere():
    pages = list(SITE.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        elements = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text())
        assert [element for element in elements if re.search(r"(?:src|href)=\"?(?:https?:)?//", element)] == [], page


@pytest.mark.parametrize(
    ("page", "scheme", "width"),
    [("index", "light", 390), ("recipes", "light", 1280), ("which-loss", "dark", 390), ("api/callbacks", "dark", 1280)],
)
def test_everyone_can_read_it(browser, page, scheme, width):
    browser.open(SITE / f"{page}.html", width, scheme)
    assert browser.ask("document.body.dataset.mdColorScheme") == {"light": "default", "dark": "slate"}[scheme]
    assert [fault for fault in browser.ask(CHECKS) if not OF_THE_THEME.match(fault)] == []
    assert [url for url in browser.requests if not url.startswith("file:")] == []
    assert browser.complaints == []


def test_it_is_searched_without_a_server(browser):
    browser.open(SITE / "api" / "losses.html")
    field = "document.querySelector('.md-search__input')"
    browser.ask(f"{field}.focus(), {field}.value = 'balanced softmax', {field}.dispatchEvent(new Event('keyup'))")
    until = time.monotonic() + 30
    found = []
    while not found and time.monotonic() < until:
        time.sleep(0.1)
        found = browser.ask("[...document.querySelectorAll('.md-search-result__link')].map((link) => link.href)")
    assert (SITE / "methods.html").as_uri() in [link.partition("#")[0].partition("?")[0] for link in found]
