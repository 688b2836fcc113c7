"""The part of `swarm audit` that lets a swarm do it: asks for the session, shows it, and answers with its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from runtime.cli.call import Call
from runtime.cli.reach import find
from runtime.cli.verdict import page
from runtime.cli.wait import outcome
from runtime.cli.watch import followed


def refuse_own_options(root: str, anchors: tuple[str, ...], given: Mapping[str, Any]) -> None:
    """What an audit of one's own is asked by: trainers trust their homes' pins and codes, and share out their cores."""
    own = {"--root": root, "--anchor": anchors}
    own |= {f"--{name.replace('_', '-')}": given[name] for name in ("workers", "trust_code", "fresh")}
    wrong = [name for name, value in own.items() if value]
    if wrong:
        raise click.UsageError(f"{wrong[0]} is for an audit without a swarm; leave it or --in-swarm out.")


def audited(call: Call, session: str, mode: str, segments: int, seed: int | None) -> int:
    """Have the session audited, and answer as an audit without a swarm does, with the audit's own session besides."""
    own, seen, found = call.wait(_audited(call, session, mode, segments, seed))
    if found is None:
        call.result(seen, lambda: f"The audit came to no verdict: {(seen['problem'] or {}).get('message', '')}")
        return outcome(seen)
    call.result(found | {"audit": own}, lambda: _page(own, found))
    return outcome(seen)


async def _audited(
    call: Call, name: str, mode: str, segments: int, seed: int | None
) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    async with call.swarm() as found:
        body: dict[str, Any] = {"mode": mode, "segments": segments} | ({} if seed is None else {"seed": seed})
        answer = await found.command("audit", session=await find(found, name), **body)
        own = str(answer["session"])
        call.note(f"Session {own}" + (f", spans are drawn by seed {answer['seed']}" if mode == "spot" else ""))
        seen = await followed(call, found, own, None)
        verdict = None
        async for line in found.events(own):
            if line["name"] == "audit.completed" and line["understood"]:
                verdict = line["data"]["found"]
        return own, seen, verdict


def _page(own: str, found: dict[str, Any]) -> str:
    from runtime.audit import Verdict
    from runtime.replay.judged import ReplayVerdict

    kind = ReplayVerdict if "steps_checked" in found else Verdict
    return f"{page(kind.of_json(found))}\nThe audit is session {own}."
