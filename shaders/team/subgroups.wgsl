// What a team of lanes does together, by shuffles. A team lies within a subgroup: TEAM is a power of
// two, at most the smallest subgroup of the device. `place` is the lane's in its subgroup.
//
// A team has VALUES numbers in every lane, for ROWS rows of HEADS heads (value r·HEADS + h). Summing
// them over the lanes, it halves them as it goes, so that lane l ends with the OWN sums from
// (l / COPIES)·OWN on: COPIES lanes hold the same. That takes VALUES shuffles, not VALUES·log2 TEAM.

import constants::{COPIES, HALVINGS, HEADS, OWN, REFS, ROW_STRIDE, STAGES, TEAM, VALUES, WORKGROUP};

// Tint demands the extension, naga does not know it. (WESL wants imports before directives.)
@if(enable_subgroups) enable subgroups;

fn team_reduce(partial: array<f32, VALUES>, place: u32) -> array<f32, OWN> {
  var sums = partial;
  @unroll for (var s = 0u; s < HALVINGS; s++) {
    let is_upper = (place & (TEAM >> (s + 1u))) != 0u;
    @unroll for (var i = 0u; i < VALUES >> (s + 1u); i++) {
      let lower = sums[i];
      let upper = sums[i + (VALUES >> (s + 1u))];
      sums[i] = select(lower, upper, is_upper) +
        subgroupShuffleXor(select(upper, lower, is_upper), TEAM >> (s + 1u));
    }
  }
  // An odd number of values cannot be halved.
  @unroll for (var s = HALVINGS; s < STAGES; s++) {
    @unroll for (var i = 0u; i < OWN; i++) {
      sums[i] += subgroupShuffleXor(sums[i], TEAM >> (s + 1u));
    }
  }
  var own: array<f32, OWN>;
  @unroll for (var i = 0u; i < OWN; i++) {
    own[i] = sums[i];
  }
  return own;
}

// The lane of this team that owns a value.
fn owner(place: u32, value: u32) -> u32 {
  return place - place % TEAM + (value / OWN) * COPIES;
}

// Every lane gets all values of the team: each from its owner, or, where there are many, all through
// workgroup memory, in two places by turns, so that one barrier a step will do.
@if(!gather_memory) fn team_gather(
  own: array<f32, OWN>, place: u32, local: u32, step: u32,
) -> array<f32, VALUES> {
  var values: array<f32, VALUES>;
  @unroll for (var x = 0u; x < VALUES; x++) {
    values[x] = subgroupShuffle(own[x % OWN], owner(place, x));
  }
  return values;
}

@if(gather_memory) var<workgroup> gathered: array<vec4<f32>, 2 * (WORKGROUP / TEAM) * (VALUES / 4)>;
@if(gather_memory) fn team_gather(
  own: array<f32, OWN>, place: u32, local: u32, step: u32,
) -> array<f32, VALUES> {
  let first = ((step % 2u) * (WORKGROUP / TEAM) + local / TEAM) * (VALUES / 4u);
  let lane = local % TEAM;
  if (lane % COPIES == 0u) {
    @unroll for (var i = 0u; i < OWN; i++) {
      let value = (lane / COPIES) * OWN + i;
      gathered[first + value / 4u][value % 4u] = own[i];
    }
  }
  workgroupBarrier();
  var values: array<f32, VALUES>;
  @unroll for (var i = 0u; i < VALUES / 4; i++) {
    let four = gathered[first + i];
    @unroll for (var c = 0u; c < 4; c++) {
      values[4 * i + c] = four[c];
    }
  }
  return values;
}

// Every lane gets, for all heads, what the owners of the first row have.
fn team_gather_heads(refs: array<f32, REFS>, place: u32) -> array<f32, HEADS> {
  var values: array<f32, HEADS>;
  @unroll for (var h = 0u; h < HEADS; h++) {
    values[h] = subgroupShuffle(refs[h % REFS], owner(place, h));
  }
  return values;
}

// The largest over the lanes that own other rows of the same heads.
fn rows_max(value: f32) -> f32 {
  var result = value;
  @unroll for (var distance = ROW_STRIDE; distance < TEAM; distance *= 2u) {
    result = max(result, subgroupShuffleXor(result, distance));
  }
  return result;
}

// The sum over the lanes that own other rows of the same heads.
fn rows_sum(value: f32) -> f32 {
  var result = value;
  @unroll for (var distance = ROW_STRIDE; distance < TEAM; distance *= 2u) {
    result += subgroupShuffleXor(result, distance);
  }
  return result;
}

// Whether it is so for a lane of the team (and perhaps of teams beside it).
fn team_any(flag: bool) -> bool {
  return subgroupAny(flag);
}
