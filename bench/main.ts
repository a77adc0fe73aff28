/**
 * The benchmarks on the command line: `deno task bench [codec] [cpu]`; without a name, all.
 */

import { parseArgs } from "node:util";
import { benchCodec } from "./codec.ts";
import { benchCpuAttention } from "./cpu_attention.ts";

const BENCHES: Readonly<Record<string, () => Promise<void>>> = {
  codec: benchCodec,
  cpu: benchCpuAttention,
};

const { positionals } = parseArgs({ allowPositionals: true });
const unknown = positionals.find((name) => !Object.hasOwn(BENCHES, name));
if (unknown !== undefined) {
  console.error(`bench: ${unknown} is unknown; there are: ${Object.keys(BENCHES).join(", ")}`);
  Deno.exit(2);
}
for (const [name, bench] of Object.entries(BENCHES)) {
  if (positionals.length === 0 || positionals.includes(name)) await bench();
}
