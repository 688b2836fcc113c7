"""Every command by name: where it is and what it does, so that `--help` imports none of them."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One command: "module:attribute" below `runtime.cli`, the section it is listed in, and its one line of help."""

    target: str
    section: str
    help: str


BEGIN = "Begin"
SESSIONS = "Sessions"
EVIDENCE = "Evidence"
SWARM = "The swarm"
MORE = "Your own parts"

COMMANDS: dict[str, Entry] = {
    "init": Entry("init:init", BEGIN, "Write a request (and a workload) to start from."),
    "check": Entry("check:check", BEGIN, "Judge a request: schema, one real batch, memory and time."),
    "run": Entry("run:run", BEGIN, "Train: start the swarm if needed, submit, show progress and the outcome."),
    "submit": Entry("submit:submit", BEGIN, "Submit a request and return at once."),
    "tune": Entry("tune:tune", BEGIN, "Submit a search whose trials are sessions."),
    "fork": Entry("fork:fork", BEGIN, "Go on from the exact bits of a session, with a change or without."),
    "sessions": Entry("sessions:sessions", SESSIONS, "List the sessions, newest first."),
    "show": Entry("show:show", SESSIONS, "Show a session now, or as of one of its events."),
    "watch": Entry("watch:watch", SESSIONS, "Follow a session live until it has ended."),
    "wait": Entry("wait:wait", SESSIONS, "Wait until a session has ended."),
    "events": Entry("events:events", SESSIONS, "Print a session's events, one JSON object per line."),
    "pause": Entry("intents:pause", SESSIONS, "Ask a session to wait."),
    "resume": Entry("intents:resume", SESSIONS, "Let a paused session go on."),
    "cancel": Entry("intents:cancel", SESSIONS, "Ask a session to end now."),
    "export": Entry("export:export", SESSIONS, "Turn a session's model into a file of another format."),
    "report": Entry("report:report", SESSIONS, "Write a session's report: figures, plots, decisions, artifacts."),
    "checkpoints": Entry("checkpoints:checkpoints", SESSIONS, "List what was kept of a session, as what, and why."),
    "inspect": Entry("inspect:inspect", SESSIONS, "Show the tensors of a checkpoint and verify its roots."),
    "predict": Entry("predict:predict", SESSIONS, "Ask a session's model about rows of your own."),
    "replay": Entry("replay:replay", EVIDENCE, "Fold a session from its log and show the state at any point."),
    "audit": Entry("audit:audit", EVIDENCE, "Verify a session or a bundle: what its log says is whole and unchanged."),
    "bundle": Entry("bundle:bundle", EVIDENCE, "Write a sealed session as one file that anybody can verify."),
    "trace": Entry("trace:trace", EVIDENCE, "Show which steps saw a row, or which rows a step saw."),
    "prove": Entry(
        "prove:prove", EVIDENCE, "Show what an intervention was worth: with it and without, from the same bits."
    ),
    "diff": Entry("diff:diff", EVIDENCE, "Show in what two sessions differ, and in which window they part."),
    "anchor": Entry(
        "anchor:anchor", EVIDENCE, "Keep a session's signed root elsewhere: in a file or a git repository."
    ),
    "up": Entry("up:up", SWARM, "Start the swarm of this home."),
    "down": Entry("down:down", SWARM, "End the swarm of this home; what trains is resumed by the next `up`."),
    "status": Entry("status:status", SWARM, "Show which processes and agents run."),
    "doctor": Entry("doctor:doctor", SWARM, "Look for what is wrong here, with the cure for each finding."),
    "agents": Entry("agents:agents", SWARM, "List the agents: what each hears and says, and whether it runs."),
    "keys": Entry("keys:keys", SWARM, "List the keys that sign; give a role a new one; end one."),
    "dlq": Entry("dlq:dlq", SWARM, "Show what handlers could not do and what was not admitted; try again."),
    "agent": Entry("agent:agent", MORE, "Admit an agent of your own, or run one alone."),
    "workload": Entry("workload:workload", MORE, "Register models and data of your own."),
    "config": Entry("config:config", MORE, "Show the settings with their origin, and the schemas."),
    "asyncapi": Entry("asyncapi:asyncapi", MORE, "Print the AsyncAPI document of every channel and message."),
    "completion": Entry("completion:completion", MORE, "Print the script that completes commands in your shell."),
}
