/**
 * What can be broken in the page table and in saved sequences.
 *
 * @module
 */

import { type Mutant, mutant } from "./mutant.ts";

const TABLE = ["tests/unit/page_table_test.ts"];
const SAVED = ["tests/unit/saved_sequence_test.ts"];
const ROWS = "/keeps every sequence's rows/";

/** Mutants of the pages' bookkeeping. */
export const PAGES: readonly Mutant[] = [
  mutant(
    "pages: shared pages are written to",
    "src/page_table.ts",
    "if (this.#pool.references(from) === 1) return null;",
    "return null;",
    TABLE,
    ROWS,
  ),
  mutant(
    "pages: a copy keeps the page that it replaces",
    "src/page_table.ts",
    "    this.#pool.release(from);\n",
    "",
    TABLE,
    ROWS,
  ),
  mutant(
    "pages: a copy is a row short",
    "src/page_table.ts",
    "return { from, to, tokens };",
    "return { from, to, tokens: tokens - 1 };",
    TABLE,
    ROWS,
  ),
  mutant(
    "pages: every writer of a shared page asks for a copy",
    "src/page_table.ts",
    "if (++this.#claims[page] < this.#pool.references(page)) asked++;",
    "if (1 < this.#pool.references(page)) asked++;",
    TABLE,
    ROWS,
  ),
  mutant(
    "pages: claims outlive their count",
    "src/page_table.ts",
    "this.#claims[lastPage(state)] = 0;",
    "this.#claims[lastPage(state)] |= 0;",
    TABLE,
    ROWS,
  ),
  mutant(
    "pages: truncation drops the page that it ends in",
    "src/page_table.ts",
    "const keep = Math.ceil(length / this.pageSize);",
    "const keep = Math.floor(length / this.pageSize);",
    TABLE,
    ROWS,
  ),
  mutant(
    "pages: a shared page becomes free",
    "src/page_pool.ts",
    "if (left === 0) this.#free",
    "if (left <= 1) this.#free",
    TABLE,
    ROWS,
  ),
  mutant(
    "pages: undo keeps the copy",
    "src/page_table.ts",
    "if (replaced[i] === NONE) continue;",
    "continue;",
    TABLE,
    ROWS,
  ),
  mutant(
    "pages: full last pages count as empty",
    "src/page_table.ts",
    "length - (pages.length - 1) * this.pageSize",
    "length % this.pageSize",
    TABLE,
    ROWS,
  ),
  mutant(
    "pages: a page that is another's full one counts as partly filled",
    "src/page_statistics.ts",
    "if (holders === pool.references(page)) storedTokens",
    "if (holders > 0) storedTokens",
    TABLE,
    ROWS,
  ),
  mutant(
    "saved sequences: the payload is believed",
    "src/saved_sequence.ts",
    'compare("payload", view.getUint32(48, true), crc32(payload));',
    "",
    SAVED,
  ),
  mutant(
    "saved sequences: v before k",
    "src/saved_sequence.ts",
    'const PARTS = ["k", "v", "scales"]',
    'const PARTS = ["v", "k", "scales"]',
    SAVED,
  ),
  mutant(
    "saved sequences: a checksum forgets what came before",
    "src/crc32.ts",
    "let crc = ~before;",
    "let crc = -1;",
    SAVED,
  ),
  mutant(
    "saved sequences: what follows is not seen",
    "src/saved_sequence.ts",
    "if (payload.length !== size)",
    "if (payload.length < size)",
    SAVED,
    "/cut at any length/",
  ),
];
