/**
 * onnxruntime-web's GroupQueryAttention on the same GPU, in the same process: the peer of the decode and
 * the prefill kernels. It has a GPUDevice of its own without subgroups: where a device has them, its shaders say
 * `enable subgroups;`, which naga does not know.
 *
 * Its passes are timed by timestamps that are put into every compute pass which it begins.
 *
 * @module
 */

import { MAP_MODE_READ, USAGE } from "../../src/webgpu/flags.ts";
import { firstLine } from "../bench_error.ts";
import { decodeBytes, decodeFlops } from "../gpu/decode_cases.ts";
import { prefillBytes, prefillFlops } from "../gpu/prefill_cases.ts";
import { repeatInto } from "../gpu/inputs.ts";
import { type BenchLine, type BenchShape, samples } from "../results.ts";
import { groupQueryAttention, ONNX_TYPE } from "./onnx_model.ts";
import { loadOnnxRuntime, type OnnxRuntime } from "./ort_load.ts";

/** Timestamps of one run: two a pass. */
const QUERIES = 256;
const RUNS = 5;

/** Puts timestamps into the passes that others begin on a device. */
class PassTimer {
  readonly #device: GPUDevice;
  readonly #querySet: GPUQuerySet;
  readonly #begin: GPUCommandEncoder["beginComputePass"];
  readonly #prototype: GPUCommandEncoder;
  #used = 0;
  isOn = false;

  constructor(device: GPUDevice) {
    this.#device = device;
    this.#querySet = device.createQuerySet({ type: "timestamp", count: QUERIES });
    this.#prototype = Object.getPrototypeOf(device.createCommandEncoder());
    const begin = this.#begin = this.#prototype.beginComputePass;
    // deno-lint-ignore no-this-alias
    const timer = this;
    this.#prototype.beginComputePass = function (descriptor?: GPUComputePassDescriptor) {
      if (!timer.isOn || timer.#used + 2 > QUERIES) return begin.call(this, descriptor);
      const first = timer.#used;
      timer.#used += 2;
      const timestampWrites = {
        querySet: timer.#querySet,
        beginningOfPassWriteIndex: first,
        endOfPassWriteIndex: first + 1,
      };
      return begin.call(this, { ...descriptor, timestampWrites });
    };
  }

  /** Microseconds in passes since the last call. */
  async take(): Promise<number> {
    const count = this.#used;
    this.#used = 0;
    if (count === 0) return 0;
    const device = this.#device;
    const resolved = device.createBuffer({
      size: 8 * count,
      usage: USAGE.QUERY_RESOLVE | USAGE.COPY_SRC,
    });
    const staging = device.createBuffer({
      size: 8 * count,
      usage: USAGE.MAP_READ | USAGE.COPY_DST,
    });
    const encoder = device.createCommandEncoder();
    encoder.resolveQuerySet(this.#querySet, 0, count, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, staging, 0, 8 * count);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(MAP_MODE_READ);
    const stamps = new BigUint64Array(staging.getMappedRange());
    let nanoseconds = 0;
    for (let i = 0; i < count; i += 2) nanoseconds += Number(stamps[i + 1] - stamps[i]);
    staging.destroy();
    resolved.destroy();
    return nanoseconds / 1000;
  }

  destroy(): void {
    this.#prototype.beginComputePass = this.#begin;
    this.#querySet.destroy();
  }
}

/** Kept from the garbage collector: the peer asks for device.adapterInfo, at which Deno panics else. */
let adapter: GPUAdapter | null = null;

/** A device with what the peer needs; null, after a line, where there is none. */
async function openPeerDevice(): Promise<GPUDevice | null> {
  try {
    adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
    const { limits } = adapter!;
    return await adapter!.requestDevice({
      requiredFeatures: ["shader-f16", "timestamp-query"],
      requiredLimits: {
        maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
        maxBufferSize: limits.maxBufferSize,
        maxStorageBuffersPerShaderStage: 10,
        maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
        maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
        maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
      },
    });
  } catch (error) {
    console.log(`  onnxruntime-web is left out: ${firstLine(error)}`);
    return null;
  }
}

/** Times the peer's decode or prefill (float16) on each shape. */
export async function benchOnnxAttention(shapes: readonly BenchShape[]): Promise<BenchLine[]> {
  const ort = shapes.length > 0 ? await loadOnnxRuntime() : null;
  const device = ort ? await openPeerDevice() : null;
  if (!device) return [];
  const lines: BenchLine[] = [];
  const timer = new PassTimer(device);
  try {
    for (const shape of shapes) {
      try {
        lines.push(await benchShape(ort, device, timer, shape));
      } catch (error) {
        const what = `${shape.batch} x ${shape.kvLen}, ${shape.numQoHeads}/${shape.numKvHeads}`;
        const why = firstLine(error).slice(0, 120);
        console.log(`  onnxruntime-web ${what}: left out, ${why}`);
      }
    }
  } finally {
    timer.destroy();
    device.destroy();
    adapter = null;
  }
  return lines;
}

const BLOCK_BYTES = 1 << 21;

/** Halves between 0.5 and 1 in magnitude: random mantissas and signs. */
function randomHalves(device: GPUDevice): GPUBuffer {
  const buffer = device.createBuffer({ size: BLOCK_BYTES, usage: USAGE.COPY_SRC | USAGE.COPY_DST });
  // No more at once, says the interface.
  const part = new Uint16Array(1 << 15);
  for (let at = 0; at < BLOCK_BYTES; at += part.byteLength) {
    crypto.getRandomValues(part);
    for (let i = 0; i < part.length; i++) part[i] = (part[i] & 0x83ff) | 0x3800;
    device.queue.writeBuffer(buffer, at, part);
  }
  return buffer;
}

async function benchShape(
  ort: OnnxRuntime,
  device: GPUDevice,
  timer: PassTimer,
  shape: BenchShape,
): Promise<BenchLine> {
  const { batch, qoLen, kvLen, numQoHeads, numKvHeads, headDim } = shape;
  const session = await ort.InferenceSession.create(
    groupQueryAttention(numQoHeads, numKvHeads, ONNX_TYPE.float16),
    {
      executionProviders: [{ name: "webgpu", device }],
      preferredOutputLocation: "gpu-buffer",
    },
  );
  const block = randomHalves(device);
  const buffers: GPUBuffer[] = [block];
  const tensor = (dims: number[]) => {
    const bytes = 2 * dims.reduce((a, b) => a * b);
    const size = Math.max(16, bytes);
    const buffer = device.createBuffer({
      size,
      usage: USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST,
    });
    buffers.push(buffer);
    repeatInto(device, block, BLOCK_BYTES, buffer, bytes);
    return ort.Tensor.fromGpuBuffer(buffer, { dataType: "float16", dims });
  };
  try {
    const past = tensor([batch, numKvHeads, kvLen, headDim]);
    const pastV = tensor([batch, numKvHeads, kvLen, headDim]);
    const out = tensor([batch, qoLen, numQoHeads * headDim]);
    const feeds = {
      q: tensor([batch, qoLen, numQoHeads * headDim]),
      k: tensor([batch, qoLen, numKvHeads * headDim]),
      v: tensor([batch, qoLen, numKvHeads * headDim]),
      past_k: past,
      past_v: pastV,
      lengths: new ort.Tensor("int32", new Int32Array(batch).fill(kvLen - 1), [batch]),
      total: new ort.Tensor("int32", Int32Array.of(kvLen), []),
    };
    // The same tensors as past and present keep the cache in place.
    const run = () => session.run(feeds, { out, present_k: past, present_v: pastV });
    await run();
    await run();
    const times: number[] = [];
    timer.isOn = true;
    for (let i = 0; i < RUNS; i++) {
      await run();
      times.push(await timer.take());
    }
    const wanted = { shape, dtype: "float16" as const };
    const isDecode = qoLen === 1;
    return {
      family: isDecode ? "decode" : "prefill",
      library: "onnxruntime-web",
      shape,
      dtype: "float16",
      kernel: `GroupQueryAttention, onnxruntime-web ${ort.env.versions?.web ?? "1.30.0"}`,
      time: samples(times),
      bytes: isDecode ? decodeBytes(wanted) : prefillBytes(shape),
      flops: isDecode ? decodeFlops(wanted) : prefillFlops(shape),
    };
  } finally {
    timer.isOn = false;
    await timer.take();
    await session.release();
    for (const buffer of buffers) buffer.destroy();
  }
}
