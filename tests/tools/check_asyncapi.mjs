// Reads an AsyncAPI document from stdin and prints what the official parser makes of it, as one JSON object.
import { Parser } from "@asyncapi/parser";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);

const { document, diagnostics } = await new Parser().parse(Buffer.concat(chunks).toString());
console.log(
  JSON.stringify({
    version: document?.version(),
    channels: document?.channels().all().length ?? 0,
    operations: document?.operations().all().length ?? 0,
    messages: document?.components().messages().all().length ?? 0,
    diagnostics: diagnostics.map((one) => ({
      severity: ["error", "warning", "information", "hint"][one.severity],
      code: one.code,
      path: one.path.join("."),
      message: one.message,
    })),
  }),
);
