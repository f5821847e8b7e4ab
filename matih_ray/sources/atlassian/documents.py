"""Atlassian Document Format as plain text. Pure.

A document is a tree of nodes `{type, content, text, attrs}`
(https://developer.atlassian.com/cloud/jira/platform/apis/document/structure/).
"""

from __future__ import annotations

from typing import Any

# Deeper documents end there; editors nest some ten levels.
MAX_DEPTH = 100
_BLOCKS = frozenset(
    {
        "paragraph", "heading", "codeBlock", "listItem", "tableRow", "rule", "taskItem",
        "decisionItem", "blockquote", "panel", "expand", "nestedExpand", "mediaSingle",
    }
)  # fmt: skip
_SHOWN_ATTRIBUTES = {
    "mention": "text",
    "emoji": "text",
    "status": "text",
    "inlineCard": "url",
    "blockCard": "url",
    "date": "timestamp",
}


def plain_text(document: Any) -> str | None:
    """The text of a document, a line for each block; plain text stays, and None is None."""
    if document is None or isinstance(document, str):
        return document
    pieces: list[str] = []
    _collect(document, pieces, 0)
    lines = "".join(pieces).split("\n")
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _collect(node: Any, pieces: list[str], depth: int) -> None:
    if not isinstance(node, dict) or depth > MAX_DEPTH:
        return
    kind = node.get("type")
    if kind == "text":
        pieces.append(str(node.get("text", "")))
    elif kind == "hardBreak":
        pieces.append("\n")
    elif kind in _SHOWN_ATTRIBUTES:
        attributes = node.get("attrs")
        if isinstance(attributes, dict):
            pieces.append(str(attributes.get(_SHOWN_ATTRIBUTES[kind], "")))
    content = node.get("content")
    for child in content if isinstance(content, list) else ():
        _collect(child, pieces, depth + 1)
    if kind in _BLOCKS:
        pieces.append("\n")
    elif kind in ("tableCell", "tableHeader"):
        pieces.append(" ")
