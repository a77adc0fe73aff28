/**
 * The self-test of FP8 decoding: a device whose fast way gets codes wrong is worked around, and one
 * that has no exact way refuses FP8 and goes on with the rest.
 */

import assert from "node:assert/strict";
import {
  dequantize,
  type Device,
  type DType,
  openDevice,
  ShaderError,
  singleDecodeWithKvCache,
} from "@kvasir/attention";
import { shaders } from "../../src/generated/shaders.js";
import { gpuTest, openGpuDevice } from "../support/device.ts";

/** As a device would that loses the lowest bit of a code. */
function withoutLowestBit(text: string): string {
  return text.replace(
    /fn decode_quad\((\w+): Quad\)([^{]*)\{/,
    (_, name, type) => `fn decode_quad(all: Quad)${type}{ let ${name} = all & 0xfefefefeu;`,
  );
}

/** Opens a device whose shaders are broken in the given files, and hands it to `test`. */
async function onBrokenDevice(
  files: readonly string[],
  test: (device: Device) => Promise<void>,
  edit: (text: string) => string = withoutLowestBit,
) {
  const texts = shaders as Record<string, string>;
  const saved = files.map((file) => texts[file]);
  for (const file of files) {
    const broken = edit(texts[file]);
    assert.notEqual(broken, texts[file], `${file} was not broken`);
    texts[file] = broken;
  }
  try {
    using device = await openDevice({ backend: "webgpu" });
    await test(device);
  } finally {
    files.forEach((file, i) => texts[file] = saved[i]);
  }
}

function choice(device: Device, dtype: DType) {
  const found = device.report.kernels.find(({ family }) => family === `decoding of ${dtype}`);
  assert.ok(found, `the report does not say how ${dtype} is decoded`);
  return found;
}

async function decodeOnes(device: Device, dtype: DType) {
  using q = device.tensor(new Float32Array(8), [1, 8], "float32");
  // 1.125 needs the lowest bit of an e4m3 code, 1.25 that of e5m2.
  const value = dtype === "float8_e4m3fn" ? 1.125 : 1.25;
  using kv = device.tensor(new Float32Array(24).fill(value), [3, 1, 8], dtype);
  using out = await singleDecodeWithKvCache(q, kv, kv);
  assert.deepEqual([...await out.read()], new Array(8).fill(value));
}

/** What an FP8 query makes of two keys, of which the second is larger in all dims. */
async function attendWithQuery(device: Device, dtype: DType): Promise<number[]> {
  const ones = new Float32Array(8).fill(1.125);
  using q = device.tensor(ones, [1, 8], dtype);
  using k = device.tensor([...ones, ...ones.map((x) => 100 * x)], [2, 1, 8], "float32");
  using v = device.tensor([...new Float32Array(8), ...ones], [2, 1, 8], "float32");
  using out = await singleDecodeWithKvCache(q, k, v, { outDtype: "float32" });
  return [...await out.read()];
}

const FORMATS = [["float8_e4m3fn", "e4m3"], ["float8_e5m2", "e5m2"]] as const;

/** The files of a format's ways. */
const filesOf = (name: string, ways: readonly string[] = ["halves", "bits", "table"]) =>
  ways.map((way) => `formats/${name}_${way}`);

for (const [dtype, name] of FORMATS) {
  gpuTest(`a device that decodes ${dtype} wrongly is worked around`, async () => {
    for (const [wrong, left] of [[["halves"], "bits"], [["halves", "bits"], "table"]] as const) {
      await onBrokenDevice(filesOf(name, wrong), async (device) => {
        const { variant, reason } = choice(device, dtype);
        assert.equal(variant, `formats/${name}_${left}`);
        for (const way of wrong) {
          assert.match(reason, new RegExp(`formats/${name}_${way} gets \\d+ codes wrong`));
        }
        await decodeOnes(device, dtype);
      });
    }
  });

  gpuTest(
    `a device with no exact way to decode ${dtype} refuses it, and nothing else`,
    async () => {
      await onBrokenDevice(filesOf(name), async (device) => {
        assert.equal(choice(device, dtype).variant, "none");
        await assert.rejects(decodeOnes(device, dtype), ShaderError);
        await assert.rejects(attendWithQuery(device, dtype), ShaderError);
        using codes = device.empty([8], dtype);
        await assert.rejects(dequantize(codes, "float32"), ShaderError);
        await decodeOnes(device, "float16");
        assert.equal(device.report.memory.tensors, 1, "a refused call leaves tensors behind");
      });
    },
  );

  gpuTest(`a way to decode ${dtype} that does not compile is worked around`, async () => {
    const edit = (text: string) =>
      `${text}\nfn stray() -> u32 { return 1.5; }\n`
        .replace("const UNIT = ", "const UNIT = 1u * ");
    await onBrokenDevice(filesOf(name, ["halves"]), async (device) => {
      const { variant, reason } = choice(device, dtype);
      assert.equal(variant, `formats/${name}_bits`);
      assert.match(reason, new RegExp(`formats/${name}_halves does not compile: `));
      await decodeOnes(device, dtype);
    }, edit);
  });

  gpuTest(`every way to decode ${dtype} is exact here`, async () => {
    using device = await openDevice({ backend: "webgpu" });
    assert.doesNotMatch(choice(device, dtype).reason, /wrong|compile/);
  });
}

gpuTest("queries are decoded by a way that passed its test", async () => {
  await onBrokenDevice(["formats/e4m3_bits"], async (device) => {
    assert.deepEqual(await attendWithQuery(device, "float8_e4m3fn"), new Array(8).fill(1.125));
  });
  // By halves, NaN codes are numbers: good enough for a cache, whose NaN codes are looked for.
  await onBrokenDevice(filesOf("e4m3", ["bits", "table"]), async (device) => {
    await decodeOnes(device, "float8_e4m3fn");
    await assert.rejects(attendWithQuery(device, "float8_e4m3fn"), ShaderError);
  });
});

/** A device of one's own that can tell the time, or null. */
async function openTimed(): Promise<GPUDevice | null> {
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter?.features.has("timestamp-query")) return null;
  return await adapter.requestDevice({ requiredFeatures: ["timestamp-query"] });
}

gpuTest("the ways of a caller's device are timed, and nothing is left behind", async () => {
  const gpuDevice = await openTimed();
  if (!gpuDevice) return;
  let alive = 0;
  for (const name of ["createBuffer", "createQuerySet"] as const) {
    const create = gpuDevice[name].bind(gpuDevice) as (descriptor: unknown) => GPUBuffer;
    Object.defineProperty(gpuDevice, name, {
      value: (descriptor: unknown) => {
        const made = create(descriptor);
        const destroy = made.destroy.bind(made);
        alive++;
        made.destroy = () => {
          alive--;
          destroy();
        };
        return made;
      },
    });
  }
  const device = await openDevice({ gpuDevice });
  assert.equal(alive, 0, "buffers or queries left");
  for (const [dtype, name] of FORMATS) {
    const { variant, reason } = choice(device, dtype);
    assert.match(reason, /^all 256 codes are exact; [\d.]+ codes\/ns; |too coarse/);
    for (const way of filesOf(name)) assert.ok(`${variant}: ${reason}`.includes(way), way);
    await decodeOnes(device, dtype);
  }
  device.destroy();
  gpuDevice.destroy();
});

gpuTest("a device without timestamps, and a software adapter, go by order", async () => {
  const gpuDevice = await openGpuDevice();
  const own = await openDevice({ gpuDevice });
  using device = await openDevice({ backend: "webgpu" });
  for (const [dtype, name] of FORMATS) {
    const { variant, reason } = choice(own, dtype);
    assert.equal(variant, `formats/${name}_halves`);
    assert.match(
      reason,
      /by order before .*_bits and .*_table, not by time: .* no timestamp-query/,
    );
    if (!device.report.adapter!.isFallback) continue;
    assert.match(choice(device, dtype).reason, /not by time: the adapter is software/);
  }
  own.destroy();
  gpuDevice.destroy();
});
