"""The file around the members: a ZIP archive of which one content has one spelling. It does not know what they mean.

Stored, never compressed; fixed date and attributes; ZIP64 fields always, so that size changes nothing; no comments, no
gaps. Reading goes through the file from its first byte to its last and compares every byte that is no member's with
the only one that is allowed there.
"""

import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from bus.disk import room_for
from contracts.errors import NotFound, NotVerified

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_LOCAL_SIZES = struct.Struct("<HHQQ")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_CENTRAL_SIZES = struct.Struct("<HHQQQ")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4sHHHHIIH")
_NEEDS, _MADE_BY = 45, 3 << 8 | 45
_UTF8, _DATE, _MODE = 0x0800, 0x0021, 0o100644 << 16
_MANY, _FAR = 0xFFFF, 0xFFFFFFFF
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class BundleMember:
    """One member: where its header and its bytes begin in the file, and how many these are."""

    name: str
    header: int
    offset: int
    size: int
    crc: int


def write_container(path: Path, contents: Iterable[tuple[str, bytes | Path]]) -> None:
    """Write the members in the order given; the file has its name only when it is whole."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        with room_for(path), fresh.open("wb") as file:
            members = [_put(file, name, content) for name, content in contents]
            file.write(_directory(members, file.tell()))
            file.flush()
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _put(file: BinaryIO, name: str, content: bytes | Path) -> BundleMember:
    crc, size = 0, 0
    for piece in _pieces(content):
        crc, size = zlib.crc32(piece, crc), size + len(piece)
    header = _header(name, size, crc)
    member = BundleMember(name, file.tell(), file.tell() + len(header), size, crc)
    file.write(header)
    for piece in _pieces(content):
        file.write(piece)
    if file.tell() != member.offset + size:
        raise NotVerified(f"{content!r} changed while it was bundled.", cure="Bundle again once nothing writes there.")
    return member


def _pieces(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _header(name: str, size: int, crc: int) -> bytes:
    encoded = name.encode()
    sizes = _LOCAL_SIZES.pack(1, 16, size, size)
    about = (b"PK\3\4", _NEEDS, _UTF8, 0, 0, _DATE, crc, _FAR, _FAR, len(encoded), len(sizes))
    return _LOCAL.pack(*about) + encoded + sizes


def _directory(members: Iterable[BundleMember], start: int) -> bytes:
    """The bytes behind the last member: the central directory, which repeats all headers, and its place."""
    entries = [_entry(one) for one in members]
    size, count = sum(map(len, entries)), len(entries)
    end64 = _END64.pack(b"PK\6\6", 44, _MADE_BY, _NEEDS, 0, 0, count, count, size, start)
    locator = _LOCATOR.pack(b"PK\6\7", 0, start + size, 1)
    end = _END.pack(b"PK\5\6", 0, 0, _MANY, _MANY, _FAR, _FAR, 0)
    return b"".join(entries) + end64 + locator + end


def _entry(one: BundleMember) -> bytes:
    encoded = one.name.encode()
    sizes = _CENTRAL_SIZES.pack(1, 24, one.size, one.size, one.header)
    about = (b"PK\1\2", _MADE_BY, _NEEDS, _UTF8, 0, 0, _DATE, one.crc, _FAR, _FAR)
    return _CENTRAL.pack(*about, len(encoded), len(sizes), 0, 0, 0, _MODE, _FAR) + encoded + sizes


class Container:
    """A file that `write` could have written, open for reading; `NotVerified` says where one is not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise NotFound(f"there is no file {path}.", path=str(path)) from None
        except (ValueError, OSError) as error:
            raise NotVerified(f"{path} is no bundle: {error}.", cure="Ask for the file again.") from None
        try:
            self.members: Mapping[str, BundleMember] = {one.name: one for one in self._scan()}
        except BaseException:
            self._data.close()
            raise

    def read(self, name: str) -> bytes:
        """The bytes of a member as they are in the file; `KeyError` when there is none of that name."""
        one = self.members[name]
        return self._data[one.offset : one.offset + one.size]

    def view(self, name: str) -> memoryview:
        """The bytes of a member where they lie; to be released before the file is closed."""
        one = self.members[name]
        return memoryview(self._data)[one.offset : one.offset + one.size]

    def close(self) -> None:
        """Close the file; members can no longer be read."""
        self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _scan(self) -> list[BundleMember]:
        found: list[BundleMember] = []
        place = 0
        while self._data[place : place + 4] == b"PK\3\4":
            found.append(self._member(place))
            place = found[-1].offset + found[-1].size
        listed = place
        for one in found:
            self._compare(listed, _entry(one), f"the directory's entry of {one.name!r}")
            listed += len(_entry(one))
        self._compare(place, _directory(found, place), "the end of the directory", ends=True)
        if len({one.name for one in found}) < len(found):
            raise self._broken(place, "two members have one name")
        return found

    def _member(self, place: int) -> BundleMember:
        fixed = self._data[place : place + _LOCAL.size]
        if len(fixed) < _LOCAL.size:
            raise self._broken(place, "the file ends inside a header")
        length, extra = fixed[-4] | fixed[-3] << 8, _LOCAL_SIZES.size
        raw = self._data[place + _LOCAL.size : place + _LOCAL.size + length + extra]
        try:
            name, size = raw[:length].decode(), _LOCAL_SIZES.unpack(raw[length:])[2]
        except (UnicodeDecodeError, struct.error):
            raise self._broken(place, "a header that cannot be read") from None
        offset = place + _LOCAL.size + len(raw)
        if offset + size > len(self._data):
            raise self._broken(place, f"member {name!r} is cut off")
        crc, ends = 0, offset + size
        for at in range(offset, ends, _PIECE):
            crc = zlib.crc32(self._data[at : min(at + _PIECE, ends)], crc)
        one = BundleMember(name, place, offset, size, crc)
        self._compare(place, _header(name, size, one.crc), f"the header or the content of {name!r}")
        return one

    def _compare(self, place: int, wanted: bytes, what: str, *, ends: bool = False) -> None:
        found = self._data[place:] if ends else self._data[place : place + len(wanted)]
        if found != wanted:
            at = next((n for n, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), None)
            at = min(len(found), len(wanted)) if at is None else at
            raise self._broken(place + at, f"{what} is not as it was written")

    def _broken(self, place: int, what: str) -> NotVerified:
        return NotVerified(f"byte {place}: {what}.", cure="Ask for the file again.", path=str(self.path))
