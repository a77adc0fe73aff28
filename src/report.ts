/**
 * What a device says of itself: the answer to "what will run here, and why".
 *
 * @module
 */

/** One choice that the library made for this device. */
export interface KernelChoice {
  /** What was chosen for: a family such as `"decode"`, or `"decoding of float8_e4m3fn"`. */
  readonly family: string;
  /** The variant, such as `"subgroups"`, or a whole kernel's name. */
  readonly variant: string;
  /** Why this one. */
  readonly reason: string;
}

/** The adapter behind a WebGPU device. */
export interface AdapterReport {
  /** Its vendor, as WebGPU names it; may be empty. */
  readonly vendor: string;
  /** Its family of GPUs; may be empty. */
  readonly architecture: string;
  /** Its model, in the vendor's numbers; may be empty. */
  readonly device: string;
  /** Its name for a person; may be empty. */
  readonly description: string;
  /** Whether the adapter says that it is a software fallback. */
  readonly isFallback: boolean;
}

/** What a device is, what it can do, and which variants were chosen. */
export interface DeviceReport {
  /** Which backend computes. */
  readonly backend: "webgpu" | "wasm";
  /** Why this backend, in one sentence. */
  readonly reason: string;
  /** One line for a person: the adapter, or the WASM build. */
  readonly description: string;
  /** The adapter; null on WASM. */
  readonly adapter: AdapterReport | null;
  /** Features in use, such as `"subgroups"`, `"simd128"` or `"relaxed-simd"`. */
  readonly features: readonly string[];
  /** The limits that matter here, by their WebGPU names; bytes where a name says size. */
  readonly limits: Readonly<Record<string, number>>;
  /** The WGSL compiler: naga takes no `enable subgroups;`, Tint requires it. Null on WASM. */
  readonly shaderCompiler: "naga" | "tint" | null;
  /** Smallest and largest subgroup; null where subgroups are not in use. */
  readonly subgroupSize: { readonly min: number; readonly max: number } | null;
  /** Which variants were chosen so far, and why; grows as kernels are first used. */
  readonly kernels: readonly KernelChoice[];
  /** Tensors that are alive on the device, and their bytes. */
  readonly memory: { readonly tensors: number; readonly bytes: number };
}

/** GPU time of one dispatch. */
export interface KernelProfile {
  /** The kernel's name, as in {@linkcode DeviceReport.kernels}. */
  readonly kernel: string;
  /** GPU time in microseconds, by timestamp query. */
  readonly microseconds: number;
}
