"""Pages of records, whichever way an API cuts them.

Only an empty page ends numbered pages and offsets: a page with fewer records than were asked for
may come from a server that allows no more, and taking it for the last one would lose the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from matih_ray.errors import SourceChangedError, SourceError, SourceRejectedError
from matih_ray.sources.http.client import Answer, ApiClient, Request
from matih_ray.sources.http.config import (
    CursorPages,
    Limits,
    LinkPages,
    NextUrlPages,
    NoPages,
    NumberedPages,
    OffsetPages,
)
from matih_ray.sources.http.json_values import at_path

Record = Mapping[str, Any]
Params = Mapping[str, str | int | bool]
Style = NoPages | NumberedPages | OffsetPages | CursorPages | LinkPages | NextUrlPages
# One `<url>; parameters` of a Link header; commas may be inside of both <> and quotes.
_PARAMETER = r';\s*([\w!#$&+.^`|~*-]+)(?:\s*=\s*(?:"([^"]*)"|([^\s",;]+)))?\s*'
_LINK = re.compile(rf"<([^<>]*)>\s*((?:{_PARAMETER})*)")
_LINK_PARAMETER = re.compile(_PARAMETER)


@dataclass(frozen=True)
class StreamPages:
    """One stream's way of asking and answering.

    Args:
        name: The stream's.
        style: How pages follow each other.
        request: A request with these parameters added.
        records: The records in an answer's JSON.
    """

    name: str
    style: Style
    request: Callable[[Params], Request]
    records: Callable[[Any], list[Any]]
    client: ApiClient
    limits: Limits

    def fetch(self, params: Params, *, max_retries: int | None = None) -> Answer:
        """The first page as it came."""
        return self.client.fetch(
            self.request({**self._sized(), **self._started(), **params}), max_retries=max_retries
        )

    def checked(self, answer: Answer) -> list[Record]:
        """The records of a page.

        Raises:
            SourceError: They are not records, or more than a page may have.
        """
        records = self.records(answer.body)
        if len(records) > self.limits.max_page_records:
            raise SourceError(
                f"a page of {self.name} has {len(records)} records, more than "
                f"limits.maxPageRecords ({self.limits.max_page_records}); ask for smaller pages",
                limit=self.limits.max_page_records,
            )
        for record in records:
            if not isinstance(record, dict):
                raise SourceChangedError(
                    f"{self.name}: a record is not a JSON object; check recordPath", unit=self.name
                )
        return records

    def pages(
        self, params: Params, start: int | None = None, stop: int | None = None
    ) -> Iterator[list[Record]]:
        """Pages from the first one on, or those of a range of page numbers or offsets.

        Raises:
            SourceChangedError: A closed range ends early: records were removed since planning.
            SourceError: The source fails, goes in circles, or has more than `limits.maxPages`.
        """
        if isinstance(self.style, NumberedPages):
            found = self._numbered(self.style, params, start, stop)
        elif isinstance(self.style, OffsetPages):
            found = self._offsets(self.style, params, start or 0, stop)
        else:
            found = self._followed(params)
        for number, page in enumerate(found):
            if number >= self.limits.max_pages:
                raise SourceError(
                    f"{self.name} has more than limits.maxPages ({self.limits.max_pages}) pages; "
                    "ask for larger pages or raise it",
                    limit=self.limits.max_pages,
                )
            yield page

    def total(self, answer: Answer) -> int | None:
        """The number of records that an answer tells, if the stream says where."""
        path = getattr(self.style, "total_path", None)
        if path is None:
            return None
        total = at_path(answer.body, path)
        if type(total) is not int or total < 0:
            raise SourceChangedError(
                f"{self.name}: there is no number at totalPath {path!r}; correct the stream",
                unit=self.name,
            )
        return total

    def _sized(self) -> Params:
        name = getattr(self.style, "size_param", None)
        return {} if name is None else {name: self.style.size}  # type: ignore[union-attr]  # has one with it

    def _started(self) -> Params:
        if isinstance(self.style, NumberedPages):
            return {self.style.param: self.style.first}
        return {self.style.param: 0} if isinstance(self.style, OffsetPages) else {}

    def _numbered(
        self, style: NumberedPages, params: Params, start: int | None, stop: int | None
    ) -> Iterator[list[Record]]:
        number = style.first if start is None else start
        while stop is None or number < stop:
            asked = {**params, **self._sized(), style.param: number}
            page = self.checked(self.client.fetch(self.request(asked)))
            if not page:
                self._refuse_shrunk(stop)
                return
            yield page
            number += 1

    def _offsets(
        self, style: OffsetPages, params: Params, offset: int, stop: int | None
    ) -> Iterator[list[Record]]:
        while stop is None or offset < stop:
            size = style.size if stop is None else min(style.size, stop - offset)
            asked = {**params, style.size_param: size, style.param: offset}
            page = self.checked(self.client.fetch(self.request(asked)))
            if not page:
                self._refuse_shrunk(stop)
                return
            if len(page) > size:
                raise SourceChangedError(
                    f"{self.name}: {len(page)} records came where {size} were asked for; correct "
                    "pagination.sizeParam",
                    unit=self.name,
                )
            yield page
            offset += len(page)

    def _refuse_shrunk(self, stop: int | None) -> None:
        if stop is not None:
            raise SourceChangedError(
                f"{self.name} has fewer records than when it was planned; start a new run",
                unit=self.name,
            )

    def _followed(self, params: Params) -> Iterator[list[Record]]:
        """The pages of styles in which each one leads to the next."""
        request: Request | None = self.request({**self._sized(), **params})
        seen: set[Request | str] = set()
        while request is not None:
            answer = self.client.fetch(request)
            yield self.checked(answer)
            mark, request = self._next(answer, params)
            if mark in seen:
                raise SourceRejectedError(
                    f"{self.name}: the API leads back to a page that it had given before; "
                    "correct the stream's pagination",
                    unit=self.name,
                )
            seen.add(mark)

    def _next(self, answer: Answer, params: Params) -> tuple[str, Request | None]:
        """What tells the next page from others, and the request for it."""
        style = self.style
        if isinstance(style, CursorPages):
            mark = self._mark(style, answer)
            if mark is None:
                return "", None
            return str(mark), self.request({**params, **self._sized(), style.param: mark})
        url = self._next_url(answer)
        if url is None:
            return "", None
        try:
            absolute = str(httpx.URL(answer.url).join(url))
        except httpx.InvalidURL:
            raise self._no_page("the next URL") from None
        return absolute, Request(absolute, {})

    def _mark(self, style: CursorPages, answer: Answer) -> str | int | None:
        if style.more_path is not None:
            more = at_path(answer.body, style.more_path)
            if not isinstance(more, bool):
                raise self._no_page(style.more_path)
            if not more:
                return None
        mark = at_path(answer.body, style.next_path)
        if mark is None or mark == "":
            if style.more_path is not None:  # there is more, and no way to it
                raise self._no_page(style.next_path)
            return None
        if not isinstance(mark, str | int) or isinstance(mark, bool):
            raise self._no_page(style.next_path)
        return mark

    def _next_url(self, answer: Answer) -> str | None:
        if isinstance(self.style, LinkPages):
            return next_link(answer.headers.get_list("Link"))
        if not isinstance(self.style, NextUrlPages):
            return None
        url = at_path(answer.body, self.style.next_path)
        if url is not None and not isinstance(url, str):
            raise self._no_page(self.style.next_path)
        return url or None

    def _no_page(self, where: str) -> SourceChangedError:
        return SourceChangedError(
            f"{self.name}: what is at {where!r} leads to no page; correct the stream's pagination",
            unit=self.name,
        )


def next_link(headers: list[str]) -> str | None:
    """The target of `rel="next"` in Link headers (RFC 8288 §3)."""
    for link in _LINK.finditer(", ".join(headers)):
        for name, quoted, plain in _LINK_PARAMETER.findall(link[2]):
            if name.lower() == "rel" and "next" in (quoted or plain).lower().split():
                return link[1]
    return None
