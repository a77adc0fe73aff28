/**
 * Dawn (npm `webgpu`) as the WebGPU of a process, under Deno or Node, so that the library finds it
 * where it always looks.
 *
 * @module
 */

import { createRequire } from "node:module";
import { resolve } from "node:path";
import process from "node:process";

/** The part of npm `webgpu` that is used here. */
interface DawnModule {
  create(options: string[]): GPU;
  readonly globals: Record<string, unknown>;
}

/**
 * Puts Dawn on `navigator.gpu`. `DAWN_NODE` names its addon on a machine that has no network; else it
 * is the npm package.
 */
export async function putDawnOnNavigator(): Promise<void> {
  const isDeno = "deno" in process.versions;
  // Not a literal: who does not ask for Dawn need not have its 100 MB.
  const specifier = isDeno ? "npm:webgpu@0.6.2" : "webgpu";
  const addon = process.env.DAWN_NODE;
  const { create, globals }: DawnModule = addon
    ? createRequire(import.meta.url)(resolve(addon))
    : await import(specifier);
  Object.assign(globalThis, globals);
  if (isDeno) {
    // Dawn asks for its events in every turn of the loop, each of which costs Deno more than the
    // last; a compilation of a second took minutes.
    const setImmediate = (poll: () => void) => setTimeout(poll, 1);
    Object.assign(globalThis, { setImmediate });
  }
  // timestamp-query and subgroups on software adapters count as unsafe.
  const gpu = create(["backend=vulkan", "enable-dawn-features=allow_unsafe_apis"]);
  // Node has a navigator from version 21 on.
  if (!globalThis.navigator) {
    Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
  }
  Object.defineProperty(navigator, "gpu", { value: gpu, configurable: true });
}
