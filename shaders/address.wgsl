// The one address rule of every cache, in pieces:
//   page · page_stride + token · token_stride + head · head_stride
// NHD and HND differ in strides only. A padded cache is a paged one with a long page a request.

import package::params::{Request, params};

fn k_row(request: Request, kv_head: u32, position: u32) -> u32 {
  return request.first_page * params.k_page + position * params.k_token + kv_head * params.k_head;
}

fn v_row(request: Request, kv_head: u32, position: u32) -> u32 {
  return request.first_page * params.v_page + position * params.v_token + kv_head * params.v_head;
}
