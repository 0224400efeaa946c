"""Holds a built site to two promises: it asks nothing of the network, and every link in it leads somewhere.

`python scripts/site_check.py site` prints what breaks them and then exits with 1.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

_LOADED = {
    ("img", "src"),
    ("script", "src"),
    ("link", "href"),
    ("iframe", "src"),
    ("source", "src"),
    ("object", "data"),
}
_REMOTE = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
_STYLE_LOADS = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)


class _Page(HTMLParser):
    """What a page loads, what it links to, and what can be linked to in it."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if (tag, name) in _LOADED:
                self.loaded.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)
            elif name == "id":
                self.anchors.add(value)
            elif name == "style":
                self.loaded += _STYLE_LOADS.findall(value)


def problems(site: Path) -> list[str]:
    """What breaks the promises, a line each.

    Args:
        site: Folder of the built site.
    """
    pages = {path.resolve(): _read(path) for path in sorted(site.rglob("*.html"))}
    found = [f"{site}: holds no page"] if not pages else []
    for path, page in pages.items():
        found += [f"{path.name}: loads {address}" for address in page.loaded if _REMOTE.match(address)]
        local = [link for link in page.links + page.loaded if not _ELSEWHERE.match(link)]
        found += [f"{path.name}: leads nowhere: {link}" for link in local if not _exists(path, link, pages)]
    for path in sorted(site.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        found += [f"{path.name}: loads {address}" for address in _STYLE_LOADS.findall(text)]
    return found


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _exists(path: Path, link: str, pages: dict[Path, _Page]) -> bool:
    """Whether a link from a page leads to a file, and to an anchor in it where it names one."""
    address, anchor = urldefrag(link)
    name = unquote(address.partition("?")[0])
    target = (path.parent / name).resolve() if name else path
    if not target.is_file():
        return False
    return not anchor or target not in pages or unquote(anchor) in pages[target].anchors


if __name__ == "__main__":
    told = problems(Path(sys.argv[1]))
    sys.stdout.writelines(f"{line}\n" for line in told)
    sys.exit(bool(told))
