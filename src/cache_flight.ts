/**
 * What a cache has under way on its device. Pages go back to the pool at once, and calls may overlap:
 * so pages are not read while rows are written, and not written while they are read.
 *
 * @module
 */

/** Reads and writes that have begun and not ended. */
export class CacheFlight {
  readonly #reads = new Set<Promise<unknown>>();
  readonly #writes = new Set<Promise<unknown>>();

  /** Counts `work` as a read until it settles. */
  read<T>(work: Promise<T>): Promise<T> {
    return track(this.#reads, work);
  }

  /** Counts `work` as a write until it settles. */
  write<T>(work: Promise<T>): Promise<T> {
    return track(this.#writes, work);
  }

  /** Whether pages must not be read yet. */
  get isWriting(): boolean {
    return this.#writes.size > 0;
  }

  /** Whether pages must not be given to others yet. */
  get isBusy(): boolean {
    return this.isWriting || this.#reads.size > 0;
  }

  /** Resolves when the writes of now have ended, whatever came of them. */
  async written(): Promise<void> {
    await Promise.allSettled(this.#writes);
  }

  /** Resolves when the reads and writes of now have ended, whatever came of them. */
  async landed(): Promise<void> {
    await Promise.allSettled([...this.#reads, ...this.#writes]);
  }
}

function track<T>(works: Set<Promise<unknown>>, work: Promise<T>): Promise<T> {
  const ended = () => works.delete(work);
  works.add(work);
  work.then(ended, ended);
  return work;
}
