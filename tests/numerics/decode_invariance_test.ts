/** What must not change a decode's answer at all, and what must change it in a known way. */

import assert from "node:assert/strict";
import { batchDecodeWithPaddedKvCache, type DType } from "@kvasir/attention";
import { assertSameAnswer, assertSameBits } from "../support/bits.ts";
import {
  checkDecode,
  type DecodeSpec,
  type DecodeValues,
  drawValues,
  makeInputs,
  runDecode,
  runSingleDecode,
} from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";

const KV_DTYPES: readonly DType[] = ["float32", "float16", "float8_e4m3fn"];
const HEADS = [6, 2] as const;
const HEAD_DIM = 64;

function specOf(kvDtype: DType, extra: Partial<DecodeSpec> = {}): DecodeSpec {
  return { batch: 3, kvLen: 83, heads: HEADS, headDim: HEAD_DIM, kvDtype, ...extra };
}

/** k or v with its rows moved: `source(request, token, head)` of NHD is where a row comes from. */
function moveRows(
  x: Float32Array,
  [batch, length, heads]: readonly number[],
  source: (request: number, token: number, head: number) => number,
): Float32Array {
  const moved = new Float32Array(batch * length * heads * HEAD_DIM);
  let to = 0;
  for (let b = 0; b < batch; b++) {
    for (let t = 0; t < length; t++) {
      for (let h = 0; h < heads; h++, to += HEAD_DIM) {
        const from = source(b, t, h) * HEAD_DIM;
        moved.set(x.subarray(from, from + HEAD_DIM), to);
      }
    }
  }
  return moved;
}

/** Moves rows of k and v alike. */
function withMovedCache(
  values: DecodeValues,
  dims: readonly number[],
  source: (request: number, token: number, head: number) => number,
): DecodeValues {
  return {
    q: values.q,
    k: moveRows(values.k, dims, source),
    v: moveRows(values.v, dims, source),
  };
}

for (const kvDtype of KV_DTYPES) {
  onEachBackend(`decode: run again, the same bits; ${kvDtype}`, async (device) => {
    const inputs = makeInputs(specOf(kvDtype, { seqLens: [83, 20, 64] }));
    const first = await runDecode(device, inputs);
    for (let i = 0; i < 20; i++) {
      assertSameAnswer(await runDecode(device, inputs), first, `run ${i + 2}`);
    }
  });

  onEachBackend(`decode: HND has the bits of NHD; ${kvDtype}`, async (device) => {
    const spec = specOf(kvDtype);
    const values = drawValues(spec);
    // Row (b, h, t) of HND, counted as if it were NHD of [batch, heads, length].
    const swapped = withMovedCache(values, [3, 2, 83], (b, h, t) => (b * 83 + t) * 2 + h);
    const nhd = await runDecode(device, makeInputs(spec, values));
    const hnd = await runDecode(device, makeInputs({ ...spec, kvLayout: "HND" }, swapped));
    assertSameAnswer(hnd, nhd, "HND");
  });

  onEachBackend(
    `decode: a batch has the bits of its requests alone; ${kvDtype}`,
    async (device) => {
      const seqLens = [83, 20, 64];
      const spec = specOf(kvDtype, { seqLens });
      const values = drawValues(spec);
      const joined = await runDecode(device, makeInputs(spec, values));
      const size = HEADS[0] * HEAD_DIM;
      for (let request = 0; request < 3; request++) {
        const alone = withMovedCache(values, [1, 83, 2], (_, t, h) => (request * 83 + t) * 2 + h);
        const inputs = makeInputs({ ...spec, batch: 1, seqLens: [seqLens[request]] }, {
          ...alone,
          q: values.q.subarray(request * size, (request + 1) * size),
        });
        const part = {
          out: joined.out.subarray(request * size, (request + 1) * size),
          lse: joined.lse.subarray(request * HEADS[0], (request + 1) * HEADS[0]),
        };
        assertSameAnswer(await runDecode(device, inputs), part, `request ${request}`);
      }
    },
  );

  onEachBackend(`decode: padding does not change the bits; ${kvDtype}`, async (device) => {
    const tight = specOf(kvDtype, { batch: 1, kvLen: 37 });
    const values = drawValues(tight);
    const loose = withMovedCache(values, [1, 90, 2], (_, t, h) => Math.min(t, 36) * 2 + h);
    const inputs = makeInputs({ ...tight, kvLen: 90, seqLens: [37] }, loose);
    const expected = await runDecode(device, makeInputs(tight, values));
    assertSameAnswer(await runDecode(device, inputs), expected, "padded");
  });

  onEachBackend(`decode: single is a batch of one, both layouts; ${kvDtype}`, async (device) => {
    for (const kvLayout of ["NHD", "HND"] as const) {
      const inputs = makeInputs(specOf(kvDtype, { batch: 1, kvLayout, smScale: 0.2, kScale: 0.5 }));
      const single = await runSingleDecode(device, inputs);
      assertSameAnswer(single, await runDecode(device, inputs), kvLayout);
    }
  });
}

onEachBackend("decode: V times a power of two gives out times it, exactly", async (device) => {
  const spec = specOf("float32");
  const values = drawValues(spec);
  const plain = await runDecode(device, makeInputs(spec, values));
  for (const factor of [2 ** 10, 2 ** -10]) {
    const scaled = { ...values, v: values.v.map((x) => x * factor) };
    const { out, lse } = await runDecode(device, makeInputs(spec, scaled));
    assertSameBits(out, plain.out.map((x) => x * factor), `V times ${factor}`);
    assertSameBits(lse, plain.lse, `lse with V times ${factor}`);
    const viaScale = await runDecode(device, makeInputs({ ...spec, vScale: factor }, values));
    assertSameBits(viaScale.out, out, `vScale ${factor}`);
  }
});

onEachBackend("decode: the order of the keys does not matter", async (device) => {
  const spec = specOf("float16", { batch: 1 });
  const values = drawValues(spec);
  // 83 is prime, so a stride visits every token once.
  const shuffled = withMovedCache(values, [1, 83, 2], (_, t, h) => ((t * 29 + 5) % 83) * 2 + h);
  const original = await checkDecode(device, "in order", makeInputs(spec, values));
  const other = await checkDecode(device, "shuffled", makeInputs(spec, shuffled));
  original.out.forEach((x, i) => assert.ok(Math.abs(x - other.out[i]) < 2e-6));
  original.lse.forEach((x, i) => assert.ok(Math.abs(x - other.lse[i]) < 2e-6));
});

onEachBackend("decode: keys given twice leave out, and add 1 to lse", async (device) => {
  const spec = specOf("float32", { batch: 1 });
  const values = drawValues(spec);
  const twice = withMovedCache(values, [1, 166, 2], (_, t, h) => (t % 83) * 2 + h);
  const once = await runDecode(device, makeInputs(spec, values));
  const both = await runDecode(device, makeInputs({ ...spec, kvLen: 166 }, twice));
  once.out.forEach((x, i) => assert.ok(Math.abs(x - both.out[i]) < 2e-6));
  once.lse.forEach((x, i) => assert.ok(Math.abs(x + 1 - both.lse[i]) < 2e-6));
});

onEachBackend("decode: equal values come out as they are", async (device) => {
  const spec = specOf("float16");
  const values = drawValues(spec);
  values.v.fill(1.25);
  const { out } = await runDecode(device, makeInputs(spec, values));
  out.forEach((x) => assert.ok(Math.abs(x - 1.25) < 1e-6, `${x}`));
});

onEachBackend("decode: without returnLse, out has the same bits", async (device) => {
  const inputs = makeInputs(specOf("float8_e4m3fn"));
  const { q, k, v } = inputs;
  using qTensor = device.tensorFromBytes(q.bytes, [3, 6, 64], q.dtype);
  using kTensor = device.tensorFromBytes(k.bytes, [3, 83, 2, 64], k.dtype);
  using vTensor = device.tensorFromBytes(v.bytes, [3, 83, 2, 64], v.dtype);
  using out = await batchDecodeWithPaddedKvCache(qTensor, kTensor, vTensor);
  assert.deepEqual([out.shape, out.dtype], [[3, 6, 64], "float32"]);
  assertSameBits(await out.read(), (await runDecode(device, inputs)).out, "out");
});
