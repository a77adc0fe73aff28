/**
 * WebGPU's flags by value: the namespaces that name them (`GPUBufferUsage`, ...) are missing where a
 * caller brings a device of Dawn's.
 *
 * @module
 */

/** Flags of `GPUBufferUsage`. */
export const USAGE: Readonly<
  Record<
    "MAP_READ" | "COPY_SRC" | "COPY_DST" | "UNIFORM" | "STORAGE" | "QUERY_RESOLVE",
    number
  >
> = {
  MAP_READ: 0x1,
  COPY_SRC: 0x4,
  COPY_DST: 0x8,
  UNIFORM: 0x40,
  STORAGE: 0x80,
  QUERY_RESOLVE: 0x200,
};

/** `GPUMapMode.READ`. */
export const MAP_MODE_READ = 0x1;

/** `GPUShaderStage.COMPUTE`. */
export const STAGE_COMPUTE = 0x4;
