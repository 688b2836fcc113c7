import stat
from pathlib import Path

import pytest

from bus import nkeys
from contracts.errors import InvalidInput, NotFound

# The user seed and public key that the nkeys project prints in its README.
SEED = "SUAKYRHVIOREXV7EUZTBHUHL7NUMHPMAS7QMDU3GTIUWEI5LDNOXD43IZY"
PUBLIC = "UD466L6EBCM3YY5HEGHJANNTN4LSKTSUXTH7RILHCKEQMQHTBNLHJJXT"


def test_a_seed_of_another_implementation_is_read() -> None:
    assert nkeys.from_seed(SEED).public == PUBLIC


def test_minted_keys_look_like_nkeys_and_survive_the_way_through_a_file(tmp_path: Path) -> None:
    first = nkeys.keep(tmp_path / "keys" / "trainer.seed")
    again = nkeys.keep(tmp_path / "keys" / "trainer.seed")
    assert first == again
    assert (first.seed[:2], len(first.seed)) == ("SU", 58)
    assert (first.public[:1], len(first.public)) == ("U", 56)
    assert nkeys.check_public(first.public) == first.public
    assert stat.S_IMODE((tmp_path / "keys" / "trainer.seed").stat().st_mode) == 0o600


def test_the_seed_is_not_shown() -> None:
    assert SEED not in repr(nkeys.from_seed(SEED))


@pytest.mark.parametrize("bad", ["", "SU", SEED[:-1] + "A", PUBLIC, "not base32!", SEED.lower()])
def test_what_is_no_seed_is_refused_without_being_shown(bad: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        nkeys.from_seed(bad)
    assert len(bad) < 3 or bad not in str(refused.value)


def test_a_seed_is_not_taken_for_a_public_key() -> None:
    with pytest.raises(InvalidInput, match="no public NATS user key"):
        nkeys.check_public(SEED)


def test_a_missing_or_wrong_key_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no key file"):
        nkeys.read(tmp_path / "none")
    (tmp_path / "other").write_text("hello")
    with pytest.raises(InvalidInput, match="holds no NATS user seed"):
        nkeys.read(tmp_path / "other")
