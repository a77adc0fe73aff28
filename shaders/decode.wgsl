// Decode attention: one query token a request against its KV cache.
//
// Grid: one workgroup for each (request, KV head, block of at most 8 query heads of its group), in
//   one dimension folded over x and y. So a cache row is read once for all query heads of a block.
// Bindings: 0 params; 1 requests (first query row, query rows, keys, page); 2 q; 3 k; 4 v; 5 out; 6 lse.
//
// A workgroup is TEAMS teams of TEAM lanes. A team owns a cache row at a time, a lane owns every
// TEAM-th 16-byte piece of the row, and ROWS rows are in flight. With s_j = scale·log2(e)·q·k_j:
//   m = max s_j,   d = sum 2^(s_j - m),   o = sum 2^(s_j - m)·v_j,   out = o / d,   lse = m + log2 d
// Each team keeps its own running (m, d, o), rescaled when m grows (online softmax: Milakov and
// Gimelshein 2018; Dao et al. 2022); the teams' states are merged once, at the end.

import constants::{
  WORKGROUP, TEAM, TEAMS, ROWS, HEADS, VALUES,
  PIECES, SLOTS, PIECE_QUADS, LANE_QUADS, MERGE_QUADS,
};
import package::address::{k_row, v_row};
import package::params::{Request, params};
import package::kv_format::{Piece, UNIT, decode_piece};
import package::q_format;
import package::out_format;
import package::team::team_sum;

@group(0) @binding(1) var<storage, read> requests: array<Request>;
@group(0) @binding(2) var<storage, read> q: array<q_format::Quad>;
@group(0) @binding(3) var<storage, read> k: array<Piece>;
@group(0) @binding(4) var<storage, read> v: array<Piece>;
@group(0) @binding(5) var<storage, read_write> out: array<out_format::Quad>;
@group(0) @binding(6) var<storage, read_write> lse: array<u32>;

// The running max begins at the lowest float: infinities may not be relied upon in WGSL.
const LOWEST = -3.4028234663852886e38;
const MINUS_INFINITY_BITS = 0xff800000u;

var<workgroup> team_max: array<f32, TEAMS * HEADS>;
var<workgroup> team_denominator: array<f32, TEAMS * HEADS>;
var<workgroup> team_output: array<vec4<f32>, WORKGROUP * MERGE_QUADS>;

// The piece of a row that a lane holds in a slot. Past the row's end there is none; a lane there
// reads the first piece and clears it.
fn piece_index(slot: u32, lane: u32) -> u32 {
  let piece = slot * TEAM + lane;
  return select(0u, piece, piece < PIECES);
}

fn keep_piece(piece: Piece, keep: bool) -> Piece {
  return select(Piece(), piece, keep);
}

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let work = workgroup.y * grid.x + workgroup.x;
  if (work >= params.num_work) {
    return;
  }
  let block = work % params.head_blocks;
  let kv_head = (work / params.head_blocks) % params.num_kv_heads;
  let request = requests[work / (params.head_blocks * params.num_kv_heads)];
  let kv_len = request.kv_len;
  let team = local / TEAM;
  let lane = local % TEAM;

  // This lane's part of the query heads, with the scales folded in.
  var query: array<vec4<f32>, HEADS * LANE_QUADS>;
  @unroll for (var h = 0u; h < HEADS; h++) {
    let row = request.q_start * params.q_token + qo_head(kv_head, block, h) * params.q_head;
    @unroll for (var s = 0u; s < SLOTS; s++) {
      let first = row + piece_index(s, lane) * PIECE_QUADS;
      let scale = select(0.0, params.logit_scale * UNIT, s * TEAM + lane < PIECES);
      @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
        query[h * LANE_QUADS + s * PIECE_QUADS + i] = q_format::decode_quad(q[first + i]) * scale;
      }
    }
  }

  var running_max: array<f32, HEADS>;
  var denominator: array<f32, HEADS>;
  var output: array<vec4<f32>, HEADS * LANE_QUADS>;
  @unroll for (var h = 0u; h < HEADS; h++) {
    running_max[h] = LOWEST;
    denominator[h] = 0.0;
    @unroll for (var i = 0u; i < LANE_QUADS; i++) {
      output[h * LANE_QUADS + i] = vec4<f32>(0.0);
    }
  }

  // Every team takes the same number of steps, so that teams may meet at barriers.
  let steps = (kv_len + TEAMS * ROWS - 1u) / (TEAMS * ROWS);
  for (var step = 0u; step < steps; step++) {
    var k_pieces: array<Piece, ROWS * SLOTS>;
    var v_pieces: array<Piece, ROWS * SLOTS>;
    var present: array<bool, ROWS>;
    @unroll for (var r = 0u; r < ROWS; r++) {
      let position = (step * ROWS + r) * TEAMS + team;
      present[r] = position < kv_len;
      // Rows past the end are cleared: what lies there may be NaN, and 0 · NaN is NaN.
      let row = min(position, kv_len - 1u);
      let k_first = k_row(request, kv_head, row);
      let v_first = v_row(request, kv_head, row);
      @unroll for (var s = 0u; s < SLOTS; s++) {
        let keep = present[r] && s * TEAM + lane < PIECES;
        k_pieces[r * SLOTS + s] = keep_piece(k[k_first + piece_index(s, lane)], keep);
        v_pieces[r * SLOTS + s] = keep_piece(v[v_first + piece_index(s, lane)], keep);
      }
    }

    var partial: array<f32, VALUES>;
    @unroll for (var r = 0u; r < ROWS; r++) {
      var dots = array<f32, HEADS>(); // naga zeroes a plain declaration once, not every round
      @unroll for (var s = 0u; s < SLOTS; s++) {
        let key = decode_piece(k_pieces[r * SLOTS + s]);
        @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
          @unroll for (var h = 0u; h < HEADS; h++) {
            dots[h] += dot(query[h * LANE_QUADS + s * PIECE_QUADS + i], key[i]);
          }
        }
      }
      @unroll for (var h = 0u; h < HEADS; h++) {
        partial[r * HEADS + h] = dots[h];
      }
    }
    let logits = team_sum(partial, local);

    var weights: array<f32, VALUES>;
    @unroll for (var h = 0u; h < HEADS; h++) {
      var new_max = running_max[h];
      @unroll for (var r = 0u; r < ROWS; r++) {
        new_max = max(new_max, select(LOWEST, logits[r * HEADS + h], present[r]));
      }
      let rescale = exp2(running_max[h] - new_max);
      running_max[h] = new_max;
      denominator[h] *= rescale;
      @unroll for (var i = 0u; i < LANE_QUADS; i++) {
        output[h * LANE_QUADS + i] *= rescale;
      }
      @unroll for (var r = 0u; r < ROWS; r++) {
        let weight = select(0.0, exp2(logits[r * HEADS + h] - new_max), present[r]);
        denominator[h] += weight;
        weights[r * HEADS + h] = weight;
      }
    }

    @unroll for (var r = 0u; r < ROWS; r++) {
      @unroll for (var s = 0u; s < SLOTS; s++) {
        let value = decode_piece(v_pieces[r * SLOTS + s]);
        @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
          @unroll for (var h = 0u; h < HEADS; h++) {
            output[h * LANE_QUADS + s * PIECE_QUADS + i] += weights[r * HEADS + h] * value[i];
          }
        }
      }
    }
  }

  // Merge the teams.
  if (lane == 0u) {
    @unroll for (var h = 0u; h < HEADS; h++) {
      team_max[team * HEADS + h] = running_max[h];
      team_denominator[team * HEADS + h] = denominator[h];
    }
  }
  workgroupBarrier();
  @unroll for (var h = 0u; h < HEADS; h++) {
    var merged_max = LOWEST;
    for (var t = 0u; t < TEAMS; t++) {
      merged_max = max(merged_max, team_max[t * HEADS + h]);
    }
    var merged = 0.0;
    for (var t = 0u; t < TEAMS; t++) {
      merged += team_denominator[t * HEADS + h] * exp2(team_max[t * HEADS + h] - merged_max);
    }
    let weight = exp2(running_max[h] - merged_max);
    // No key at all: out is 0 and lse is minus infinity.
    let scale = select(0.0, params.out_scale * UNIT / merged, kv_len > 0u);
    let is_head = block * HEADS + h < params.group;
    let head = qo_head(kv_head, block, h);
    if (is_head && local == 0u && params.write_lse != 0u) {
      let bits = bitcast<u32>(merged_max + log2(merged));
      lse[request.q_start * params.num_qo_heads + head] =
        select(MINUS_INFINITY_BITS, bits, kv_len > 0u);
    }
    let out_row = request.q_start * params.out_token + head * params.out_head;
    @unroll for (var first = 0u; first < LANE_QUADS; first += MERGE_QUADS) {
      @unroll for (var i = 0u; i < MERGE_QUADS; i++) {
        team_output[i * WORKGROUP + local] = output[h * LANE_QUADS + first + i] * weight;
      }
      workgroupBarrier();
      // The lanes share the sums over teams among them.
      for (var j = local; j < TEAM * MERGE_QUADS; j += WORKGROUP) {
        let quad = first + j / TEAM;
        let piece = (quad / PIECE_QUADS) * TEAM + j % TEAM;
        if (is_head && piece < PIECES) {
          var total = vec4<f32>(0.0);
          for (var t = 0u; t < TEAMS; t++) {
            total += team_output[(j / TEAM) * WORKGROUP + t * TEAM + j % TEAM];
          }
          out[out_row + piece * PIECE_QUADS + quad % PIECE_QUADS] =
            out_format::encode_quad(total * scale);
        }
      }
      workgroupBarrier();
    }
  }
}

// The query head of a block; blocks past the group's end repeat its last head and write nothing.
fn qo_head(kv_head: u32, block: u32, h: u32) -> u32 {
  return kv_head * params.group + min(block * HEADS + h, params.group - 1u);
}
