/**
 * Reads a result file of the bench and checks it: what the report shows, it has seen to be there.
 * The checks are by hand, since each answers with one line that names the file and the place.
 *
 * @module
 */

import { BenchError } from "../bench_error.ts";
import { type BenchResult, RESULT_VERSION } from "../results.ts";

/** Reads and checks a file. */
export async function readResult(path: string): Promise<BenchResult> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    throw new BenchError(`${path} cannot be read: ${(error as Error).message}`);
  }
  return parseResult(text, path);
}

/** Checks the text of a result; `name` is what messages call it. */
export function parseResult(text: string, name: string): BenchResult {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new BenchError(`${name} is not JSON: ${(error as Error).message}`);
  }
  if (!isRecord(value) || !("version" in value) || !("lines" in value)) {
    throw new BenchError(
      `${name} is no result of deno task bench: it has no version and no lines`,
    );
  }
  // Before all else: another version may have any shape.
  if (value.version !== RESULT_VERSION) {
    throw new BenchError(
      `${name} has version ${JSON.stringify(value.version)} of the format, ` +
        `and this report reads version ${RESULT_VERSION}: run the bench again`,
    );
  }
  checkResult(new Place(name, "", value));
  return value as unknown as BenchResult;
}

function checkResult(result: Place): void {
  if (Number.isNaN(Date.parse(result.at("date").text()))) result.at("date").fail("a date");
  for (const field of ["commit", "machine", "runtime"]) result.at(field).text();
  for (const version of result.at("versions").entries()) version.text();
  result.at("adapter").unlessNull((adapter) => {
    for (const field of ["vendor", "architecture", "device", "description"]) {
      adapter.at(field).text();
    }
    adapter.at("isFallback").truth();
  });
  result.at("shaderCompiler").unlessNull((compiler) => compiler.oneOf(["naga", "tint"]));
  result.at("limits").unlessNull((limits) => {
    // Roofs are drawn on logarithmic axes.
    for (const field of ["readGbPerSecond", "f32Tflops"]) limits.at(field).positive();
    limits.at("f16Tflops").unlessNull((rate) => rate.positive());
    for (const field of ["dispatchMicroseconds", "roundTripMicroseconds"]) {
      limits.at(field).number();
    }
  });
  for (const line of result.at("lines").items()) checkLine(line);
}

function checkLine(line: Place): void {
  for (const field of ["family", "library", "dtype", "kernel"]) line.at(field).text();
  line.at("recorded").ifThere((source) => source.text());
  line.at("shape").unlessNull((shape) => {
    const sizes = ["batch", "qoLen", "kvLen", "numQoHeads", "numKvHeads", "headDim"];
    for (const field of sizes) shape.at(field).positive();
    shape.at("kvTokens").ifThere((tokens) => tokens.positive());
  });
  checkSamples(line.at("time"));
  line.at("wall").ifThere(checkSamples);
  for (const field of ["bytes", "flops"]) line.at(field).number();
  line.at("bound").ifThere((bound) => bound.oneOf(["bandwidth", "arithmetic"]));
  for (const field of ["share", "error"]) line.at(field).ifThere((it) => it.number());
  line.at("fitsCache").ifThere((it) => it.truth());
}

function checkSamples(samples: Place): void {
  // Rates divide by the median.
  const median = samples.at("median").positive();
  if (samples.at("min").number() > median) samples.at("min").fail("at most the median");
  if (samples.at("max").number() < median) samples.at("max").fail("at least the median");
  for (const time of samples.at("raw").items()) time.number();
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value with where it stands, so that a message can name it. */
class Place {
  constructor(readonly file: string, readonly path: string, readonly value: unknown) {}

  at(field: string): Place {
    if (!isRecord(this.value)) this.fail("an object");
    const value = (this.value as Record<string, unknown>)[field];
    return new Place(this.file, this.path === "" ? field : `${this.path}.${field}`, value);
  }

  items(): Place[] {
    if (!Array.isArray(this.value)) this.fail("an array");
    return (this.value as unknown[]).map((value, i) =>
      new Place(this.file, `${this.path}[${i}]`, value)
    );
  }

  entries(): Place[] {
    if (!isRecord(this.value)) this.fail("an object");
    return Object.keys(this.value as Record<string, unknown>).map((key) => this.at(key));
  }

  unlessNull(check: (place: Place) => void): void {
    if (this.value !== null) check(this);
  }

  ifThere(check: (place: Place) => void): void {
    if (this.value !== undefined) check(this);
  }

  text(): string {
    if (typeof this.value !== "string") this.fail("a string");
    return this.value as string;
  }

  truth(): void {
    if (typeof this.value !== "boolean") this.fail("true or false");
  }

  /** JSON writes NaN and the infinities as null, so these are caught here too. */
  number(): number {
    if (typeof this.value !== "number" || !(this.value >= 0) || this.value === Infinity) {
      this.fail("a number of at least 0");
    }
    return this.value as number;
  }

  positive(): number {
    if (typeof this.value !== "number" || !(this.value > 0) || this.value === Infinity) {
      this.fail("a number above 0");
    }
    return this.value as number;
  }

  oneOf(names: readonly string[]): void {
    if (!names.includes(this.value as string)) this.fail(names.join(" or "));
  }

  fail(expected: string): never {
    const got = JSON.stringify(this.value)?.slice(0, 60) ?? "missing";
    throw new BenchError(`${this.file}: ${this.path} is ${got}, but should be ${expected}`);
  }
}
