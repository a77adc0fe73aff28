/**
 * The self-test of FP8 decoding: a device whose fast way gets codes wrong is worked around, and one
 * that has no exact way refuses FP8 and goes on with the rest.
 */

import assert from "node:assert/strict";
import { type DType, openDevice, ShaderError, singleDecodeWithKvCache } from "@kvasir/attention";
import { shaders } from "../../src/generated/shaders.js";
import { gpuTest } from "../support/device.ts";

/** Opens a device whose shaders are broken in the given files, and hands it to `test`. */
async function onBrokenDevice(
  files: readonly string[],
  test: (device: Awaited<ReturnType<typeof openDevice>>) => Promise<void>,
) {
  const texts = shaders as Record<string, string>;
  const saved = files.map((file) => texts[file]);
  for (const file of files) {
    // As a device would that loses the lowest bit of a code.
    const broken = texts[file].replace(
      /fn decode_quad\((\w+): Quad\)([^{]*)\{/,
      (_, name, type) => `fn decode_quad(all: Quad)${type}{ let ${name} = all & 0xfefefefeu;`,
    );
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

function choice(device: Awaited<ReturnType<typeof openDevice>>, dtype: DType) {
  const found = device.report.kernels.find(({ family }) => family === `decoding of ${dtype}`);
  assert.ok(found, `the report does not say how ${dtype} is decoded`);
  return found;
}

async function decodeOnes(device: Awaited<ReturnType<typeof openDevice>>, dtype: DType) {
  using q = device.tensor(new Float32Array(8), [1, 8], "float32");
  // 1.125 needs the lowest bit of an e4m3 code, 1.25 that of e5m2.
  const value = dtype === "float8_e4m3fn" ? 1.125 : 1.25;
  using kv = device.tensor(new Float32Array(24).fill(value), [3, 1, 8], dtype);
  using out = await singleDecodeWithKvCache(q, kv, kv);
  assert.deepEqual([...await out.read()], new Array(8).fill(value));
}

const WAYS = [["float8_e4m3fn", "e4m3"], ["float8_e5m2", "e5m2"]] as const;

for (const [dtype, name] of WAYS) {
  gpuTest(`a device that decodes ${dtype} wrongly is worked around`, async () => {
    await onBrokenDevice([`formats/${name}_halves`], async (device) => {
      const { variant, reason } = choice(device, dtype);
      assert.equal(variant, `formats/${name}_bits`);
      assert.match(reason, new RegExp(`formats/${name}_halves gets \\d+ codes wrong`));
      await decodeOnes(device, dtype);
    });
  });

  gpuTest(
    `a device with no exact way to decode ${dtype} refuses it, and nothing else`,
    async () => {
      await onBrokenDevice([`formats/${name}_halves`, `formats/${name}_bits`], async (device) => {
        assert.equal(choice(device, dtype).variant, "none");
        await assert.rejects(decodeOnes(device, dtype), ShaderError);
        await decodeOnes(device, "float16");
        assert.equal(device.report.memory.tensors, 0, "a refused call leaves tensors behind");
      });
    },
  );
}

for (const [dtype, name] of WAYS) {
  gpuTest(`every way to decode ${dtype} is exact here`, async () => {
    using device = await openDevice({ backend: "webgpu" });
    assert.equal(choice(device, dtype).variant, `formats/${name}_halves`);
  });
}
