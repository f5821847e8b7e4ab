"""One step of a conversation, as a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matih_ray.agent.conversation import Conversation, State
from matih_ray.agent.events import Effect
from matih_ray.agent.templates import Template


@dataclass(frozen=True)
class Step:
    """What follows from an event. `secrets` are values that the message held, for redaction;
    `is_hidden` says that the whole message may be one, `is_unclear` that it was not understood."""

    conversation: Conversation
    said: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    secrets: tuple[str, ...] = ()
    is_hidden: bool = False
    is_unclear: bool = False

    def __repr__(self) -> str:
        return f"Step({self.conversation.state.value}, effects={len(self.effects)})"


@dataclass(frozen=True)
class Templates:
    """Templates that can be talked about. `unavailable` tells why some cannot be used here."""

    known: tuple[Template, ...]
    unavailable: dict[str, str]

    def of(self, type_: str | None) -> Template:
        """The template of a type that was chosen."""
        return next(template for template in self.known if template.type == type_)

    @property
    def titles(self) -> tuple[str, ...]:
        """Titles of those that can be used."""
        return tuple(t.title for t in self.known if t.type not in self.unavailable)


def say(conversation: Conversation, *said: str) -> Step:
    """Stay and say something."""
    return Step(conversation, tuple(said))


def unclear(conversation: Conversation, *said: str) -> Step:
    """Stay, and say that the message was not understood."""
    return Step(conversation, tuple(said), is_unclear=True)


def moved(conversation: Conversation, state: State, **changes: object) -> Conversation:
    """The conversation in another state."""
    return conversation.model_copy(update={"state": state, **changes})


def shown(words: Sequence[str]) -> tuple[str, ...]:
    """Words of the user, short enough to be repeated."""
    return tuple(word[:60] for word in words[:10])
