// Asks the front desk what stdin says, [[verb, body], ...], and prints the replies as one JSON list.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { connect, nkeyAuthenticator } = createRequire(new URL("../../examples/node/", import.meta.url))(
  "@nats-io/transport-node",
);
const { url, seed } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const bus = await connect({ servers: url, authenticator: nkeyAuthenticator(new TextEncoder().encode(seed)) });

const replies = [];
for (const [verb, body] of JSON.parse(readFileSync(0, "utf8"))) {
  const reply = await bus.request(`swarm.cmd.${verb}`, JSON.stringify(body), { timeout: 10_000 });
  replies.push(reply.json());
}
console.log(JSON.stringify(replies));
await bus.close();
