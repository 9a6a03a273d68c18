"""The dashboard of a made-up pool in a browser, and scripts that tests run in it."""

from __future__ import annotations

from browser import Browser, Tab
from made_up_pool import PlayedWatch

ROWS = "[...document.querySelectorAll('tr[data-id]')].map(row => row.dataset.id)"
FOCUS = "document.activeElement"
ASKED = "document.querySelectorAll('.ask').length"
FORM = "document.querySelector('form[data-run=parse_invoice]')"
ITEM = f"{FORM}.querySelector('[name=item]')"
# What the page posts is answered by the test.
POSTS = """
window.posts = []
window.real = fetch
window.fetch = (address, options) => options?.method !== 'POST' ? real(address, options)
  : new Promise((answer, fail) => {
    const reply = (value, status = 200) => answer(new Response(value, { status }))
    posts.push([address, options.body, reply])
    options.signal?.addEventListener('abort', () => fail(options.signal.reason))
  })
"""


class Dashboard:
    """The dashboard of a made-up pool, which each test opens anew."""

    def __init__(self, browser: Browser, watch: PlayedWatch, url: str) -> None:
        self.browser = browser
        self.tab = Tab(browser)
        self.watch = watch
        self.url = url

    def open(self, view: str, width: int = 1280, height: int = 900) -> Tab:
        """Show a view, until the next test."""
        self.tab.size(width, height)
        self.tab.open(f"{self.url}/ui#{view}")
        name = view.partition("/")[0]
        self.tab.until(f"document.querySelector('[data-key=\"view-{name}\"]') !== null")
        if name == "maps":
            self.tab.until(f"{ROWS}.length >= 12")
        return self.tab

    def acts(self) -> list[tuple[str, str, int]]:
        """Return the actions on maps so far."""
        return [asked for asked in self.watch.asked if asked[0] not in ("map", "failure")]

    def pass_time(self, seconds: int = 3) -> None:
        """Wait until the page has drawn this number of changes."""
        version = self.tab.do("jetmap.world.document.version")
        self.tab.until(f"jetmap.world.document.version > {version + seconds}")

    def focus(self, selector: str) -> None:
        self.tab.until(f"document.querySelector({selector!r}) !== null")
        self.tab.do(f"document.querySelector({selector!r}).focus()")
        assert self.tab.do(f"{FOCUS}.matches({selector!r})")
