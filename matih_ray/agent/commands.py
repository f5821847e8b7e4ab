"""Words that mean the same in every state. Only whole messages count, so that no field is lost."""

from __future__ import annotations

import re
from enum import Enum


class Command(str, Enum):
    """What can be said anywhere."""

    HELP = "help"
    BACK = "back"
    START_OVER = "start over"
    CANCEL = "cancel"
    RETRY = "retry"
    SHOW = "show"
    YES = "yes"


_PHRASES = {
    Command.HELP: "help|help me|\\?|what can i (?:do|say)|how does this work|i need help|i'?m lost|"
    "what now|what are my options",
    Command.BACK: "(?:go )?back|previous|go back one step|undo|step back|one step back",
    Command.START_OVER: "start over|start again|restart|reset|begin again|from the beginning|"
    "start from scratch|start fresh|let'?s start over",
    Command.CANCEL: "cancel|quit|exit|stop|abort|never ?mind|forget it|bye|"
    "cancel (?:it|this|that|everything)|i changed my mind",
    Command.RETRY: "retry|try again|again|try once more|test again|look again|rerun|re-?try it|"
    "test it again|try it again",
    Command.SHOW: "show|status|where (?:am i|are we)|what do you (?:know|have)|summary|review",
    Command.YES: "yes|y|ok|okay|yep|yeah|sure|fine|good|looks? (?:good|fine|right|ok)|go|go ahead|"
    "start|run|run it|execute|do it|confirm|confirmed|proceed|continue|next|perfect|great|"
    "sounds good|that'?s (?:fine|right|good|ok|correct)|all good|start it|launch|ship it|lgtm|"
    "as suggested|yes please|let'?s go|correct|accept|approve|approved|make it so|go for it",
}
_PATTERNS = {
    command: re.compile(
        rf"(?:please |ok,? |yes,? )*(?:{phrases})(?:,? (?:please|now|thanks))*", re.IGNORECASE
    )
    for command, phrases in _PHRASES.items()
}


def command_in(text: str) -> Command | None:
    """The command that a whole message is, if it is one."""
    plain = " ".join(text.split()).rstrip(".! ")
    plain = plain if plain == "?" else plain.rstrip("? ")
    return next((c for c, pattern in _PATTERNS.items() if pattern.fullmatch(plain)), None)
