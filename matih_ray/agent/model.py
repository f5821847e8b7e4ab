"""A language model that may help where the rules are at a loss. Off unless a setting names one.

It is asked for one thing: how to say a message in words that the rules understand. It sees no
values (`masking`), it can name none that the user did not write, and what it answers is read, and
refused, like any message. Commands are not for it to give. When it is slow, away or talks nonsense,
the rules have the last word, and it is left alone for a while.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import httpx
import structlog
from pydantic import SecretStr

from matih_ray.agent import sentences
from matih_ray.agent.commands import command_in
from matih_ray.agent.conversation import Conversation, State
from matih_ray.agent.masking import (
    PLACEHOLDER,
    Masked,
    masked,
    words_of,
    words_of_streams,
)
from matih_ray.agent.steps import Templates
from matih_ray.agent.templates import Template
from matih_ray.errors import ConfigurationError
from matih_ray.model.value import JsonValue
from matih_ray.settings import Settings

# A form of some twenty fields, and a few sentences.
MAX_ANSWER_TOKENS = 400
MAX_ANSWER_BYTES = 64 * 1024
# After a failure nobody else waits for it for this long.
LEFT_ALONE_S = 30.0
# Questions under way at a time; beyond that messages are not delayed by waiting for a turn.
MAX_QUESTIONS = 16

_READING = (
    "You help to set up a data source. Rewrite the user's message. Parts that you may not see are "
    "numbered, such as <1>; use these numbers, never invent values. Answer with JSON only: "
)
_REPHRASING = (
    "Put each line in other words, friendly and short, with the same meaning. Keep every numbered "
    "part such as <1> exactly once. Answer with JSON only: "
    '{"lines": ["…"]}, one for each line.'
)

log = structlog.get_logger(__name__)


class LanguageModel:
    """An OpenAI-compatible endpoint."""

    def __init__(self, settings: Settings, url: str) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ConfigurationError(
                "MATIH_AGENT_MODEL_URL is no web address; use https://host/v1",
                setting="agent_model_url",
            )
        key: SecretStr | None = settings.agent_model_key
        self._name = settings.agent_model_name
        self._wait_s = settings.agent_model_wait_s
        self._rephrases = settings.agent_model_rephrases
        self._left_alone_until = 0.0
        self._questions = 0
        self._url = url.rstrip("/") + "/chat/completions"
        self._http = httpx.AsyncClient(
            timeout=self._wait_s,
            headers={} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"},
            # a proxy has no business between two processes of one machine
            trust_env=urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1"),
        )

    async def understood(
        self,
        text: str,
        conversation: Conversation,
        templates: Templates,
        is_hidden: Callable[[str], bool],
    ) -> str | None:
        """The message in words that the rules understand; None if there are none.

        Args:
            text: What the user said.
            conversation: Where the conversation stands.
            templates: What can be talked about.
            is_hidden: Recognises words that are secrets already.
        """
        if len(text.split()) < 2:  # nothing is left to see of a bare value
            return None
        template = templates.of(conversation.type) if conversation.type else None
        streams = [stream.unit_id for stream in conversation.streams]
        known = frozenset(t.lower() for t in templates.titles) | words_of_streams(streams)
        known |= words_of(template) if template else frozenset()
        is_form = conversation.state in _FORMS
        shown = masked(text, known, is_hidden, with_numbers=not is_form)
        answer = await self._asked(
            _READING + _wanted(conversation, template, templates), shown.text
        )
        if answer is None:
            return None
        if is_form and template is not None:
            fields = answer.get("fields")
            return _lines(fields, shown, template) if isinstance(fields, dict) else None
        said = answer.get("say")
        return _spoken(said, shown) if isinstance(said, str) else None

    async def rephrased(self, said: Sequence[str]) -> list[str]:
        """The sentences in other words, where that is wanted and possible; lists stay."""
        lines = [s for s in said if "\n" not in s and s != sentences.FORBIDDEN]
        if not self._rephrases or not lines:
            return list(said)
        shown = [masked(line) for line in lines]
        answer = await self._asked(_REPHRASING, "\n".join(line.text for line in shown))
        new = answer.get("lines") if answer else None
        if not isinstance(new, list) or len(new) != len(lines):
            return list(said)
        other = {
            old: restored
            for old, mask, line in zip(lines, shown, new, strict=True)
            if (restored := _restored(line, mask)) is not None
        }
        return [other.get(s, s) for s in said]

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _asked(self, system: str, text: str) -> dict[str, JsonValue] | None:
        if time.monotonic() < self._left_alone_until or self._questions >= MAX_QUESTIONS:
            return None
        self._questions += 1
        try:
            content = await asyncio.wait_for(self._content(system, text), self._wait_s)
            answer: JsonValue = json.loads(content[content.index("{") : content.rindex("}") + 1])
        except (httpx.HTTPError, asyncio.TimeoutError, ValueError, LookupError, TypeError) as error:
            self._left_alone_until = time.monotonic() + LEFT_ALONE_S
            log.warning("agent_model_failed", error=type(error).__name__)
            return None
        finally:
            self._questions -= 1
        return answer if isinstance(answer, dict) else None

    async def _content(self, system: str, text: str) -> str:
        body = {
            "model": self._name,
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": text},
            ],
            "temperature": 0,
            "max_tokens": MAX_ANSWER_TOKENS,
        }
        received = b""
        async with self._http.stream("POST", self._url, json=body) as response:
            response.raise_for_status()
            async for part in response.aiter_bytes():
                received += part
                if len(received) > MAX_ANSWER_BYTES:
                    raise ValueError("the answer is too long")
        content = json.loads(received)["choices"][0]["message"]["content"]
        return str(content)


def open_model(settings: Settings) -> LanguageModel | None:
    """The model that the settings name, if they name one.

    Raises:
        ConfigurationError: Its address is none.
    """
    url = settings.agent_model_url
    return None if url is None else LanguageModel(settings, url)


_FORMS = (State.GATHER_CREDENTIALS, State.TEST_CONNECTION, State.DISCOVER_SCHEMA)


def _wanted(conversation: Conversation, template: Template | None, templates: Templates) -> str:
    if conversation.state in _FORMS and template is not None:
        names = ", ".join(f"{field.name} ({field.label})" for field in template.fields)
        return f'{{"fields": {{"name": "<1>"}}}} with names among: {names}.'
    if conversation.state is State.SELECT_STREAMS:
        names = ", ".join(stream.unit_id for stream in conversation.streams[:200])
        return f'{{"say": "orders, customers"}} with the streams that are meant, of: {names}.'
    if conversation.state in (State.CONFIGURE_SYNC, State.REVIEW):
        return (
            '{"say": "…"}: when to load, as `every 6 hours`, `every night at 2`, `weekdays at 6`, '
            "a cron line or `once`; or how, as `orders full` or `orders incremental by updated_at`."
        )
    return f'{{"say": "…"}} with the type of source that is meant: {", ".join(templates.titles)}.'


def _lines(fields: dict[str, JsonValue], shown: Masked, template: Template) -> str | None:
    """The fields as the rules read them. Values are the user's, ports apart."""
    lines = []
    for name, value in fields.items():
        field = template.field(name)
        if field is None or not isinstance(value, (str, int)):
            continue
        text = str(value).strip()
        if match := PLACEHOLDER.fullmatch(text):
            own = shown.value(int(match[1])) or ""
            # only a secret may end in a dot or an exclamation mark
            text = own if field.is_secret else own.strip(".,;:!?()\"'")
        elif field.is_secret or not (field.kind in ("port", "tls") or text.lower() in shown.words):
            continue
        if text:
            lines.append(f"{name}: {text}")
    return "\n".join(lines) or None


def _spoken(said: str, shown: Masked) -> str | None:
    """A sentence of the model's with the user's words in it, unless it is a command."""
    if len(said) > MAX_ANSWER_BYTES // 100 or "\n" in said:
        return None
    text = PLACEHOLDER.sub(lambda match: shown.value(int(match[1])) or "", said)
    return None if command_in(text) is not None else text


def _restored(line: JsonValue, mask: Masked) -> str | None:
    """A rephrased line with its values, if it holds each of them once and nothing else of note."""
    if not isinstance(line, str) or "\n" in line or len(line) > 2 * len(mask.text) + 80:
        return None
    numbers = Counter(int(number) for number in PLACEHOLDER.findall(line))
    if numbers != Counter(range(1, len(mask.values) + 1)):
        return None
    plain = PLACEHOLDER.sub("", line)
    if any(c.isdigit() or c in "`<>" for c in plain) or "://" in plain:
        return None
    return PLACEHOLDER.sub(lambda match: mask.values[int(match[1]) - 1], line)
