/**
 * Where every test takes its device from.
 *
 * A test runs on each backend of one table: WASM, WebGPU as `openDevice` finds it, and WebGPU on a
 * device of our own without any feature, which is the portable rung of kernels. WebGPU is the
 * runtime's own, or Dawn from npm with `KVASIR_GPU=dawn`. Where there is no adapter, the WebGPU
 * tests are ignored, and one line says so; `REQUIRE_GPU=1` makes that a failure.
 *
 * Around each test: no GPU error may go uncaptured, and no tensor may be left alive.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type Device, openDevice } from "@kvasir/attention";
import type { KvasirDevice } from "../../src/device.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import { putDawnOnNavigator } from "../../tools/dawn.ts";

/** The rows of the table. */
export type BackendName = "wasm" | "webgpu" | "webgpu, portable rung";

/** An adapter to open devices with, or null where there is none. */
export const adapter: GPUAdapter | null = await findAdapter();

const uncaptured: string[] = [];
const gpuDevices: GPUDevice[] = [];
if (adapter) watchDevicesOf(adapter);
else announceMissingAdapter();

async function findAdapter(): Promise<GPUAdapter | null> {
  if (Deno.env.get("KVASIR_GPU") === "dawn") await putDawnOnNavigator();
  return await navigator.gpu?.requestAdapter() ?? null;
}

/** Notes every device that is opened, by whomever, and the errors that no scope of it caught. */
function watchDevicesOf(adapter: GPUAdapter): void {
  const prototype: GPUAdapter = Object.getPrototypeOf(adapter);
  const { requestDevice } = prototype;
  prototype.requestDevice = async function (descriptor?: GPUDeviceDescriptor) {
    const device = await requestDevice.call(this, descriptor);
    device.addEventListener("uncapturederror", (event) => {
      uncaptured.push((event as GPUUncapturedErrorEvent).error.message);
    });
    gpuDevices.push(device);
    return device;
  };
}

/** Says once a process that WebGPU is not tested; test files share nothing but the environment. */
function announceMissingAdapter(): void {
  const message = "no WebGPU adapter: the WebGPU tests do NOT run. On Debian, install " +
    "mesa-vulkan-drivers; REQUIRE_GPU=1 makes this a failure.";
  if (Deno.env.get("REQUIRE_GPU") === "1") throw new Error(message);
  if (Deno.env.get("KVASIR_TESTS_ANNOUNCED")) return;
  Deno.env.set("KVASIR_TESTS_ANNOUNCED", "1");
  console.error(`\n*** ${message} ***\n`);
}

const OPEN: Readonly<Record<BackendName, () => Promise<Device>>> = {
  "wasm": () => openDevice({ backend: "wasm" }),
  "webgpu": () => openDevice({ backend: "webgpu" }),
  "webgpu, portable rung": async () => openDevice({ gpuDevice: await openGpuDevice() }),
};

/** A `GPUDevice` of our own, with no feature switched on. */
export async function openGpuDevice(): Promise<GPUDevice> {
  // An adapter gives one device only, so each needs its own.
  const fresh = await navigator.gpu.requestAdapter();
  assert.ok(fresh, "the adapter has gone");
  return await fresh.requestDevice();
}

/** The backends, in the order in which tests run. */
export const BACKENDS = Object.keys(OPEN) as readonly BackendName[];

/** Whether a backend can run here. */
export function isAvailable(name: BackendName): boolean {
  return name === "wasm" || adapter !== null;
}

/** Opens a device that the test owns. */
export function openOn(name: BackendName): Promise<Device> {
  return OPEN[name]();
}

/** One device a backend and test file: opening one compiles shaders. */
const shared = new Map<BackendName, Device>();

Deno.test.afterAll(async () => {
  for (const device of shared.values()) device.destroy();
  for (const device of gpuDevices) device.destroy();
  // Dawn crashes where a device is still going away when the file's isolate does.
  await Promise.all(gpuDevices.map((device) => device.lost));
  assert.deepEqual(uncaptured, [], "GPU errors that nobody caught");
});

/** What a test does with its device. */
export type DeviceTest = (device: Device, name: BackendName) => Promise<void>;

/** Registers a test on every backend, or on those of `only`. */
export function onEachBackend(
  title: string,
  test: DeviceTest,
  only: readonly BackendName[] = BACKENDS,
): void {
  for (const name of only) {
    Deno.test({
      name: `${title} [${name}]`,
      ignore: !isAvailable(name),
      sanitizeOps: true,
      sanitizeResources: true,
      fn: () => runOn(name, test),
    });
  }
}

/** Registers a test that opens devices of its own, where there is an adapter. */
export function gpuTest(title: string, test: () => Promise<void>): void {
  Deno.test({
    name: `${title} [webgpu]`,
    ignore: adapter === null,
    sanitizeOps: true,
    sanitizeResources: true,
    fn: async () => {
      await test();
      await checkNoGpuErrors();
    },
  });
}

async function runOn(name: BackendName, test: DeviceTest): Promise<void> {
  const device = shared.get(name) ?? await openOn(name);
  // Until the test has passed, it is not known whether the next one can have this device.
  shared.delete(name);
  try {
    await test(device, name);
    await settle(device);
    await checkNoGpuErrors();
    assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 }, "tensors left alive");
    shared.set(name, device);
  } finally {
    if (!shared.has(name)) device.destroy();
  }
}

/** Waits for what a loop of reads leaves under way, which sanitizers would call a leak. */
async function settle(device: Device): Promise<void> {
  const { readback } = (device as KvasirDevice).engine as Partial<WebGpuBackend>;
  await readback?.settled();
}

async function checkNoGpuErrors(): Promise<void> {
  // Errors are reported in a later task than the call that made them.
  await new Promise((resolve) => setTimeout(resolve, 0));
  assert.deepEqual(uncaptured.splice(0), [], "GPU errors that nobody caught");
}
