/**
 * A few small kernels that touch everything once: each KV dtype and q dtype, both layouts, lengths,
 * scales, odd groups. For stacks on which compiling takes long (Dawn on SwiftShader).
 */

import { type DecodeSpec, decodeTest } from "../support/decode.ts";

const SMALL = { batch: 4, kvLen: 40, heads: [6, 2], headDim: 16, seqLens: [40, 0, 1, 33] } as const;

const SPECS: readonly DecodeSpec[] = [
  { ...SMALL, kvDtype: "float32", kvLayout: "HND", smScale: 0.4 },
  { ...SMALL, kvDtype: "float16", qDtype: "float16" },
  { ...SMALL, kvDtype: "bfloat16", qDtype: "bfloat16", kvLayout: "HND" },
  { ...SMALL, kvDtype: "float8_e4m3fn", qDtype: "float16", kScale: 0.5, vScale: 1.5 },
  { ...SMALL, kvDtype: "float8_e5m2", heads: [9, 1], headDim: 40 },
];

for (const spec of SPECS) decodeTest(`decode, small: ${spec.kvDtype}`, [spec]);
