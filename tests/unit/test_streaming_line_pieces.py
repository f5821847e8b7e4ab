"""Pieces of a file: whole lines, all of them, once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from matih_ray.errors import SourceChangedError, StreamRowError
from matih_ray.kernels import PADDING
from matih_ray.streaming.connectors import line_pieces
from matih_ray.streaming.connectors.line_pieces import pieces_of


@pytest.mark.parametrize("seed", range(30))
def test_pieces_are_whole_lines(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chance = random.Random(seed)
    monkeypatch.setattr(line_pieces, "PIECE_BYTES", chance.choice([1, 7, 64, 1000]))
    monkeypatch.setattr(line_pieces, "_STEP_BYTES", chance.choice([1, 5, 100]))
    lines = [b"x" * chance.randrange(chance.choice([2, 50, 300])) for _ in range(100)]
    whole = b"\n".join(lines) + b"\n" * chance.randrange(2)
    path = tmp_path / "lines"
    path.write_bytes(whole)
    pieces = list(pieces_of(path))
    found = [bytes(piece.padded()) for piece in pieces]
    assert all(one.endswith(PADDING) for one in found)
    texts = [one[: -len(PADDING)] for one in found]
    assert b"".join(texts) == whole
    assert all(text.endswith(b"\n") for text in texts[:-1])
    least = line_pieces.PIECE_BYTES
    assert all(len(text) >= least for text in texts[:-1])


def test_an_empty_file_has_none(tmp_path: Path):
    (tmp_path / "empty").touch()
    assert list(pieces_of(tmp_path / "empty")) == []


def test_a_line_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(line_pieces, "PIECE_BYTES", 10)
    monkeypatch.setattr(line_pieces, "MAX_LINE_BYTES", 20)
    monkeypatch.setattr(line_pieces, "_STEP_BYTES", 4)
    path = tmp_path / "lines"
    path.write_bytes(b"short\n" + b"x" * 100 + b"\n")
    with pytest.raises(StreamRowError, match="longer than 20 bytes"):
        list(pieces_of(path))


def test_a_file_that_became_shorter_is_told_of(tmp_path: Path):
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\n")
    (piece,) = pieces_of(path)
    path.write_bytes(b"one\n")
    with pytest.raises(SourceChangedError, match="became shorter"):
        piece.padded()
