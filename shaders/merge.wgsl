// Merges attention states: outputs over parts of the keys, with the log-sum-exp of each part
// (FlashInfer's merge_states). Decode over split keys ends here too.
//
// Grid: one workgroup for PAIRS pairs (row, head) of the result, in one dimension folded over x and y.
// Bindings: 0 params; 1 rows (first row of a, how many, first row of b, how many); 2 v of a; 3 s of a;
//   4 v of b; 5 s of b; 6 out; 7 lse; 8 sinks, one a head.
//
// With weights w_i = 2^(s_i - m), m = max s_i:   d = sum w_i,   out = sum w_i·v_i / d,   lse = m + log2 d
// A state of s = -infinity holds nothing; its v is not looked at. TEAMS teams of TEAM lanes take the
// states of a pair in turn, UNROLL of them at a time; a lane owns a quad (4 elements) of the row.

import constants::{PAIRS, QUADS, TEAM, TEAMS, UNROLL, WORKGROUP};
import package::v_format;
import package::out_format;

struct MergeParams {
  num_work: u32,       // pairs
  num_heads: u32,
  lse_scale: f32,      // 1, or ln 2 for natural logarithms
  write_lse: u32,
}

@group(0) @binding(0) var<uniform> params: MergeParams;
@group(0) @binding(1) var<storage, read> rows: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> v_a: array<v_format::Quad>;
@group(0) @binding(3) var<storage, read> s_a: array<u32>;
@group(0) @binding(4) var<storage, read> v_b: array<v_format::Quad>;
@group(0) @binding(5) var<storage, read> s_b: array<u32>;
@group(0) @binding(6) var<storage, read_write> out: array<out_format::Quad>;
@group(0) @binding(7) var<storage, read_write> lse: array<u32>;
@if(sinks) @group(0) @binding(8) var<storage, read> sinks: array<f32>;

const LOWEST = -3.4028234663852886e38;
const MINUS_INFINITY_BITS = 0xff800000u;
// In place of a count: that row of a, bit by bit (src/attention_problem.ts).
@if(keeps) const KEEP_ROW = 0xffffffffu;

var<workgroup> team_max: array<f32, PAIRS * TEAMS>;
var<workgroup> team_sum: array<f32, PAIRS * TEAMS>;
var<workgroup> team_output: array<vec4<f32>, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let team = local / TEAM; // of the workgroup
  let lane = local % TEAM;
  let quad = min(lane, QUADS - 1u);
  let first_team = team - team % TEAMS; // of the pair
  let wanted = (workgroup.y * grid.x + workgroup.x) * PAIRS + team / TEAMS;
  // Past the end, the last pair is computed again and not written, since all lanes meet at barriers.
  let index = min(wanted, params.num_work - 1u);
  let is_there = wanted < params.num_work;
  let head = index % params.num_heads;
  let row = rows[index / params.num_heads];
  @if(keeps) let is_kept = row.y == KEEP_ROW;
  @if(keeps) let count = select(row.y + row.w, 0u, is_kept);
  @else let count = row.y + row.w;

  var largest = LOWEST;
  var sum = 0.0;
  var output = vec4<f32>(0.0);
  for (var first = (team % TEAMS) * UNROLL; first < count; first += TEAMS * UNROLL) {
    var bits: array<u32, UNROLL>;
    var value: array<vec4<f32>, UNROLL>;
    @unroll for (var u = 0u; u < UNROLL; u++) {
      let i = min(first + u, count - 1u);
      if (i < row.y) {
        let state = (row.x + i) * params.num_heads + head;
        bits[u] = s_a[state];
        value[u] = v_format::decode_quad(v_a[state * QUADS + quad]) * v_format::UNIT;
      } else {
        let state = (row.z + i - row.y) * params.num_heads + head;
        bits[u] = s_b[state];
        value[u] = v_format::decode_quad(v_b[state * QUADS + quad]) * v_format::UNIT;
      }
      // Nothing stands past the last state, nor in an empty one.
      bits[u] = select(MINUS_INFINITY_BITS, bits[u], first + u < count);
    }
    var new_largest = largest;
    @unroll for (var u = 0u; u < UNROLL; u++) {
      let s = bitcast<f32>(bits[u]);
      new_largest = max(new_largest, select(s, LOWEST, bits[u] == MINUS_INFINITY_BITS));
    }
    let rescale = exp2(largest - new_largest);
    largest = new_largest;
    sum *= rescale;
    output *= rescale;
    @unroll for (var u = 0u; u < UNROLL; u++) {
      let is_empty = bits[u] == MINUS_INFINITY_BITS;
      let weight = select(exp2(bitcast<f32>(bits[u]) - largest), 0.0, is_empty);
      sum += weight;
      output += weight * select(value[u], vec4<f32>(0.0), is_empty);
    }
  }

  if (lane == 0u) {
    team_max[team] = largest;
    team_sum[team] = sum;
  }
  workgroupBarrier();
  var merged_max = LOWEST;
  for (var t = 0u; t < TEAMS; t++) {
    merged_max = max(merged_max, team_max[first_team + t]);
  }
  var merged = 0.0;
  for (var t = 0u; t < TEAMS; t++) {
    merged += team_sum[first_team + t] * exp2(team_max[first_team + t] - merged_max);
  }
  // NaN counts, whose bits tell it from 0: drivers take `!=` of it for false.
  let has_state = merged_max > LOWEST || bitcast<u32>(merged) != 0u;
  var level = merged_max;
  var has_sum = has_state;
  var lowered = 1.0;
  @if(sinks) {
    let sink = sinks[head];
    level = max(merged_max, sink);
    lowered = exp2(merged_max - level);
    merged = merged * lowered + exp2(sink - level);
    has_sum = true;
  }
  let is_first = is_there && team == first_team;
  if (is_first && lane == 0u && params.write_lse != 0u) {
    // log2(1) is 0, which not every GPU knows.
    let logarithm = select(log2(merged), 0.0, merged == 1.0);
    lse[index] = select(
      MINUS_INFINITY_BITS, bitcast<u32>((level + logarithm) * params.lse_scale), has_sum,
    );
    @if(keeps) {
      if (is_kept) {
        lse[index] = s_a[row.x * params.num_heads + head];
      }
    }
  }
  team_output[local] = output * (exp2(largest - merged_max) * lowered);
  workgroupBarrier();
  if (is_first && lane < QUADS) {
    var total = vec4<f32>(0.0);
    for (var t = 0u; t < TEAMS; t++) {
      total += team_output[(first_team + t) * TEAM + lane];
    }
    out[index * QUADS + lane] =
      out_format::encode_quad(select(vec4<f32>(0.0), total / merged, has_state));
    @if(keeps) {
      if (is_kept) {
        out[index * QUADS + lane] = v_a[(row.x * params.num_heads + head) * QUADS + lane];
      }
    }
  }
}
