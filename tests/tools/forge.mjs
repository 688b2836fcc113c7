// Tries to write a fact into the trainer's lane with a client's key, and prints what the server says to that.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { connect, nkeyAuthenticator } = createRequire(new URL("../../examples/node/", import.meta.url))(
  "@nats-io/transport-node",
);
const { url, seed } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const bus = await connect({ servers: url, authenticator: nkeyAuthenticator(new TextEncoder().encode(seed)) });

bus.publish("swarm.ev.00.00-aaaaaaaaaaaaaaaaaaaaaaaaaa.trainer.training_completed", "{}");
for await (const status of bus.status()) {
  if (status.type !== "error") continue;
  console.log(String(status.error));
  break;
}
await bus.close();
