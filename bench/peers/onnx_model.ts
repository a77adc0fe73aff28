/**
 * Writes an ONNX model of one GroupQueryAttention node: 40 lines of protobuf, so that the peer needs
 * no Python.
 *
 * @module
 */

/** ONNX element types. */
export const ONNX_TYPE = { float32: 1, int32: 6, float16: 10 } as const;

const WIRE_VARINT = 0;
const WIRE_BYTES = 2;

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = rest % 128;
    rest = Math.floor(rest / 128);
    bytes.push(rest > 0 ? low | 128 : low);
  } while (rest > 0);
  return bytes;
}

function integer(field: number, value: number): number[] {
  return [...varint(field * 8 + WIRE_VARINT), ...varint(value)];
}

function bytes(field: number, content: string | number[]): number[] {
  const data = typeof content === "string" ? [...new TextEncoder().encode(content)] : content;
  return [...varint(field * 8 + WIRE_BYTES), ...varint(data.length), ...data];
}

type Dim = string | number;

function valueInfo(name: string, type: number, dims: Dim[]): number[] {
  const shape = dims.flatMap((d) => bytes(1, typeof d === "string" ? bytes(2, d) : integer(1, d)));
  const tensor = [...integer(1, type), ...bytes(2, shape)];
  return [...bytes(1, name), ...bytes(2, bytes(1, tensor))];
}

function attribute(name: string, value: number): number[] {
  const kindInt = 2;
  return [...bytes(1, name), ...integer(3, value), ...integer(20, kindInt)];
}

/** com.microsoft.GroupQueryAttention with a past, in `elementType`. */
export function groupQueryAttention(
  numHeads: number,
  numKvHeads: number,
  elementType: number,
): Uint8Array {
  const past = ["B", numKvHeads, "P", "H"];
  const present = ["B", numKvHeads, "P2", "H"];
  const inputs: [string, number, Dim[]][] = [
    ["q", elementType, ["B", "S", "QH"]],
    ["k", elementType, ["B", "S", "KH"]],
    ["v", elementType, ["B", "S", "KH"]],
    ["past_k", elementType, past],
    ["past_v", elementType, past],
    ["lengths", ONNX_TYPE.int32, ["B"]],
    ["total", ONNX_TYPE.int32, []],
  ];
  const outputs: [string, number, Dim[]][] = [
    ["out", elementType, ["B", "S", "QH"]],
    ["present_k", elementType, present],
    ["present_v", elementType, present],
  ];
  const node = [
    ...inputs.flatMap(([name]) => bytes(1, name)),
    ...outputs.flatMap(([name]) => bytes(2, name)),
    ...bytes(4, "GroupQueryAttention"),
    ...bytes(5, attribute("num_heads", numHeads)),
    ...bytes(5, attribute("kv_num_heads", numKvHeads)),
    ...bytes(7, "com.microsoft"),
  ];
  const graph = [
    ...bytes(1, node),
    ...bytes(2, "attention"),
    ...inputs.flatMap((info) => bytes(11, valueInfo(...info))),
    ...outputs.flatMap((info) => bytes(12, valueInfo(...info))),
  ];
  const opset = (domain: string, version: number) => [...bytes(1, domain), ...integer(2, version)];
  return new Uint8Array([
    ...integer(1, 9), // ir_version
    ...bytes(7, graph),
    ...bytes(8, opset("", 21)),
    ...bytes(8, opset("com.microsoft", 1)),
  ]);
}
