/**
 * FlashInfer-class attention for WebGPU, with a WASM backend where there is no GPU.
 *
 * Prefill and decode over float32, float16, bfloat16 and FP8 KV caches, contiguous, padded, ragged and
 * paged, for any GQA group size. Names, layouts and semantics are FlashInfer's.
 *
 * @example
 * ```ts
 * import * as kvasir from "@kvasir/attention";
 *
 * const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
 * using device = await kvasir.openDevice(); // WebGPU where there is one, else WASM
 * using q = device.tensor(random(2 * 24 * 128), [2, 24, 128], "float16");
 * using k = device.tensor(random(2 * 50 * 8 * 128), [2, 50, 8, 128], "float8_e4m3fn"); // encodes
 * using v = device.tensor(random(2 * 50 * 8 * 128), [2, 50, 8, 128], "float8_e4m3fn");
 * using out = await kvasir.batchDecodeWithPaddedKvCache(q, k, v, {
 *   kvLayout: "NHD",
 *   posEncodingMode: "NONE",
 * });
 * const values = await out.read(); // Float32Array, 2 x 24 x 128
 * console.log(device.report.description, values.length);
 * ```
 *
 * @module
 */

export { appendPagedKvCache } from "./src/append.ts";
export {
  type BatchIndicesPositions,
  getBatchIndicesPositions,
  getSeqLens,
} from "./src/append_indices.ts";
export type { AppendOptions, RopeOptions } from "./src/append_problem.ts";
export type { AttentionWithLse } from "./src/attend.ts";
export type { PagedKvCacheOptions } from "./src/cache_options.ts";
export type { CacheTensors } from "./src/cache_pages.ts";
export {
  calibrate,
  type Calibration,
  type CalibrationBatch,
  type CalibrationData,
  type CalibrationReport,
} from "./src/calibrate.ts";
export type { CalibrateOptions } from "./src/calibrate_problem.ts";
export { MultiLevelCascadeAttention } from "./src/cascade.ts";
export type { QuantizeOptions } from "./src/convert_problem.ts";
export { batchDecodeWithPaddedKvCache, singleDecodeWithKvCache } from "./src/decode.ts";
export type { Device } from "./src/device.ts";
export type { DType, Fp8DType, KvDType } from "./src/dtype.ts";
export {
  DestroyedError,
  DeviceLostError,
  DeviceMismatchError,
  DTypeError,
  type ErrorDetails,
  KvasirError,
  LimitError,
  NoAdapterError,
  OptionError,
  OutOfMemoryError,
  PlanError,
  ShaderError,
  ShapeError,
} from "./src/errors.ts";
export { decodeFp8, type DecodeFp8Options, encodeFp8, type EncodeFp8Options } from "./src/fp8.ts";
export { mergeState, mergeStateInPlace, mergeStates } from "./src/merge.ts";
export type { MergeInPlaceOptions } from "./src/merge_problem.ts";
export { openDevice, type OpenDeviceOptions, type Progress } from "./src/open_device.ts";
export type {
  AttentionOptions,
  DecodeOptions,
  HeadValues,
  KvLayout,
  LseBase,
  MaskOptions,
  PaddedDecodeOptions,
  PaddedPrefillOptions,
  PosEncodingMode,
  PrefillOptions,
  VariantOptions,
} from "./src/options.ts";
export type {
  CascadeLevel,
  CascadeOptions,
  CascadePlan,
  PagedDecodePlan,
  PagedPrefillPlan,
  PagedSizes,
  PlannedOptions,
  RaggedPrefillPlan,
  RunOptions,
  WrapperOptions,
} from "./src/planned_options.ts";
export { BatchDecodeWithPagedKvCache } from "./src/paged_decode.ts";
export type { PagedKv } from "./src/paged_kv.ts";
export { type CacheStatistics, PagedKvCache } from "./src/paged_kv_cache.ts";
export { BatchPrefillWithPagedKvCache } from "./src/paged_prefill.ts";
export type { PageSequence } from "./src/page_sequence.ts";
export type { Append, BatchTables, PageStatistics } from "./src/page_types.ts";
export { batchPrefillWithPaddedKvCache, singlePrefillWithKvCache } from "./src/prefill.ts";
export { dequantize, quantize } from "./src/quantize.ts";
export { type QuantizedKv, quantizeKv } from "./src/quantize_kv.ts";
export type { QuantizeKvOptions } from "./src/quantize_kv_problem.ts";
export { BatchPrefillWithRaggedKvCache } from "./src/ragged_prefill.ts";
export type { AdapterReport, DeviceReport, KernelChoice, KernelProfile } from "./src/report.ts";
export type { Tensor } from "./src/tensor.ts";
export type { KvScalesMode } from "./src/token_scales.ts";
