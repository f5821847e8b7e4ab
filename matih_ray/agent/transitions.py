"""Every arrow of the machine, and its drawing: `python -m matih_ray.agent.transitions`."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from matih_ray.agent.conversation import State


@dataclass(frozen=True)
class Arrow:
    """A change of state and what leads to it."""

    source: State
    target: State
    because: str


_W, _T, _G, _C, _D, _S, _Y, _R, _E = State
_UNDER_WAY = (_T, _G, _C, _D, _S, _Y, _R)

_FORWARD = (
    Arrow(_W, _T, "start"),
    Arrow(_W, _G, "type"),
    Arrow(_W, _C, "type with all fields"),
    Arrow(_T, _G, "type"),
    Arrow(_T, _C, "type with all fields"),
    Arrow(_G, _C, "all fields known"),
    Arrow(_C, _D, "test succeeded"),
    Arrow(_D, _S, "streams found"),
    Arrow(_S, _Y, "streams chosen"),
    Arrow(_Y, _R, "ok"),
    Arrow(_R, _E, "go"),
    Arrow(_R, _Y, "change loading"),
    Arrow(_Y, _S, "back"),
    Arrow(_R, _S, "change streams"),
    Arrow(_C, _G, "field missing, back"),
    Arrow(_E, _W, "cancel"),
    Arrow(_E, _T, "start over"),
)
_CORRECTED = tuple(Arrow(s, _C, "field corrected") for s in (_D, _S, _Y, _R))
_BACK = tuple(Arrow(s, _G, "back, field missing") for s in (_D, _S)) + tuple(
    Arrow(s, _G, "field missing") for s in (_Y, _R)
)
_ALWAYS = tuple(Arrow(s, _T, "start over") for s in _UNDER_WAY if s is not _T) + tuple(
    Arrow(s, _W, "cancel") for s in _UNDER_WAY
)
TRANSITIONS: tuple[Arrow, ...] = (*_FORWARD, *_CORRECTED, *_BACK, *_ALWAYS)


def drawing() -> str:
    """The machine as a Mermaid state diagram. Staying in a state is not drawn."""
    lines = ["stateDiagram-v2", "    [*] --> welcome"]
    lines += [f"    {a.source.value} --> {a.target.value}: {a.because}" for a in TRANSITIONS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(drawing())
