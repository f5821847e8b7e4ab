"""The server's side of TDS 7.4, as much as our stand-in for SQL Server needs. Pure.

After Microsoft's open specification [MS-TDS]; numbers of sections are in the comments.
"""

from __future__ import annotations

import datetime as dt
import re
import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

# 2.2.3.1.1 types of packets
BATCH, REPLY, ATTENTION, LOGIN, PRELOGIN = 1, 4, 6, 16, 18
END_OF_MESSAGE = 1
HEADER_BYTES = 8
PACKET_BYTES = 4096
# 2.2.6.5 values of the PRELOGIN option ENCRYPTION
ENCRYPT_ON, ENCRYPT_NOT_SUPPORTED, ENCRYPT_REQUIRED = 1, 2, 3

_NULL_16, _NULL_64, _MAX = 0xFFFF, 0xFFFF_FFFF_FFFF_FFFF, 0xFFFF
# LCID 1033, ignoring case and widths, sort order 52: SQL_Latin1_General_CP1_CI_AS
_COLLATION = bytes.fromhex("0904d00034")
_DAY_1900, _DAY_1 = dt.date(1900, 1, 1), dt.date(1, 1, 1)
_DATE_BYTES = 3
# More digits than a decimal has, so that none is rounded.
_EXACT = Context(prec=60)


@dataclass(frozen=True)
class Login:
    """What a client says of itself."""

    user: str
    password: str
    database: str
    reads_only: bool


def packets(kind: int, payload: bytes) -> bytes:
    """A message as packets."""
    room = PACKET_BYTES - HEADER_BYTES
    pieces = [payload[i : i + room] for i in range(0, len(payload), room)] or [b""]
    out = bytearray()
    for number, piece in enumerate(pieces, 1):
        status = END_OF_MESSAGE if number == len(pieces) else 0
        out += struct.pack(">BBHHBB", kind, status, len(piece) + HEADER_BYTES, 1, number & 255, 0)
        out += piece
    return bytes(out)


def encryption_asked(prelogin: bytes) -> int:
    """The value of the client's option ENCRYPTION (2.2.6.5)."""
    place = 0
    while prelogin[place] != 0xFF:
        option, offset, _ = struct.unpack_from(">BHH", prelogin, place)
        if option == 1:
            return int(prelogin[offset])
        place += 5
    return ENCRYPT_NOT_SUPPORTED


def prelogin_reply(encryption: int) -> bytes:
    """Version 16 and what becomes of encryption."""
    return struct.pack(
        ">BHHBHHBBBHHB", 0, 11, 6, 1, 17, 1, 0xFF, 16, 0, 1000, 0, encryption
    )  # fmt: skip


def login_of(message: bytes) -> Login:
    """The fields of LOGIN7 (2.2.6.4) that matter here."""

    def text(place: int) -> bytes:
        offset, chars = struct.unpack_from("<HH", message, place)
        return message[offset : offset + chars * 2]

    scrambled = (byte ^ 0xA5 for byte in text(44))
    password = bytes((byte << 4 | byte >> 4) & 0xFF for byte in scrambled)
    return Login(
        user=text(40).decode("utf-16-le"),
        password=password.decode("utf-16-le"),
        database=text(68).decode("utf-16-le"),
        reads_only=bool(message[26] & 0x20),
    )


def logged_in(database: str) -> bytes:
    """Tokens of a login that succeeded (2.2.7.14, 2.2.7.9)."""
    name = _b_varchar("stand-in")
    ack = b"\x01" + bytes.fromhex("74000004") + name + bytes([16, 0, 3, 0xE8])
    return (
        _environment(1, _b_varchar(database) + b"\x00")
        + _environment(7, bytes([5]) + _COLLATION + b"\x00")
        + _environment(4, _b_varchar(str(PACKET_BYTES)) * 2)
        + _sized(0xAD, ack)
        + done()
    )


def routed(host: str, port: int) -> bytes:
    """Tokens that send the client to another server."""
    place = struct.pack("<BHH", 0, port, len(host)) + host.encode("utf-16-le")
    token = struct.pack("<BH", 20, len(place)) + place + b"\x00\x00"
    ack = b"\x01" + bytes.fromhex("74000004") + _b_varchar("stand-in") + bytes([16, 0, 3, 0xE8])
    return _sized(0xAD, ack) + _sized(0xE3, token) + done()


def failure(number: int, message: str, severity: int = 16) -> bytes:
    """An ERROR (2.2.7.10)."""
    text = struct.pack("<H", len(message)) + message.encode("utf-16-le")
    names = _b_varchar("stand-in") + _b_varchar("")
    return _sized(0xAA, struct.pack("<iBB", number, 1, severity) + text + names + bytes(4))


def done(rows: int | None = None, *, failed: bool = False, cancelled: bool = False) -> bytes:
    """The end of a result or of a statement without one (2.2.7.6)."""
    status = (0x10 if rows is not None else 0) | (0x02 if failed else 0)
    return struct.pack("<BHHQ", 0xFD, status | (0x20 if cancelled else 0), 0xC1, rows or 0)


def columns(described: Sequence[tuple[str, str]]) -> bytes:
    """COLMETADATA (2.2.7.4): names and T-SQL types."""
    out = bytearray(struct.pack("<BH", 0x81, len(described)))
    for name, type_ in described:
        out += struct.pack("<IH", 0, 1) + wire_type(type_).information + _b_varchar(name)
    return bytes(out)


def row(values: Sequence[Any], types: Sequence[WireType]) -> bytes:
    """ROW (2.2.7.19)."""
    parts = [type_.encode(value) for value, type_ in zip(values, types, strict=True)]
    return b"\xd1" + b"".join(parts)


@dataclass(frozen=True)
class WireType:
    """TYPE_INFO (2.2.5.6), and how a value follows it."""

    information: bytes
    encode: Callable[[Any], bytes]


def wire_type(declared: str) -> WireType:
    """How a T-SQL type travels."""
    match = re.fullmatch(r"(\w+)(?:\((\w+)(?:,\s*(\d+))?\))?", declared)
    assert match is not None, declared
    name, first, second = match.groups()
    if name in _FIXED:
        token, size, encode = _FIXED[name]
        return WireType(bytes([token, size]), _short(size, encode))
    if name in ("decimal", "numeric"):
        return _decimal(int(first or 18), int(second or 0))
    if name == "datetime2":
        return _datetime2(7 if first is None else int(first))
    if name == "date":
        return WireType(b"\x28", _short(_DATE_BYTES, _day))
    if name in ("binary", "varbinary", "image"):
        return _bytes(name, first)
    return _text(name, first)


def _short(size: int, encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    return lambda value: b"\x00" if value is None else bytes([size]) + encode(value)


def _decimal(precision: int, scale: int) -> WireType:
    size = next(n for most, n in ((9, 5), (19, 9), (28, 13), (38, 17)) if precision <= most)

    def encode(value: Decimal | int) -> bytes:
        digits = int(Decimal(value).scaleb(scale, _EXACT))
        return bytes([digits >= 0]) + abs(digits).to_bytes(size - 1, "little")

    return WireType(bytes([0x6A, size, precision, scale]), _short(size, encode))


def _datetime2(digits: int) -> WireType:
    size = 3 if digits < 3 else 4 if digits < 5 else 5

    def encode(value: dt.datetime) -> bytes:
        clock = value.replace(tzinfo=None) - dt.datetime.combine(value.date(), dt.time())
        ticks: int = clock // dt.timedelta(microseconds=1) * 10 // int(10 ** (7 - digits))
        return ticks.to_bytes(size, "little") + _day(value.date())

    return WireType(bytes([0x2A, digits]), _short(size + _DATE_BYTES, encode))


def _bytes(name: str, size: str | None) -> WireType:
    if name == "image" or size == "max":
        return WireType(struct.pack("<BH", 0xA5, _MAX), _pieces)
    token = 0xA5 if name == "varbinary" else 0xAD
    room = int(size or 1)
    return WireType(struct.pack("<BH", token, room), _long)


def _text(name: str, size: str | None) -> WireType:
    """Everything else travels as UTF-16."""

    def in_pieces(value: Any) -> bytes:
        return _pieces(None if value is None else str(value).encode("utf-16-le", "surrogatepass"))

    def whole(value: Any) -> bytes:
        return _long(None if value is None else str(value).encode("utf-16-le", "surrogatepass"))

    if size is None or size == "max" or not name.endswith("char"):
        return WireType(struct.pack("<BH", 0xE7, _MAX) + _COLLATION, in_pieces)
    return WireType(struct.pack("<BH", 0xE7, int(size) * 2) + _COLLATION, whole)


def _long(value: bytes | None) -> bytes:
    return struct.pack("<H", _NULL_16) if value is None else struct.pack("<H", len(value)) + value


def _pieces(value: bytes | None) -> bytes:
    """Partially length-prefixed (2.2.5.2.3), in one piece."""
    if value is None:
        return struct.pack("<Q", _NULL_64)
    piece = struct.pack("<I", len(value)) + value if value else b""
    return struct.pack("<Q", len(value)) + piece + bytes(4)


def _day(value: dt.date) -> bytes:
    return (value - _DAY_1).days.to_bytes(_DATE_BYTES, "little")


def _datetime(value: dt.datetime) -> bytes:
    """Days, and three-hundredths of a second."""
    clock = value - dt.datetime.combine(value.date(), dt.time())
    ticks = round(clock / dt.timedelta(seconds=1) * 300)
    return struct.pack("<iI", (value.date() - _DAY_1900).days, ticks)


def _smalldatetime(value: dt.datetime) -> bytes:
    return struct.pack("<HH", (value.date() - _DAY_1900).days, value.hour * 60 + value.minute)


def _money(value: Decimal) -> bytes:
    high, low = divmod(int(value.scaleb(4)), 2**32)
    return struct.pack("<iI", high, low)


def _packed(form: str) -> Callable[[Any], bytes]:
    return lambda value: struct.pack(form, value)


# Name: token, bytes, encoder. With NULL allowed, a value is preceded by its length.
_FIXED: dict[str, tuple[int, int, Callable[[Any], bytes]]] = {
    "tinyint": (0x26, 1, _packed("<B")),
    "smallint": (0x26, 2, _packed("<h")),
    "int": (0x26, 4, _packed("<i")),
    "bigint": (0x26, 8, _packed("<q")),
    "bit": (0x68, 1, _packed("<?")),
    "real": (0x6D, 4, _packed("<f")),
    "float": (0x6D, 8, _packed("<d")),
    "smallmoney": (0x6E, 4, lambda value: struct.pack("<i", int(value.scaleb(4)))),
    "money": (0x6E, 8, _money),
    "smalldatetime": (0x6F, 4, _smalldatetime),
    "datetime": (0x6F, 8, _datetime),
    "uniqueidentifier": (0x24, 16, lambda value: uuid.UUID(str(value)).bytes_le),
}


def _b_varchar(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("utf-16-le")


def _sized(token: int, body: bytes) -> bytes:
    return struct.pack("<BH", token, len(body)) + body


def _environment(kind: int, change: bytes) -> bytes:
    return _sized(0xE3, bytes([kind]) + change)
