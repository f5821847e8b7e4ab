"""The transcript among the examples is what the program says today, and holds all it can say."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path
from types import CodeType, FrameType

from matih_ray.agent import sentences
from tests.agent import transcript
from tests.agent.transcript import PAGE, page

AGENT = Path(sentences.__file__).parent
# Of these files, texts go to operators or to a model, not to users.
NOT_SAID = {"sentences.py", "model.py", "sessions_redis.py", "masking.py"}


def test_the_transcript_is_fresh():
    assert PAGE.read_text() == page(), "run `python -m tests.agent.transcript`"


def test_every_sentence_is_in_the_transcript():
    text = page()
    said = {name: value for name, value in vars(sentences).items() if isinstance(value, str)}
    said |= {f"_HELP {state}": value for state, value in sentences._HELP.items()}
    said |= {f"_CAUSES {type_}": value for type_, value in sentences._CAUSES.items()}
    del said["__name__"], said["__doc__"], said["__file__"], said["__cached__"]
    del said["__package__"]
    missing = [name for name, value in said.items() if value.strip() not in text]
    assert not missing


def test_every_line_that_makes_a_sentence_is_run_for_the_transcript():
    seen: set[int] = set()

    def tracer(frame: FrameType, event: str, _: object):
        if frame.f_code.co_filename != sentences.__file__:
            return None
        if event == "line":
            seen.add(frame.f_lineno)
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        importlib.reload(transcript).page()
    finally:
        sys.settrace(before)
    assert not sorted(lines_of_functions() - seen)


def lines_of_functions() -> set[int]:
    found: set[int] = set()
    for value in vars(sentences).values():
        code = getattr(value, "__code__", None)
        if isinstance(code, CodeType) and code.co_filename == sentences.__file__:
            found |= {line for _, _, line in code.co_lines() if line} - {code.co_firstlineno}
    return found


def test_no_other_module_of_the_agent_holds_a_sentence():
    """A sentence is five words in a row, with a space between, that is no pattern."""
    found = []
    for path in AGENT.glob("*.py"):
        if path.name in NOT_SAID:
            continue
        tree = ast.parse(path.read_text())
        raised = [ast.walk(node) for node in ast.walk(tree) if isinstance(node, ast.Raise)]
        skipped = {id(part) for parts in raised for part in parts}
        skipped |= {
            id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
        }  # documentation
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and id(node) not in skipped and re.search(r"(?:[a-z]{2,} ){4}", node.value):
                found.append(f"{path.name}: {node.value[:60]}")
    assert not found
