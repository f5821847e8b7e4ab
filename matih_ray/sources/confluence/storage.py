"""Links in the storage format of Confluence, XHTML with elements of its own. Pure.

https://confluence.atlassian.com/doc/confluence-storage-format-790796544.html
"""

from __future__ import annotations

import hashlib
import html
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser

# A link's text is for people to recognize it by.
MAX_TEXT_CHARS = 500
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
# An address of a page as the site itself writes it: the id is in it.
_PAGE_ADDRESS = re.compile(r"/pages/(?:viewpage\.action\?pageId=)?(\d+)(?:[/?#]|$)")
_BODIES = frozenset({"ac:link-body", "ac:plain-text-link-body"})


@dataclass(frozen=True)
class Link:
    """What a page links to. `page_id` is known only where the link itself says it."""

    kind: str
    space_key: str | None = None
    title: str | None = None
    attachment: str | None = None
    user_id: str | None = None
    url: str | None = None
    anchor: str | None = None
    page_id: str | None = None
    text: str | None = None
    occurrences: int = 1

    @property
    def digest(self) -> str:
        """Names the target, whatever the text."""
        parts = (
            self.kind, self.space_key, self.title, self.attachment, self.user_id, self.url,
            self.anchor,
        )  # fmt: skip
        return hashlib.sha256("\x00".join(part or "" for part in parts).encode()).hexdigest()[:16]


def links_of(body: str | None) -> list[Link]:
    """The different targets of a body, in the order of their first appearance."""
    parser = _Links()
    # the contents of CDATA are text, whatever they look like
    parser.feed(_CDATA.sub(lambda match: html.escape(match.group(1)), body or ""))
    parser.close()
    found: dict[str, Link] = {}
    for link in parser.found:
        known = found.get(link.digest)
        if known is None:
            found[link.digest] = link
        else:
            found[link.digest] = replace(known, occurrences=known.occurrences + 1)
    return list(found.values())


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Link] = []
        self._open: list[Link | None] = []  # inside `ac:link`, as far as its target is known
        self._anchors: list[str | None] = []
        self._holder: list[Link] = []  # inside `a`
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "ac:link":
            self._open.append(None)
            self._anchors.append(told.get("ac:anchor"))
            self._text = []
        elif tag.startswith("ri:"):
            self._resource(tag, told)
        elif tag == "a" and (href := (told.get("href") or "").strip()):
            self._holder.append(_address(href, is_card="data-card-appearance" in told))
            self._text = []
        elif tag in _BODIES:
            self._text = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag in ("ac:link", "a"):
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._holder:
            self._keep(self._holder.pop())
        elif tag == "ac:link" and self._open:
            link, anchor = self._open.pop(), self._anchors.pop()
            if link is None and anchor is None:
                return
            self._keep(replace(link or Link("page"), anchor=anchor))

    def handle_data(self, data: str) -> None:
        if self._holder or self._open:
            self._text.append(data)

    def _resource(self, tag: str, told: dict[str, str | None]) -> None:
        link = _resource(tag, told)
        if link is None:
            return
        if not self._open:
            self.found.append(link)  # of an image or a macro
            return
        outer = self._open[-1]
        if outer is not None and outer.kind == "attachment" and link.kind == "page":
            # the page that holds the attachment
            link = replace(outer, space_key=link.space_key, title=link.title)
        self._open[-1] = link

    def _keep(self, link: Link) -> None:
        words = " ".join("".join(self._text).split())
        self.found.append(replace(link, text=words[:MAX_TEXT_CHARS] or None))
        self._text = []


def _address(href: str, *, is_card: bool) -> Link:
    match = _PAGE_ADDRESS.search(href)
    page_id = None if match is None or "/wiki/" not in href else match.group(1)
    return Link("card" if is_card else "url", url=href, page_id=page_id)


def _resource(tag: str, told: dict[str, str | None]) -> Link | None:
    if tag in ("ri:page", "ri:content-entity"):
        return Link(
            "page",
            space_key=told.get("ri:space-key"),
            title=told.get("ri:content-title"),
            page_id=told.get("ri:content-id"),
        )
    if tag == "ri:blog-post":
        title = told.get("ri:content-title")
        return Link("blog", space_key=told.get("ri:space-key"), title=title)
    if tag == "ri:attachment":
        return Link("attachment", attachment=told.get("ri:filename"))
    if tag == "ri:user":
        return Link("user", user_id=told.get("ri:account-id") or told.get("ri:userkey"))
    if tag == "ri:space":
        return Link("space", space_key=told.get("ri:space-key"))
    if tag == "ri:url":
        return Link("url", url=told.get("ri:value"))
    return None
