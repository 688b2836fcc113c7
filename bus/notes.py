"""Signed checkpoints as C2SP notes: what the ledger signs about a session's tree, as text that others can witness.

    stigmergy/00-abc...          origin
    42                           size
    CsUYapGGPo4dkMgIAUqom/...=   root, base64
    last-seq 57                  extension lines
                                 (an empty line)
    — stigmergy/00-abc... h4dkMgkJ...=   key name, base64 of key hash and signature

The text above the empty line is what is signed. Reading is strict: one note has one spelling.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from bus.keys import Signer, verify_raw
from contracts.errors import InvalidInput, NotVerified

_ED25519 = b"\x01"
_HASH, _SIGNATURE, _ROOT = 4, 64, 32
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME = re.compile(r"[!-*,-~]+")
_LINE = re.compile(r"[ -~]+")


def origin(session: str) -> str:
    """The name under which a session's tree is signed."""
    return f"stigmergy/{session}"


@dataclass(frozen=True, slots=True)
class SignedTreeHead:
    """A tree of `size` leaves with this root, under a name; `extensions` are further lines the signature covers."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """The bytes that are signed, as text with its final newline."""
        if not _NAME.fullmatch(self.origin) or len(self.root) != _ROOT or not _SIZE.fullmatch(str(self.size)):
            raise InvalidInput(f"{self!r} cannot be written as a checkpoint.")
        if not all(_LINE.fullmatch(line) for line in self.extensions):
            raise InvalidInput(f"extension lines are not empty and hold printable ASCII: {self.extensions!r}.")
        root = base64.b64encode(self.root).decode()
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), root, *self.extensions))

    def extension(self, name: str) -> str:
        """The rest of the extension line that begins with this word; empty when there is none."""
        return next((line[len(name) + 1 :] for line in self.extensions if line.startswith(f"{name} ")), "")


def key_hash(name: str, public: str) -> bytes:
    """The four bytes by which a note's signature line names its key."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + bytes.fromhex(public)).digest()[:_HASH]


def sign(checkpoint: SignedTreeHead, signer: Signer) -> str:
    """The checkpoint as a note with one signature, under the checkpoint's own name."""
    text = checkpoint.text()
    blob = key_hash(checkpoint.origin, signer.public) + signer.sign_raw(text.encode())
    return f"{text}\n— {checkpoint.origin} {base64.b64encode(blob).decode()}\n"


def parse(note: str) -> SignedTreeHead:
    """What the note says, its signature unchecked; `NotVerified` for text that `sign` would not have written so."""
    return _split(note)[0]


def verify(note: str, public: str) -> SignedTreeHead:
    """What the note says, if this key signed it; else `NotVerified`."""
    checkpoint, blob = _split(note)
    if blob[:_HASH] != key_hash(checkpoint.origin, public):
        raise NotVerified(f"the note of {checkpoint.origin} is signed by another key.")
    verify_raw(public, checkpoint.text().encode(), blob[_HASH:])
    return checkpoint


def _split(note: str) -> tuple[SignedTreeHead, bytes]:
    text, _, signature = note.partition("\n\n")
    lines = text.split("\n")
    try:
        name, size, root, *extensions = lines
        checkpoint = SignedTreeHead(name, int(size), base64.b64decode(root, validate=True), tuple(extensions))
        blob = base64.b64decode(signature.rpartition(" ")[2].rstrip("\n"), validate=True)
        written = f"{checkpoint.text()}\n— {name} {base64.b64encode(blob).decode()}\n"
    except (ValueError, binascii.Error, InvalidInput) as error:
        raise NotVerified(f"this is no signed checkpoint: {note[:80]!r} ({error}).") from None
    if written != note or len(blob) != _HASH + _SIGNATURE:
        raise NotVerified(f"the checkpoint of {name!r} is not in its canonical form.")
    return checkpoint, blob
