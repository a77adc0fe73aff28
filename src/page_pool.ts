/**
 * The pages of a KV cache: how many sequences hold each, and which are free. Pure; see `PageTable`.
 *
 * @module
 */

/** Pages with reference counts. Its callers look before they take: nothing here fails. */
export class PagePool {
  readonly numPages: number;
  /** How many sequences hold each page. */
  readonly #references: Int32Array<ArrayBuffer>;
  /** A stack, so that pages given back are the next taken: they are the warmest. */
  readonly #free: Int32Array<ArrayBuffer>;
  #numFree: number;
  #numShared = 0;

  /** All pages free; the first taken is page 0. */
  constructor(numPages: number) {
    this.numPages = numPages;
    this.#references = new Int32Array(numPages);
    this.#free = new Int32Array(numPages);
    for (let i = 0; i < numPages; i++) this.#free[i] = numPages - 1 - i;
    this.#numFree = numPages;
  }

  /** Pages that no sequence holds. */
  get numFree(): number {
    return this.#numFree;
  }

  /** Pages that more than one sequence holds. */
  get numShared(): number {
    return this.#numShared;
  }

  /** How many sequences hold a page. */
  references(page: number): number {
    return this.#references[page];
  }

  /** A free page, now held once. */
  take(): number {
    const page = this.#free[--this.#numFree];
    this.#references[page] = 1;
    return page;
  }

  /** One more sequence holds a page in use. */
  share(page: number): void {
    if (++this.#references[page] === 2) this.#numShared++;
  }

  /** One sequence less holds a page; the last makes it free. */
  release(page: number): void {
    const left = --this.#references[page];
    if (left === 1) this.#numShared--;
    if (left === 0) this.#free[this.#numFree++] = page;
  }
}
