/**
 * The benchmarks on the command line:
 *
 *     deno task bench [gpu] [codec] [cpu] [--quick] [--filter TEXT] [--no-peers] [--json FILE]
 *                     [--machine NAME]
 *     deno task bench gpu --sweep rows=2,4,8 --sweep workgroup=64,128 [--filter TEXT] [--json FILE]
 *     deno task bench gpu --variants FILE [--filter TEXT] [--json FILE]
 *     deno task bench gpu --profile FILE [--filter TEXT]
 *
 * Without a name, all of them. `--filter` keeps GPU cases whose line holds TEXT; `--no-peers` leaves
 * other libraries out. `--sweep` tries all combinations of tuning constants and ranks them,
 * `--variants` the source with edits that a file lists (bench/gpu/variants.ts); `--profile` writes a
 * Chrome trace of one call of each case.
 */

import process from "node:process";
import { bench } from "./command.ts";

// The peers and Dawn leave things running that would keep the process.
process.exit(await bench(process.argv.slice(2)));
