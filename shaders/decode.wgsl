// Decode attention: one query token a request against its KV cache.
//
// Grid: one workgroup for each (stretch of keys, KV head, block of query heads of its group), in one
//   dimension folded over x and y, so that a cache row is read once for all query heads of a block. A
//   stretch is all keys of a request, or a part, whose result is then a state for merge.wgsl.
// Bindings: 0 params; 1 tables (stretches, heads); 2 q; 3 k; 4 v (rows.wgsl); 5 out; 6 lse; 7 page
//   table (address.wgsl), or scales of tokens (token_scales.wgsl); 8 turns (rope.wgsl).
//
// A workgroup is TEAMS · PARTS teams of TEAM lanes; a team serves HEADS heads, PARTS teams that share
// their rows serve a block. A lane owns every TEAM-th piece of a row. A team has ROWS rows in flight, of
// keys that follow each other: the next are loaded as soon as these are used, or, where registers allow,
// before (`early`); the pages of those after them are looked up ahead. With
// s_j = scale·log2(e)·q·k_j (then logits.wgsl), and a reference m that no s_j exceeds by more than GROWTH:
//   d = sum 2^(s_j - m),   o = sum 2^(s_j - m)·v_j,   out = o / d,   lse = m + log2 d
// Where tokens have scales, s_j takes that of k_j, and the weight of v_j its own; lanes load those of the
// sums that they own, a step ahead.
// Online softmax (Milakov and Gimelshein 2018; Dao et al. 2022), but m grows only when it must
// (FlashAttention-4), so that o is seldom rescaled. Each team keeps its own (m, d, o); at the end the
// teams are merged. bench/notes/decode.md tells what else was tried.

import constants::{
  COPIES, HALF_SLOTS, HEADS, LANE_QUADS, MERGE_QUADS, OWN, PARTS, PIECE_QUADS, REFS, ROWS,
  ROW_STRIDE, SLOTS, TEAM, TEAMS, VALUES, WORKGROUP,
};
import package::logits::transform;
import package::params::{Head, Work, head_at, params, work_at};
import package::k_format;
import package::k_pieces;
import package::v_format;
import package::v_pieces;
import package::q_format;
import package::out_format;
import package::rows::{
  has_piece, kept, load_keys, load_values, pages_of, piece_at, piece_index, present_keys,
  present_values, v, value_row,
};
@if(token_scales) import package::rows::{load_scales, present_scales};
import package::rope::{Turn, turn_of, turned_lower, turned_upper};
import package::team::{
  rows_max, rows_sum, team_any, team_gather, team_gather_heads, team_reduce,
};

// Shuffles under a branch that whole subgroups take; Tint cannot see that they do. (WESL keeps it in the
// main module only.)
@if(enable_subgroups) diagnostic(off, subgroup_uniformity);

@group(0) @binding(2) var<storage, read> q: array<q_format::Quad>;
@group(0) @binding(5) var<storage, read_write> out: array<out_format::Quad>;
@group(0) @binding(6) var<storage, read_write> lse: array<u32>;

// Infinities may not be relied upon in WGSL. Logits of absent keys lie far below the first reference,
// so that their weights are 0.
const LOWEST = -3.4028234663852886e38;
const FIRST_REFERENCE = -1.7e38;
// Weights reach 2^GROWTH before the reference follows.
const GROWTH = 8.0;
const MINUS_INFINITY_BITS = 0xff800000u;

var<workgroup> team_reference: array<f32, TEAMS * PARTS * HEADS>;
var<workgroup> team_denominator: array<f32, TEAMS * PARTS * HEADS>;
var<workgroup> team_output: array<vec4<f32>, WORKGROUP * MERGE_QUADS>;
@if(k_nan_marks) var<workgroup> key_marks: atomic<u32>;
@if(v_nan_marks) var<workgroup> value_marks: array<atomic<u32>, SLOTS * TEAM * PIECE_QUADS>;

fn add_products(sum: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
  return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
  @if(subgroups) @builtin(subgroup_invocation_id) subgroup_place: u32,
) {
  // Where teams meet: in the subgroup, or in workgroup memory.
  @if(subgroups) let place = subgroup_place;
  @else let place = local;
  let index = workgroup.y * grid.x + workgroup.x;
  if (index >= params.num_work) {
    return;
  }
  let block = index % params.head_blocks;
  let kv_head = params.first_kv_head + (index / params.head_blocks) % params.num_kv_heads;
  let work = work_at(index / (params.head_blocks * params.num_kv_heads));
  let lane = local % TEAM;
  let part = (local / TEAM) % PARTS;
  let team = local / (TEAM * PARTS);
  let first_head = (block * PARTS + part) * HEADS; // of the group

  // This lane's part of the query heads, with the scales folded in.
  var query: array<vec4<f32>, HEADS * LANE_QUADS>;
  @unroll for (var h = 0u; h < HEADS; h++) {
    let head = qo_head(kv_head, first_head + h);
    let row = work.q_row * params.q_token + head * params.q_head;
    let logit_scale = head_at(head).logit_scale * q_format::UNIT * k_format::UNIT;
    @unroll for (var s = 0u; s < SLOTS; s++) {
      let first = row + piece_index(s, lane) * PIECE_QUADS;
      let scale = select(0.0, logit_scale, has_piece(s, lane));
      @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
        query[h * LANE_QUADS + s * PIECE_QUADS + i] = q_format::decode_quad(q[first + i]) * scale;
      }
    }
    @if(rope) {
      @unroll for (var s = 0u; s < HALF_SLOTS; s++) {
        @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
          let turn = turn_of(max(work.kv_len, 1u) - 1u, piece_index(s, lane) * PIECE_QUADS + i);
          let lower = query[h * LANE_QUADS + s * PIECE_QUADS + i];
          let upper = query[h * LANE_QUADS + (HALF_SLOTS + s) * PIECE_QUADS + i];
          query[h * LANE_QUADS + s * PIECE_QUADS + i] = turned_lower(lower, upper, turn);
          query[h * LANE_QUADS + (HALF_SLOTS + s) * PIECE_QUADS + i] =
            turned_upper(lower, upper, turn);
        }
      }
    }
  }

  // Of the values that this lane owns (team/), the first, and the state of their heads.
  let first_own = (lane / COPIES) * OWN;
  var reference: array<f32, REFS>;
  var denominator: array<f32, REFS>;
  @if(alibi) var slopes: array<f32, REFS>;
  @unroll for (var i = 0u; i < REFS; i++) {
    reference[i] = FIRST_REFERENCE;
    denominator[i] = 0.0;
    @if(alibi) slopes[i] = head_at(qo_head(kv_head, first_head + (first_own + i) % HEADS)).slope;
  }
  var output: array<vec4<f32>, HEADS * LANE_QUADS>;
  @unroll for (var i = 0u; i < HEADS * LANE_QUADS; i++) {
    output[i] = vec4<f32>(0.0);
  }
  @if(k_nan_marks) var k_mark = 0u;
  @if(v_nan_marks) var v_mark = 0u;

  // Every team takes the same number of steps, so that teams may meet at barriers.
  let steps = (work.end_key - work.first_key + TEAMS * ROWS - 1u) / (TEAMS * ROWS);
  let last_step = max(steps, 1u) - 1u;
  let first_row = work.first_key + team * ROWS;
  var next_pages = pages_of(work, first_row);
  @if(early) var next_keys = load_keys(next_pages, kv_head, first_row, lane);
  @if(early) var next_values = load_values(next_pages, kv_head, first_row, lane);
  @if(!early) var keys = load_keys(next_pages, kv_head, first_row, lane);
  @if(!early) var values = load_values(next_pages, kv_head, first_row, lane);
  @if(token_scales) let own_row = first_own / HEADS;
  @if(token_scales) var next_scales = load_scales(work, next_pages, kv_head, first_row, own_row);
  next_pages = pages_of(work, first_row + min(1u, last_step) * (TEAMS * ROWS));
  for (var step = 0u; step < steps; step++) {
    let first = first_row + step * (TEAMS * ROWS); // the position of row 0
    let is_whole = work.first_key + (step + 1u) * (TEAMS * ROWS) <= work.end_key;
    // The last step loads its own rows again, which is cheap.
    let next = first_row + min(step + 1u, last_step) * (TEAMS * ROWS);
    let pages = next_pages;
    next_pages = pages_of(work, first_row + min(step + 2u, last_step) * (TEAMS * ROWS));
    @if(early) var keys = next_keys;
    @if(early) var values = next_values;
    @if(early) next_keys = load_keys(pages, kv_head, next, lane);
    @if(early) next_values = load_values(pages, kv_head, next, lane);
    @if(token_scales) var scales = next_scales;
    @if(token_scales) next_scales = load_scales(work, pages, kv_head, next, own_row);
    if (!is_whole) {
      keys = present_keys(keys, first, work.end_key);
      @if(token_scales) scales = present_scales(scales, first + own_row, work.end_key);
    }
    @if(k_nan_marks) {
      @unroll for (var r = 0u; r < ROWS; r++) {
        @unroll for (var s = 0u; s < SLOTS; s++) {
          k_mark |= k_pieces::nan_mark(keys[r * SLOTS + s]);
        }
      }
    }

    var partial = array<f32, VALUES>(); // naga zeroes a plain declaration once, not every round
    @if(!rope) {
      @unroll for (var s = 0u; s < SLOTS; s++) {
        @unroll for (var r = 0u; r < ROWS; r++) {
          let key = k_pieces::decode_piece(kept(keys[r * SLOTS + s], s, lane));
          @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
            @unroll for (var h = 0u; h < HEADS; h++) {
              partial[r * HEADS + h] = add_products(
                partial[r * HEADS + h], query[h * LANE_QUADS + s * PIECE_QUADS + i], key[i],
              );
            }
          }
        }
      }
    }
    @if(rope) {
      @unroll for (var r = 0u; r < ROWS; r++) {
        let position = min(first + r, work.end_key - 1u);
        @unroll for (var s = 0u; s < HALF_SLOTS; s++) {
          let lower = k_pieces::decode_piece(kept(keys[r * SLOTS + s], s, lane));
          let upper = k_pieces::decode_piece(kept(keys[r * SLOTS + HALF_SLOTS + s], s, lane));
          @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
            let turn = turn_of(position, piece_index(s, lane) * PIECE_QUADS + i);
            let turned = array<vec4<f32>, 2>(
              turned_lower(lower[i], upper[i], turn), turned_upper(lower[i], upper[i], turn),
            );
            @unroll for (var h = 0u; h < HEADS; h++) {
              partial[r * HEADS + h] = add_products(
                add_products(
                  partial[r * HEADS + h], query[h * LANE_QUADS + s * PIECE_QUADS + i], turned[0],
                ),
                query[h * LANE_QUADS + (HALF_SLOTS + s) * PIECE_QUADS + i], turned[1],
              );
            }
          }
        }
      }
    }
    @if(!early) keys = load_keys(pages, kv_head, next, lane);
    var own = team_reduce(partial, place);
    @if(token_scales) {
      @unroll for (var i = 0u; i < OWN; i++) {
        own[i] *= scales[i / REFS].x;
      }
    }

    @if(alibi || soft_cap) {
      @unroll for (var i = 0u; i < OWN; i++) {
        let position = first + (first_own + i) / HEADS;
        let distance = f32(i32(position) - i32(work.kv_len - 1u));
        @if(alibi) own[i] = transform(own[i], slopes[i % REFS], distance);
        @else own[i] = transform(own[i], 0.0, distance);
      }
    }
    if (!is_whole) {
      @unroll for (var i = 0u; i < OWN; i++) {
        let position = first + (first_own + i) / HEADS;
        own[i] = select(LOWEST, own[i], position < work.end_key);
      }
    }
    var is_beyond = false;
    @unroll for (var i = 0u; i < OWN; i++) {
      is_beyond = is_beyond || own[i] > reference[i % REFS] + GROWTH;
    }
    if (team_any(is_beyond)) {
      var rescale: array<f32, REFS>;
      @unroll for (var i = 0u; i < REFS; i++) {
        var largest = reference[i];
        @unroll for (var j = i; j < OWN; j += REFS) {
          largest = max(largest, own[j]);
        }
        largest = rows_max(largest);
        rescale[i] = exp2(reference[i] - largest);
        reference[i] = largest;
        denominator[i] *= rescale[i];
      }
      let rescales = team_gather_heads(rescale, place);
      @unroll for (var h = 0u; h < HEADS; h++) {
        @unroll for (var i = 0u; i < LANE_QUADS; i++) {
          output[h * LANE_QUADS + i] *= rescales[h];
        }
      }
    }
    @unroll for (var i = 0u; i < OWN; i++) {
      own[i] = exp2(own[i] - reference[i % REFS]);
      denominator[i % REFS] += own[i];
      @if(token_scales) own[i] *= scales[i / REFS].y;
    }
    let weights = team_gather(own, place, local, step);

    if (!is_whole) {
      values = present_values(values, first, work.end_key);
    }
    @if(v_nan_marks) {
      @unroll for (var r = 0u; r < ROWS; r++) {
        @unroll for (var s = 0u; s < SLOTS; s++) {
          v_mark |= v_pieces::nan_mark(values[r * SLOTS + s]);
        }
      }
    }
    @unroll for (var r = 0u; r < ROWS; r++) {
      @unroll for (var s = 0u; s < SLOTS; s++) {
        let value = v_pieces::decode_piece(values[r * SLOTS + s]);
        @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
          @unroll for (var h = 0u; h < HEADS; h++) {
            output[h * LANE_QUADS + s * PIECE_QUADS + i] = fma(
              vec4<f32>(weights[r * HEADS + h]), value[i],
              output[h * LANE_QUADS + s * PIECE_QUADS + i],
            );
          }
        }
      }
    }
    @if(!early) values = load_values(pages, kv_head, next, lane);
  }

  // Merge the teams.
  @unroll for (var i = 0u; i < REFS; i++) {
    let sum = rows_sum(denominator[i]);
    if (lane % COPIES == 0u && lane < ROW_STRIDE) {
      let at = (team * PARTS + part) * HEADS + (first_own + i) % HEADS;
      team_reference[at] = reference[i];
      team_denominator[at] = sum;
    }
  }
  @if(k_nan_marks) {
    if ((k_mark & 0x80808080u) != 0u) {
      atomicOr(&key_marks, 1u);
    }
  }
  @if(v_nan_marks) {
    // Which of its columns they are in, a lane that met any finds out now.
    if ((v_mark & 0x80808080u) != 0u) {
      for (var step = 0u; step < steps; step++) {
        let first = first_row + step * (TEAMS * ROWS);
        let pages = pages_of(work, first);
        @unroll for (var r = 0u; r < ROWS; r++) {
          if (first + r < work.end_key) {
            let row = value_row(pages, kv_head, first, r);
            @unroll for (var s = 0u; s < SLOTS; s++) {
              let piece = piece_index(s, lane);
              let marks = v_pieces::marks_of(v[row + piece]);
              @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
                atomicOr(&value_marks[piece * PIECE_QUADS + i], v_pieces::mark_word(marks, i));
              }
            }
          }
        }
      }
    }
  }
  workgroupBarrier();
  let has_keys = work.end_key > work.first_key;
  @unroll for (var h = 0u; h < HEADS; h++) {
    var merged_reference = FIRST_REFERENCE;
    for (var t = 0u; t < TEAMS; t++) {
      merged_reference = max(merged_reference, team_reference[(t * PARTS + part) * HEADS + h]);
    }
    var merged = 0.0;
    for (var t = 0u; t < TEAMS; t++) {
      let at = (t * PARTS + part) * HEADS + h;
      merged += team_denominator[at] * exp2(team_reference[at] - merged_reference);
    }
    let is_head = first_head + h < params.group;
    let head = head_at(qo_head(kv_head, first_head + h));
    var weight = exp2(team_reference[(team * PARTS + part) * HEADS + h] - merged_reference);
    var level = merged_reference; // merged is relative to it
    @if(sinks) {
      level = select(head.sink, max(merged_reference, head.sink), has_keys);
      let lowered = exp2(merged_reference - level);
      merged = select(0.0, merged * lowered, has_keys) + exp2(head.sink - level);
      weight *= lowered;
    }
    @if(k_nan_marks) {
      // Any NaN among the keys is in every logit's sum.
      if (atomicLoad(&key_marks) != 0u) {
        merged = bitcast<f32>(params.nan_bits);
      }
    }
    // No key at all, or none of a logit above minus infinity: out is 0 and lse is minus infinity.
    let has_weight = bitcast<u32>(merged) != 0u; // NaN counts
    let scale = select(0.0, weight * (head.out_scale * v_format::UNIT / merged), has_weight);
    if (is_head && team == 0u && lane == 0u && params.write_lse != 0u) {
      let bits = bitcast<u32>((level + log2(merged)) * params.lse_scale);
      lse[work.out_row * params.num_qo_heads + qo_head(kv_head, first_head + h)] =
        select(MINUS_INFINITY_BITS, bits, has_weight);
    }
    @unroll for (var base = 0u; base < LANE_QUADS; base += MERGE_QUADS) {
      @unroll for (var i = 0u; i < MERGE_QUADS; i++) {
        team_output[i * WORKGROUP + local] = output[h * LANE_QUADS + base + i] * scale;
      }
      workgroupBarrier();
      // The lanes share the sums over teams among them.
      for (var j = local; j < TEAM * PARTS * MERGE_QUADS; j += WORKGROUP) {
        let column = j % (TEAM * PARTS);
        let lane_quad = base + j / (TEAM * PARTS);
        let slot = lane_quad / PIECE_QUADS;
        let group_head = (block * PARTS + column / TEAM) * HEADS + h;
        if (group_head < params.group && has_piece(slot, column % TEAM)) {
          var total = vec4<f32>(0.0);
          for (var t = 0u; t < TEAMS; t++) {
            total += team_output[(j / (TEAM * PARTS)) * WORKGROUP + t * (TEAM * PARTS) + column];
          }
          let quad = piece_at(slot, column % TEAM) * PIECE_QUADS + lane_quad % PIECE_QUADS;
          @if(v_nan_marks) {
            let marks = vec4<u32>(atomicLoad(&value_marks[quad])) &
              vec4<u32>(0x80u, 0x8000u, 0x800000u, 0x80000000u);
            total = select(
              total, vec4<f32>(bitcast<f32>(params.nan_bits)), marks != vec4<u32>(0u),
            );
          }
          let row = work.out_row * params.out_token + qo_head(kv_head, group_head) * params.out_head;
          out[row + quad] = out_format::encode_quad(total);
        }
      }
      workgroupBarrier();
    }
  }
}

// The query head of a place in its group; places past the group's end repeat its last head and write
// nothing.
fn qo_head(kv_head: u32, group_head: u32) -> u32 {
  return kv_head * params.group + min(group_head, params.group - 1u);
}
