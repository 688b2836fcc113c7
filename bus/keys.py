"""Secret keys on disk, signatures over event bodies, and their verification; whose key counts is `contracts.keyring`.

A signature is Ed25519 over a fixed prefix and the SHA-256 of the body, written as KEYID:BASE64URL in one header.
Its text is canonical: a body has at most one header value that verifies under a signature's bytes.
"""

import base64
import binascii
import hashlib
import os
import re
import stat
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from bus.disk import make_directory, room_for, sync_directory, write_once
from contracts.errors import InvalidInput, NotFound, NotVerified, Refused
from contracts.keyring import fingerprint, key_id
from contracts.roles import ROOT

HEADER = "Swarm-Sig"
PREFIX = b"stigmergy/sig/1\n"

_VALUE = re.compile(r"([0-9a-f]{16}):([A-Za-z0-9_-]{86})")
_ROLE = re.compile(r"[a-z0-9_-]{1,64}")


class Signer:
    """One role's secret key; it signs and never shows itself."""

    def __init__(self, role: str, secret: Ed25519PrivateKey) -> None:
        self._secret = secret
        self.role = role
        self.public = secret.public_key().public_bytes_raw().hex()
        self.key_id = key_id(self.public)

    def __repr__(self) -> str:
        return f"Signer({self.role!r}, {self.key_id})"

    def sign(self, body: bytes) -> str:
        """The value of the signature header for this body."""
        signature = self._secret.sign(PREFIX + hashlib.sha256(body).digest())
        return f"{self.key_id}:{_text(signature)}"

    def sign_raw(self, message: bytes) -> bytes:
        """Ed25519 over exactly these bytes: for signed notes, whose format names no prefix."""
        if message.startswith(PREFIX):
            raise InvalidInput("a message that begins like an event's signature is not signed as a note.")
        return self._secret.sign(message)


def sign_text(signer: Signer, message: bytes) -> str:
    """KEYID:BASE64URL over exactly these bytes, as `split` reads it."""
    return f"{signer.key_id}:{_text(signer.sign_raw(message))}"


def pem_of(signer: Signer) -> str:
    """The secret as text, to be written where its owner alone reads it."""
    pem = signer._secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # noqa: SLF001 - this module is where the secret may be written
    return pem.decode()


def new_signer(role: str) -> Signer:
    """A key that lives in memory alone: for tests and for sessions that leave nothing behind."""
    return Signer(role, Ed25519PrivateKey.generate())


def signer_of(role: str, pem: bytes, path: Path) -> Signer:
    """The key that this text is; `path` is where it was read, for the error when it is none."""
    try:
        secret = load_pem_private_key(pem, password=None)
    except (ValueError, binascii.Error):
        secret = None
    if not isinstance(secret, Ed25519PrivateKey):
        raise NotVerified(f"{path} holds no Ed25519 key.", cure="Restore the file, or: swarm keys rotate ROLE")
    return Signer(role, secret)


def read_private(path: Path) -> bytes:
    """The content of a file of secrets; `Refused` when its mode lets others read it."""
    with path.open("rb") as file:
        _private(path, os.fstat(file.fileno()), 0o600)
        return file.read()


def split(header: str) -> tuple[str, bytes]:
    """The key id and the signature inside a header value; `NotVerified` for any spelling but the canonical one."""
    match = _VALUE.fullmatch(header)
    if match is None:
        raise NotVerified(f"signature header {header!r} is not KEYID:BASE64URL.")
    signature = base64.urlsafe_b64decode(match[2] + "==")
    if _text(signature) != match[2]:
        raise NotVerified(f"signature header {header!r} is not canonical base64url.")
    return match[1], signature


def verify(public: str, body: bytes, header: str) -> None:
    """Return if the header is this key's signature over the body, else raise `NotVerified`."""
    named, signature = split(header)
    if named != key_id(public):
        raise NotVerified(f"the signature names key {named!r}, not {key_id(public)!r}.")
    verify_raw(public, PREFIX + hashlib.sha256(body).digest(), signature)


def verify_raw(public: str, message: bytes, signature: bytes) -> None:
    """Return if these are the key's signature over exactly this message, else raise `NotVerified`."""
    try:
        _parsed(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise NotVerified(f"the signature of key {key_id(public)!r} does not hold.") from None


def _text(signature: bytes) -> str:
    return base64.urlsafe_b64encode(signature).decode().rstrip("=")


@lru_cache(maxsize=1024)
def _parsed(public: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))


class KeyStore:
    """The `keys/` directory of a home: one secret per role, readable by its owner alone, and the pinned root."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def create(self, role: str) -> Signer:
        """A new key for the role, on disk before it is returned; `Refused` when there is one already."""
        return self._keep(new_signer(role), self._path(role))

    def load(self, role: str) -> Signer:
        """The role's key; `NotFound` when there is none, `Refused` when others could have read it."""
        return self._read(role, self._path(role))

    def pem(self, role: str) -> bytes:
        """The role's private key as text, to be carried to another machine; raises as `load` does."""
        return self._secret(role, self._path(role))

    def ensure(self, role: str) -> Signer:
        """The role's key, created when there is none; two that race get the same one."""
        if not self._path(role).exists():
            try:
                return self.create(role)
            except Refused as error:
                if not self._path(role).exists():
                    raise error from None
        return self.load(role)

    def forget(self, role: str) -> None:
        """Delete the role's key: for one that was revoked, so that the next `ensure` makes another."""
        for path in (self._path(role), self._next(role)):
            path.unlink(missing_ok=True)

    def prepare(self, role: str) -> Signer:
        """The key that is to follow the role's, kept beside it until `promote`; prepared once, it stays the same."""
        if not self._next(role).exists():
            self._keep(new_signer(role), self._next(role))
        return self._read(role, self._next(role))

    def pem_to_follow(self, role: str) -> bytes:
        """The prepared key as text; raises as `load` does."""
        return self._secret(role, self._next(role))

    def awaiting(self) -> tuple[str, ...]:
        """The roles for which a key was prepared that has not taken its place yet, sorted."""
        return tuple(sorted(path.stem for path in self.directory.glob("*.next")))

    def promote(self, role: str) -> None:
        """Let the prepared key take the place of the role's, whose secret is gone then; nothing when there is none."""
        with suppress(FileNotFoundError):
            self._next(role).replace(self._path(role))
            sync_directory(self.directory)

    def holding(self, role: str, public: str) -> Signer | None:
        """The key with this public part, the role's or the one that is to follow it; None when it is not here."""
        for path in (self._next(role), self._path(role)):  # in this order, as one becomes the other meanwhile
            with suppress(NotFound):
                signer = self._read(role, path)
                if signer.public == public:
                    return signer
        return None

    def roles(self) -> tuple[str, ...]:
        """The roles that have a key here, sorted."""
        return tuple(sorted(path.stem for path in self.directory.glob("*.key")))

    def pin(self, public: str) -> str:
        """Write the fingerprint of the root's public key to `root.pub`; `Refused` when the file holds another one."""
        pinned = self.pinned()
        if pinned and pinned != fingerprint(public):
            raise Refused(
                f"{self.directory / 'root.pub'} pins root {pinned}, not {fingerprint(public)}.",
                cure="Use the home that belongs to this root, or pin the new root by hand.",
            )
        if not pinned:
            self._write_once(self.directory / f"{ROOT}.pub", f"{fingerprint(public)}\n".encode())
        return fingerprint(public)

    def pinned(self) -> str:
        """The pinned root fingerprint; empty when none is pinned."""
        path = self.directory / f"{ROOT}.pub"
        try:
            text = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""
        if not re.fullmatch(r"[0-9a-f]{64}", text):
            raise NotVerified(
                f"{path} holds no fingerprint: {text[:80]!r}.", cure="Write the 64 hex digits of the root."
            )
        return text

    def _path(self, role: str) -> Path:
        if not _ROLE.fullmatch(role):
            raise InvalidInput(f"{role!r} is not the name of a role (a-z 0-9 _ -).", path="role")
        return self.directory / f"{role}.key"

    def _next(self, role: str) -> Path:
        return self._path(role).with_suffix(".next")

    def _read(self, role: str, path: Path) -> Signer:
        return signer_of(role, self._secret(role, path), path)

    def _secret(self, role: str, path: Path) -> bytes:
        try:
            self._guard()
            return read_private(path)
        except FileNotFoundError:
            raise NotFound(
                f"there is no key for {role!r} in {self.directory}.", cure="Run `swarm up` once to create the keys."
            ) from None

    def _keep(self, signer: Signer, path: Path) -> Signer:
        self._write_once(path, pem_of(signer).encode())
        return signer

    def _guard(self) -> None:
        _private(self.directory, self.directory.stat(), 0o700)

    def _write_once(self, path: Path, content: bytes) -> None:
        make_directory(self.directory, 0o700)
        self._guard()
        try:
            with room_for(path):
                write_once(path, content)
        except FileExistsError:
            raise Refused(f"{path} exists already.", cure="Load it, or: swarm keys rotate ROLE") from None


def _private(path: Path, status: os.stat_result, wanted: int) -> None:
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise Refused(
            f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}).",
            cure=f"Run `chmod {wanted:o} {path}`; if others may have read it: swarm keys rotate ROLE",
            path=str(path),
        )
    if status.st_uid != os.geteuid():
        raise Refused(f"{path} belongs to user {status.st_uid}, not to you.", cure="Run as its owner.", path=str(path))
