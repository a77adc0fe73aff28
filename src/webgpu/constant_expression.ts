/**
 * Evaluates the whole-number expressions of loop headers, such as `VALUES >> (s + 1u)`.
 *
 * @module
 */

const TOKEN = /\s*(?:(\d+)u?|([A-Za-z_]\w*)|(>>|<<|[-+*/()]))/y;

/** Operators by how tightly they bind, the loosest first. WGSL wants parentheses around shifts. */
const LEVELS: readonly Readonly<Record<string, (a: number, b: number) => number>>[] = [
  { ">>": (a, b) => Math.floor(a / 2 ** b), "<<": (a, b) => a * 2 ** b },
  { "+": (a, b) => a + b, "-": (a, b) => a - b },
  { "*": (a, b) => a * b, "/": (a, b) => Math.floor(a / b) },
];

/**
 * The value of `expression`.
 *
 * @param expression Whole numbers, names, `+ - * / << >>` and parentheses.
 * @param constants Values of the names.
 */
export function evaluate(expression: string, constants: Readonly<Record<string, number>>): number {
  const fail = (what: string): never => {
    throw new ReferenceError(`${JSON.stringify(expression.trim())}: ${what}`);
  };
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  const source = expression.trim();
  while (TOKEN.lastIndex < source.length) {
    const at = TOKEN.lastIndex;
    const match = TOKEN.exec(source);
    if (!match) return fail(`${JSON.stringify(source.slice(at))} is not understood`);
    tokens.push(match[1] ?? match[2] ?? match[3]);
  }
  let position = 0;
  const primary = (): number => {
    const token = tokens[position++];
    if (token === undefined) return fail("it ends too early");
    if (token === "(") {
      const value = level(0);
      if (tokens[position++] !== ")") fail("a parenthesis is not closed");
      return value;
    }
    const value = /^\d/.test(token) ? Number(token) : constants[token];
    return Number.isInteger(value) ? value : fail(`${token} is not a known whole number`);
  };
  const level = (depth: number): number => {
    if (depth === LEVELS.length) return primary();
    let value = level(depth + 1);
    for (let op = LEVELS[depth][tokens[position]]; op; op = LEVELS[depth][tokens[position]]) {
      position++;
      value = op(value, level(depth + 1));
    }
    return value;
  };
  const value = level(0);
  return position === tokens.length ? value : fail(`${tokens[position]} is one too many`);
}
