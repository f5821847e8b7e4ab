"""The transcript in the documentation is what the program says today."""

from __future__ import annotations

from tests.agent.transcript import PAGE, page


def test_the_transcript_is_fresh():
    assert PAGE.read_text() == page(), "run `python -m tests.agent.transcript`"
