// Prefill attention: many query tokens a request against its keys, for any group size.
//
// Grid: one workgroup for each (tile of packed rows with a stretch of keys, KV head), in one dimension
//   folded over x and y. Packed rows (FlashInfer #301): row p of a KV head is head p % group of query
//   p / group, so that a tile of k or v is loaded once for the whole group.
// Bindings: 0 params; 1 tables (works, heads, mask); 2 q; 3 k; 4 v (prefill/stage.wgsl); 5 out; 6 lse;
//   7 page table (address.wgsl), or scales of tokens (token_scales.wgsl); 8 turns (rope.wgsl).
//
// A workgroup is ROW_LANES x KEY_LANES lanes. For TILE_ROWS = ROW_LANES · LANE_ROWS rows it goes through
// the keys, TILE_KEYS = KEY_LANES · LANE_KEYS at a time:
//   S = q·kᵀ       a lane has LANE_ROWS x LANE_KEYS of it, summed over chunks of dims
//   P = 2^(scale·S - m),  d = sum P     (logits.wgsl, masks; m as in decode.wgsl: it grows when it must)
//   P = scaled P   where values have scales of their own, as keys then have in S (prefill/scales.wgsl)
//   O += P·v       a lane has LANE_ROWS x 4 · VALUE_QUADS of it; P goes through workgroup memory
//   out = O / d,   lse = m + log2 d
// Both products are sums of outer products, in stages of some dims or keys (prefill/tiles.wgsl,
// prefill/product.wgsl). What a lane reads lies at constant distances from few dynamic indices, since naga
// clamps each of those, and sums have constant indices (bench/notes/prefill.md).

import constants::{
  CHUNKS, KEY_LANES, KEY_QUADS, K_LOADS, LANE_KEYS, LANE_ROWS, Q_LOADS, ROW_LANES, ROW_QUADS, RUN,
  STAGE_QUADS, STAGES, TILE_KEYS, TILE_ROWS, V_LOADS, V_QUADS, VALUE_QUADS, WORKGROUP,
};
import package::logits::transform;
import package::params::{Row, Work, head_at, mask_at, params, row_at, work_at};
import package::k_pieces;
import package::q_format;
import package::v_format;
import package::v_pieces;
import package::out_format;
import package::prefill::stage::{
  NONE, PAIR, key_rows, load_keys, load_queries, load_values, odd_stage, q_tile_row, store_keys,
  store_queries, store_values, value_rows,
};
import package::prefill::tiles::{column_tile, key_of, row_of, row_tile, value_quad_of};
@if(token_scales) import package::prefill::scales::load_scales;
@if(caller_transform) import package::prefill::variant::caller_transform;
@if(caller_mask) import package::prefill::variant::caller_mask;
import package::prefill::weights::store_weights;
import package::rows::{any_lane, rows_max, rows_sum};
import package::scores_product;
import package::values_product;

// Shuffles under a branch that whole subgroups take; Tint cannot see that they do.
@if(enable_subgroups) diagnostic(off, subgroup_uniformity);

@group(0) @binding(5) var<storage, read_write> out: array<out_format::Quad>;
@group(0) @binding(6) var<storage, read_write> lse: array<u32>;

// What turns a row's q·k to a logit. To save registers, drivers would load it again for every tile.
var<workgroup> row_scales: array<array<vec4<f32>, ROW_LANES>, ROW_QUADS>;

const LOWEST = -3.4028234663852886e38;
const FIRST_REFERENCE = -1.7e38;
const GROWTH = 8.0;
const LN_2 = 0.6931471805599453;
const LOG2_E = 1.4426950408889634;
const MINUS_INFINITY_BITS = 0xff800000u;
const STAGE_KEYS = 4u * STAGE_QUADS;

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let index = workgroup.y * grid.x + workgroup.x;
  if (index >= params.num_work) {
    return;
  }
  let kv_head = params.first_kv_head + index % params.num_kv_heads;
  let work = work_at(index / params.num_kv_heads);
  let key_lane = local % KEY_LANES;
  let row_lane = local / KEY_LANES;

  // The rows of q that this lane loads, and what the tile's rows see.
  var q_rows: array<u32, Q_LOADS>;
  var q_positions: array<i32, Q_LOADS>;
  @unroll for (var n = 0u; n < Q_LOADS; n++) {
    let packed = work.first_row + q_tile_row(n, local);
    let row = row_at(work, kv_head, packed);
    let start = (work.q_row + row.query) * params.q_token + row.qo_head * params.q_head;
    q_rows[n] = select(NONE, start, packed < work.qo_len * params.group);
    q_positions[n] = row.position;
  }
  let least_position = row_at(work, kv_head, work.first_row).position;
  let most_position = row_at(work, kv_head, work.first_row + TILE_ROWS - 1u).position;

  for (var row = local; row < TILE_ROWS; row += WORKGROUP) {
    row_scales[row / (4u * ROW_LANES)][(row / 4u) % ROW_LANES][row % 4u] =
      head_at(row_at(work, kv_head, work.first_row + row).qo_head).logit_scale;
  }
  var reference: array<f32, LANE_ROWS>;
  var denominator: array<f32, LANE_ROWS>;
  var output: array<vec4<f32>, LANE_ROWS * VALUE_QUADS>;
  @unroll for (var i = 0u; i < LANE_ROWS; i++) {
    reference[i] = FIRST_REFERENCE;
    denominator[i] = 0.0;
    @unroll for (var h = 0u; h < VALUE_QUADS; h++) {
      output[i * VALUE_QUADS + h] = vec4<f32>(0.0);
    }
  }

  // Of k, q and v a stage is on its way always, the next tile's behind a tile's last.
  let has_keys = work.end_key > work.first_key;
  let tiles = select(0u, (work.end_key - work.first_key + TILE_KEYS - 1u) / TILE_KEYS, has_keys);
  var number = 0u; // of stages of v
  var k_rows = key_rows(work, kv_head, work.first_key, local);
  var key_pieces: array<k_pieces::Piece, K_LOADS * PAIR>;
  load_keys(&key_pieces, k_rows, 0u, local);
  var q_quads: array<q_format::Quad, Q_LOADS * PAIR>;
  load_queries(&q_quads, q_rows, 0u, local);
  var v_rows = value_rows(work, kv_head, work.first_key, local);
  var value_pieces: array<v_pieces::Piece, V_LOADS>;
  load_values(&value_pieces, v_rows, work, work.first_key, local);
  // Where there is a page table, rows are looked up ahead: a load that waited for it would hold up all.
  @if(paged) v_rows = value_rows(work, kv_head, work.first_key + STAGE_KEYS, local);
  for (var tile = 0u; tile < tiles; tile++) {
    let first = work.first_key + tile * TILE_KEYS;
    @if(token_scales) let key_scales = load_scales(work, kv_head, first, key_lane);
    @if(paged) let next_rows = key_rows(work, kv_head, first + TILE_KEYS, local);
    var scores = array<vec4<f32>, LANE_ROWS * KEY_QUADS>(); // a plain declaration is zeroed once
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
      workgroupBarrier();
      store_keys(key_pieces, work, first, chunk, local);
      store_queries(q_quads, q_positions, chunk, local);
      workgroupBarrier();
      let first_step = scores_product::first_step(row_lane, key_lane);
      var next_chunk = chunk + 1u;
      if (next_chunk == CHUNKS) {
        next_chunk = 0u;
        @if(paged) k_rows = next_rows;
        @else k_rows = key_rows(work, kv_head, first + TILE_KEYS, local);
      }
      load_keys(&key_pieces, k_rows, next_chunk, local);
      load_queries(&q_quads, q_rows, next_chunk, local);
      scores_product::add_product(&scores, first_step, row_lane, key_lane);
    }

    @unroll for (var i = 0u; i < LANE_ROWS; i++) {
      @unroll for (var j = 0u; j < KEY_QUADS; j++) {
        scores[i * KEY_QUADS + j] *= row_scales[i / 4][row_lane][i % 4];
        @if(token_scales) scores[i * KEY_QUADS + j] *= key_scales.k[j];
      }
    }
    @if(alibi || soft_cap) {
      @unroll for (var i = 0u; i < LANE_ROWS; i++) {
        let row = row_at(work, kv_head, work.first_row + row_of(i, row_lane));
        let slope = head_at(row.qo_head).slope;
        @unroll for (var j = 0u; j < KEY_QUADS; j++) {
          @unroll for (var n = 0u; n < 4; n++) {
            let distance = f32(i32(first + key_of(4 * j + n, key_lane)) - row.position);
            scores[i * KEY_QUADS + j][n] = transform(scores[i * KEY_QUADS + j][n], slope, distance);
          }
        }
      }
    }
    @if(caller_transform) {
      @unroll for (var i = 0u; i < LANE_ROWS; i++) {
        let row = row_at(work, kv_head, work.first_row + row_of(i, row_lane));
        @unroll for (var j = 0u; j < LANE_KEYS; j++) {
          let key = first + key_of(j, key_lane);
          // In natural units, and back to base 2.
          scores[i * KEY_QUADS + j / 4][j % 4] = LOG2_E * caller_transform(
            scores[i * KEY_QUADS + j / 4][j % 4] * LN_2, work.request, row.query, key, row.qo_head,
          );
        }
      }
    }
    // Whether some row does not see some key of the tile.
    let last_key = i32(first + TILE_KEYS) - 1;
    var is_partial = first + TILE_KEYS > work.end_key ||
      (params.causal != 0u && last_key > least_position) ||
      i32(first) < most_position - params.window_left;
    @if(masked || caller_mask) is_partial = true;
    if (is_partial) {
      @unroll for (var i = 0u; i < LANE_ROWS; i++) {
        let row = row_at(work, kv_head, work.first_row + row_of(i, row_lane));
        let least = row.position - params.window_left;
        let last = i32(work.end_key) - 1;
        let most = select(last, min(last, row.position), params.causal != 0u);
        @unroll for (var j = 0u; j < LANE_KEYS; j += RUN) {
          let first_key = first + key_of(j, key_lane);
          @if(masked) let seen = mask_at(work, row.query, first_key) >> (first_key % 32u);
          @unroll for (var n = 0u; n < RUN; n++) {
            let key = i32(first_key + n);
            var is_seen = key >= least && key <= most;
            @if(masked) is_seen = is_seen && ((seen >> n) & 1u) != 0u;
            @if(caller_mask) {
              is_seen = is_seen && caller_mask(work.request, row.query, first_key + n, row.qo_head);
            }
            scores[i * KEY_QUADS + (j + n) / 4][(j + n) % 4] =
              select(LOWEST, scores[i * KEY_QUADS + (j + n) / 4][(j + n) % 4], is_seen);
          }
        }
      }
    }

    var largest: array<f32, LANE_ROWS>;
    var is_beyond = false;
    @unroll for (var i = 0u; i < LANE_ROWS; i++) {
      var most = scores[i * KEY_QUADS];
      @unroll for (var j = 1u; j < KEY_QUADS; j++) {
        most = max(most, scores[i * KEY_QUADS + j]);
      }
      largest[i] = max(max(most.x, most.y), max(most.z, most.w));
      is_beyond = is_beyond || largest[i] > reference[i] + GROWTH;
    }
    if (any_lane(is_beyond)) {
      largest = rows_max(largest, local);
      @unroll for (var i = 0u; i < LANE_ROWS; i++) {
        let grown = max(reference[i], largest[i]);
        let rescale = exp2(reference[i] - grown);
        reference[i] = grown;
        denominator[i] *= rescale;
        @unroll for (var h = 0u; h < VALUE_QUADS; h++) {
          output[i * VALUE_QUADS + h] *= rescale;
        }
      }
    }
    @unroll for (var i = 0u; i < LANE_ROWS; i++) {
      @unroll for (var j = 0u; j < KEY_QUADS; j++) {
        let weights = exp2(scores[i * KEY_QUADS + j] - reference[i]);
        scores[i * KEY_QUADS + j] = weights;
        denominator[i] += (weights.x + weights.y) + (weights.z + weights.w);
        // Scales of keys that a row does not see may be anything.
        @if(token_scales) scores[i * KEY_QUADS + j] =
          select(weights * key_scales.v[j], vec4<f32>(0.0), weights == vec4<f32>(0.0));
      }
    }

    for (var stage = 0u; stage < STAGES && first + stage * STAGE_KEYS < work.end_key; stage++) {
      number += 1u;
      workgroupBarrier();
      store_weights(scores, stage, row_lane, key_lane);
      store_values(value_pieces, local, number, is_partial);
      workgroupBarrier();
      let first_step = values_product::first_step(row_lane, key_lane);
      let next = first + (stage + 1u) * STAGE_KEYS;
      @if(!paged) v_rows = value_rows(work, kv_head, next, local);
      load_values(&value_pieces, v_rows, work, next, local);
      @if(paged) v_rows = value_rows(work, kv_head, next + STAGE_KEYS, local);
      // Weights of 0 do not silence numbers that are not finite, and there are none without a mask.
      if (is_partial && atomicLoad(&odd_stage) >= number) {
        for (var c = 0u; c < STAGE_QUADS; c++) {
          for (var n = 0u; n < 4u; n++) {
            @unroll for (var i = 0u; i < LANE_ROWS; i++) {
              let weight = row_tile[c].steps[n].rows[i / 4][row_lane][i % 4];
              @unroll for (var h = 0u; h < VALUE_QUADS; h++) {
                let value = column_tile[c].steps[n][h][key_lane];
                output[i * VALUE_QUADS + h] = select(
                  fma(vec4<f32>(weight), value, output[i * VALUE_QUADS + h]),
                  output[i * VALUE_QUADS + h], weight == 0.0,
                );
              }
            }
          }
        }
      } else {
        values_product::add_product(&output, first_step, row_lane, key_lane);
      }
    }
  }

  denominator = rows_sum(denominator, local);
  @unroll for (var i = 0u; i < LANE_ROWS; i++) {
    let packed = work.first_row + row_of(i, row_lane);
    if (packed < work.qo_len * params.group) {
      let row = row_at(work, kv_head, packed);
      let head = head_at(row.qo_head);
      var level = reference[i];
      var sum = denominator[i];
      // A row that sees no key has the first reference.
      let is_empty = !has_keys || (reference[i] == FIRST_REFERENCE && sum == 0.0);
      var has_sum = !is_empty;
      var lowered = 1.0;
      @if(sinks) {
        level = select(max(reference[i], head.sink), head.sink, is_empty);
        lowered = exp2(reference[i] - level);
        sum = select(sum * lowered, 0.0, is_empty) + exp2(head.sink - level);
        has_sum = true;
      }
      let out_row = work.out_row + row.query * work.out_step;
      if (key_lane == 0u && params.write_lse != 0u) {
        let bits = bitcast<u32>((level + log2(sum)) * params.lse_scale);
        lse[out_row * params.num_qo_heads + row.qo_head] = select(MINUS_INFINITY_BITS, bits, has_sum);
      }
      let scale = select(lowered * (head.out_scale * v_format::UNIT / sum), 0.0, is_empty);
      @unroll for (var h = 0u; h < VALUE_QUADS; h++) {
        let quad = value_quad_of(h, key_lane);
        if (quad < V_QUADS) {
          // NaN in v times 0 is for the rows that see it only.
          let value = select(output[i * VALUE_QUADS + h] * scale, vec4<f32>(0.0), is_empty);
          out[out_row * params.out_token + row.qo_head * params.out_head + quad] =
            out_format::encode_quad(value);
        }
      }
    }
  }
}
