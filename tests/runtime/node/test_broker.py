"""What a host may do about a server that somebody else runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus import nkeys
from bus.rights import seed_file
from contracts.errors import Refused
from runtime.node.broker import OthersServer
from tests.bus.served import served


async def test_a_guest_is_let_in_elsewhere_once_somebody_has_added_its_user_there(tmp_path: Path) -> None:
    async with served(tmp_path) as world:
        user = nkeys.keep(seed_file(world.keys, "guest_ant"))
        broker = OthersServer(world.server.url)
        with pytest.raises(Refused, match="does not know the user of 'ant'") as refused:
            await broker.let_in("ant", user)
        assert user.public in refused.value.cure
        await world.guest("ant")
        await broker.let_in("ant", user)
