"""NATS user keys: their text form and the signature a server asks for; the roles' event keys live elsewhere.

An nkey is Ed25519 behind a base32 coat: prefix bytes that say what it is, the 32 bytes, and a CRC-16.
"""

import base64
import binascii
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bus.disk import make_directory, write_once
from contracts.errors import InvalidInput, NotFound

_USER = 20 << 3
_SEED = 18 << 3


@dataclass(frozen=True, slots=True)
class UserKey:
    """A NATS user: the seed is the secret, `public` is what a server's configuration names."""

    seed: str = field(repr=False)
    public: str

    def sign(self, nonce: str) -> bytes:
        """The answer to a server's nonce, base64 as the protocol wants it."""
        return base64.b64encode(_private(self.seed).sign(nonce.encode()))


def mint(chance: Callable[[int], bytes] = os.urandom) -> UserKey:
    """A new user with a fresh key pair, drawn from `chance`."""
    raw = chance(32)
    return from_seed(_coat(bytes([_SEED | _USER >> 5, (_USER & 31) << 3]) + raw))


def from_seed(seed: str) -> UserKey:
    """The user of a seed ("SU...")."""
    public = _private(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return UserKey(seed, _coat(bytes([_USER]) + public))


def check_public(public: str) -> str:
    """`public` itself, if it is the public key of a user ("U...")."""
    raw = _bare(public)
    if len(raw) != 33 or raw[0] != _USER:
        raise InvalidInput(f"{public!r} is no public NATS user key.", cure="It starts with U and has 56 characters.")
    return public


def read(path: Path) -> UserKey:
    """The user whose seed a file holds: a bare seed, or a credentials file with the seed between its markers."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise NotFound(f"There is no key file {str(path)!r}.", cure="`swarm up` makes the keys of a home.") from None
    for line in text.splitlines():
        if line.startswith("SU"):
            return from_seed(line.strip())
    raise InvalidInput(f"{str(path)!r} holds no NATS user seed.", cure="A user seed is one line that starts with SU.")


def keep(path: Path, chance: Callable[[int], bytes] = os.urandom) -> UserKey:
    """The user whose seed is in the file `path` (mode 0600); the first call makes the file."""
    if not path.exists():
        make_directory(path.parent)
        with suppress(FileExistsError):  # somebody else was first: theirs is the one that counts
            write_once(path, f"{mint(chance).seed}\n".encode())
    return read(path)


def _private(seed: str) -> Ed25519PrivateKey:
    raw = _bare(seed)
    if len(raw) != 34 or raw[0] & 0xF8 != _SEED or (raw[0] & 7) << 5 | raw[1] >> 3 != _USER:
        raise InvalidInput("This is no seed of a NATS user.", cure="It starts with SU and has 58 characters.")
    return Ed25519PrivateKey.from_private_bytes(raw[2:])


def _coat(raw: bytes) -> str:
    # NATS uses CRC-16/XMODEM, little-endian, which is what binascii computes.
    check = binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw + check).decode().rstrip("=")


def _bare(text: str) -> bytes:
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        raise InvalidInput("This is no NATS key: it is not base32.", cure="Copy the whole line.") from None
    if len(raw) < 3 or binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") != raw[-2:]:
        raise InvalidInput("This is no NATS key: its checksum does not fit.", cure="Copy the whole line.")
    return raw[:-2]
