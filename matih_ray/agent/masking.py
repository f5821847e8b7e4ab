"""Messages as a language model may see them: words of a closed vocabulary, all else by numbers.

Recognising secrets is never certain, so nothing is searched for and taken out. A word is shown if
the agent's own sentences, its templates or the list below use it; everything else, host names and
passwords alike, is `<1>`, `<2>`, …, which a model can put where they belong without knowing them.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, ModuleType

from matih_ray.agent import commands, sentences
from matih_ray.agent.templates import Template
from matih_ray.agent.words import FILLER

# What people say about times, numbers and tables, beside what the agent says itself.
_COMMON_WORDS = """
about after all also any anything around because been before being best better big both bring
call came come could data day days different each early eight eleven else end ends evening ever
everything few find fine first five for fortnight four friday full get give goes going good
guess had half he hello hi hour hours how if important into just keep last late latest leave
left less let like little load loading look make many maybe me middle midnight minute minutes
monday month months morning most much must name names needs never new night nine no noon nothing
now o'clock off often old once one only other others ours past people perhaps please port
quarter really refresh run same saturday say see server service seven should show since six
small so some something sometimes source sources start still stop store sunday sure table tables
take tell ten than thank thanks their them then there these they thing things think those three
through thursday time times today together tomorrow too tuesday twelve twice two until up us use
used user very wait want was way we wednesday week weekday weekdays weekend weekends weeks well
were what when where whether which while who whole why without working year years yes yesterday
yet zero
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_TOKEN = re.compile(r"`[^`\n]*`|[^\s]+")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
PLACEHOLDER = re.compile(r"<(\d+)>")


@dataclass(frozen=True)
class Masked:
    """A text to be shown, and what its placeholders stand for. Do not log `values`."""

    text: str
    values: tuple[str, ...]
    words: frozenset[str]

    def __repr__(self) -> str:
        return f"Masked({self.text!r})"

    def value(self, number: int) -> str | None:
        """What `<number>` stands for."""
        return self.values[number - 1] if 0 < number <= len(self.values) else None


def masked(
    text: str,
    known: Iterable[str] = (),
    is_hidden: Callable[[str], bool] = lambda _: False,
    *,
    with_numbers: bool = False,
) -> Masked:
    """A text as a model may see it.

    Args:
        text: What somebody said.
        known: Further words that may be shown, in lower case.
        is_hidden: Words that may not, whatever they are.
        with_numbers: Whether numbers of two digits, and times of the day, are shown.
    """
    shown = _vocabulary() | frozenset(known)
    values: list[str] = []
    words: set[str] = set()

    def replaced(match: re.Match[str]) -> str:
        token = match[0]
        plain = token.strip(".,;:!?()\"'").lower()
        is_number = with_numbers and re.fullmatch(r"\d{1,2}(?::\d\d)?|\d{1,2}-\d{1,2}", plain)
        if plain and (plain in shown or is_number) and not (is_hidden(token) or is_hidden(plain)):
            words.add(plain)
            return token
        values.append(token)
        return f"<{len(values)}>"

    return Masked(_TOKEN.sub(replaced, text), tuple(values), frozenset(words))


@lru_cache(maxsize=64)
def words_of(template: Template) -> frozenset[str]:
    """Words that a template uses for itself and its fields."""
    spoken = [template.title, *template.aliases]
    for field in template.fields:
        spoken += [field.name, field.label, *field.aliases]
    return frozenset(word for text in spoken for word in (text.lower(), *_words((text,))))


def words_of_streams(ids: Sequence[str]) -> frozenset[str]:
    """Names of streams, whole and in parts."""
    lower = [id_.lower() for id_ in ids]
    return frozenset([*lower, *(part for id_ in lower for part in re.split(r"[._]", id_) if part)])


@lru_cache(maxsize=1)
def _vocabulary() -> frozenset[str]:
    own = _words((*_texts(sentences), *_texts(commands)))
    return own | _COMMON | FILLER


def _words(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(word for text in texts for word in _WORD.findall(text.lower()))


def _texts(module: ModuleType) -> list[str]:
    """All texts of a module: its constants, and those inside of its functions."""
    found = [value for value in vars(module).values() if isinstance(value, str)]
    waiting = [f.__code__ for f in vars(module).values() if hasattr(f, "__code__")]
    while waiting:
        constants = waiting.pop().co_consts
        found += [value for value in constants if isinstance(value, str)]
        waiting += [value for value in constants if isinstance(value, CodeType)]
    return found
