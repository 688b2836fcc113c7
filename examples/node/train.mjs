// Requests a training and follows its events, with nothing but a NATS client and JSON.
//
//     npm install
//     node train.mjs CREDS [REQUEST.json]
//
// CREDS is the file that `swarm status --json` names as `creds`. Exit code: 0 completed, 1 not completed, 2 refused.
import { readFileSync } from "node:fs";
import { connect, nkeyAuthenticator } from "@nats-io/transport-node";

const [credsFile, requestFile = new URL("request.json", import.meta.url)] = process.argv.slice(2);
if (!credsFile) {
  console.error("usage: node train.mjs CREDS [REQUEST.json]");
  process.exit(2);
}
const creds = JSON.parse(readFileSync(credsFile, "utf8"));
const bus = await connect({
  servers: creds.url,
  authenticator: nkeyAuthenticator(new TextEncoder().encode(creds.seed)),
});

/** Ask the front desk; the answer is an object, with `error` in it when it is no. */
async function command(verb, body, seconds = 10) {
  const reply = await bus.request(`swarm.cmd.${verb}`, body, { timeout: seconds * 1000 });
  return reply.json();
}

/** Every event of a session, in order, each once, until the session has ended. */
async function* follow(session) {
  for (let after = 0, ended = false; !ended; ) {
    // A long poll: the desk answers when there is something new, or after 20 seconds.
    const page = await command("events", JSON.stringify({ session, after, wait: 20 }), 30);
    if (page.error) throw new Error(page.error.message);
    yield* page.events;
    ({ next: after, ended } = page);
  }
}

const accepted = await command("train", readFileSync(requestFile));
if (accepted.error) {
  const { code, message, cure, problems = [{ path: "", message, cure }] } = accepted.error;
  console.error(`refused: ${code}`);
  for (const one of problems) console.error(`  ${one.path || "request"}: ${one.message} (${one.cure})`);
  process.exitCode = 2;
} else {
  console.log(`session ${accepted.session}`);
  for await (const event of follow(accepted.session)) {
    console.log(`${String(event.seq).padStart(5)}  ${event.lane.padEnd(18)} ${event.name}`);
  }
  const { state, metrics } = await command("session", JSON.stringify({ session: accepted.session }));
  console.log(state, JSON.stringify(metrics));
  process.exitCode = state === "completed" ? 0 : 1;
}
await bus.close();
