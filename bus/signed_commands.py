"""Signs commands, and tells from the keyring whether a signed command is what its signer wanted."""

import secrets
from collections.abc import Mapping

import orjson

from bus import subjects
from bus.keys import Signer, sign_text, split, verify_raw
from bus.port import Wire
from contracts.envelope import timestamp
from contracts.errors import NotVerified, Refused
from contracts.keyring import Key, Keyring, fingerprint
from contracts.signed_command import SignedCommand, message


def sign_command(signer: Signer, subject: str, body: bytes, deployment: str, time: str = "") -> SignedCommand:
    """The command as a request to this subject carries it; `deployment` is the fingerprint of the root key."""
    time, nonce = time or timestamp(), secrets.token_hex(16)
    signature = sign_text(signer, message(deployment, subject, time, nonce, body))
    return SignedCommand(subject=subject, body=body.decode(), time=time, nonce=nonce, signature=signature)


async def ask_signed(
    wire: Wire, signer: Signer, deployment: str, verb: str, body: Mapping[str, object], *, timeout: float
) -> bytes:
    """The reply to a command that is signed and asked as its signer, who has the right that it needs or is refused."""
    # The models of commands take long to import, and whoever signs nothing does without.
    from contracts.commands import BODIES

    right = BODIES[verb].right if verb in BODIES else "ask"
    subject = subjects.signed_command(signer.role, right, verb)
    signed = sign_command(signer, subject, orjson.dumps(body), deployment)
    return await wire.ask(subject, orjson.dumps(signed.model_dump(exclude={"subject"})), timeout=timeout)


def verify_command(signed: SignedCommand, ring: Keyring, seq: int | None = None) -> Key:
    """The key that signed; it was in force at this sequence of the stream, or is now.

    Raises `NotVerified` when the signature does not hold or is nobody's whom the subject names, and `Refused` when the
    key has ended.
    """
    named, signature = split(signed.signature)
    asked, key = subjects.parse_signed(signed.subject), ring.keys.get(named)
    if key is None or key.role != asked.signer or (seq is not None and key.since > seq):
        raise NotVerified(f"key {named} is not one of {asked.signer!r}.", cure="See who has which key: swarm keys")
    text = message(fingerprint(ring.root), signed.subject, signed.time, signed.nonce, signed.body.encode())
    try:
        verify_raw(key.public, text, signature)
    except NotVerified:
        cure = "Sign the exact bytes of the body, the subject, the time, the nonce and the root of this deployment."
        raise NotVerified(f"the signature of {asked.signer!r} does not hold for this command.", cure=cure) from None
    if key.until is not None and (seq is None or seq >= key.until):
        cure = "Use the credentials file that was written since; who was revoked is admitted again: swarm person new"
        raise Refused(f"key {named} of {asked.signer!r} has ended.", cure=cure)
    return key
