// Judges payloads by the schemas of an AsyncAPI document. Stdin: {document, samples: [{message, payload}]}; it prints
// {checked, failures: [{message, errors}]}.
import { Parser } from "@asyncapi/parser";
import Ajv from "ajv";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { document: text, samples } = JSON.parse(Buffer.concat(chunks).toString());

const { document } = await new Parser().parse(JSON.stringify(text));
const messages = new Map(document.components().messages().all().map((one) => [one.name(), one]));
const ajv = new Ajv({ strict: false, allErrors: true });
const failures = [];
for (const { message, payload } of samples) {
  const validate = ajv.compile(messages.get(message).payload().json());
  if (!validate(payload)) failures.push({ message, errors: validate.errors });
}
console.log(JSON.stringify({ checked: samples.length, failures }));
