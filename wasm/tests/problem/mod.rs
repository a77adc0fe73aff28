//! An attention problem: its tensors and descriptor in blocks, its answer by the crate, and by a plain loop in f64.

use super::common::{Format, Random};
use kvasir_wasm::attention;
use kvasir_wasm::block::Registry;
use kvasir_wasm::codec::{Place, convert};
use kvasir_wasm::status::Status;

mod plain;

#[derive(Clone)]
pub struct Problem {
    /// (q_len, kv_len) of each request.
    pub lens: Vec<(usize, usize)>,
    pub num_kv_heads: usize,
    pub group: usize,
    pub head_dim: usize,
    pub head_dim_v: usize,
    pub causal: bool,
    pub window_left: Option<u32>,
    /// A mask that hides about one key in so many from each query: 1 hides all.
    pub hides: Option<usize>,
    /// Of every head; what is per head varies around it.
    pub out_scale: f32,
    pub scales_vary: bool,
    /// A scale of each token and KV head, with NaN for all that is no key.
    pub token_scales: bool,
    pub soft_cap: Option<f32>,
    /// Scale and theta.
    pub rope: Option<(f64, f64)>,
    /// The slope of the first head; the next ones are half as steep, each.
    pub alibi: Option<f32>,
    /// The sink of the first head; each next one is greater by 1.
    pub sink: Option<f32>,
    pub lse_scale: f64,
    /// None: a page a request, as long as the longest.
    pub page_size: Option<usize>,
    pub hnd: bool,
    /// None: f32.
    pub q_format: Option<Format>,
    pub kv_format: Option<Format>,
    pub out_format: Option<Format>,
    pub with_lse: bool,
    /// NaN in every row of k and v that is no key.
    pub poison: bool,
    /// A value into the middle of the last request's last head of "k" or "v".
    pub spoil: Option<(&'static str, f32)>,
    pub scale_of_q: f32,
    pub constant_qk: Option<(f32, f32)>,
}

impl Default for Problem {
    fn default() -> Problem {
        Problem {
            lens: vec![(1, 40), (5, 33)],
            num_kv_heads: 2,
            group: 2,
            head_dim: 32,
            head_dim_v: 32,
            causal: false,
            window_left: None,
            hides: None,
            out_scale: 1.0,
            scales_vary: false,
            token_scales: false,
            soft_cap: None,
            rope: None,
            alibi: None,
            sink: None,
            lse_scale: 1.0,
            page_size: None,
            hnd: false,
            q_format: None,
            kv_format: None,
            out_format: None,
            with_lse: true,
            poison: false,
            spoil: None,
            scale_of_q: 1.0,
            constant_qk: None,
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    /// [q rows, heads, head_dim_v]
    pub out: Vec<f32>,
    /// [q rows, heads]
    pub lse: Vec<f32>,
}

/// Bitwise.
impl PartialEq for Answer {
    fn eq(&self, other: &Answer) -> bool {
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        bits(&self.out) == bits(&other.out) && bits(&self.lse) == bits(&other.lse)
    }
}

fn put(blocks: &mut Registry, bytes: &[u8]) -> u32 {
    let handle = blocks.alloc(bytes.len() as u32);
    blocks.get_mut(handle).unwrap().bytes_mut().copy_from_slice(bytes);
    handle
}

fn get(blocks: &Registry, handle: u32) -> Vec<f32> {
    blocks.get(handle).unwrap().bytes().as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect()
}

/// Into another dtype: (handle, dtype).
fn convert_all(blocks: &mut Registry, from: u32, from_dtype: u32, count: usize, to: Option<Format>) -> (u32, u32) {
    let (bytes, dtype) = to.map_or((4, 0), |format| (format.bytes(), format.dtype));
    let handle = blocks.alloc((count * bytes) as u32);
    let place = |handle, dtype| Place { handle, offset: 0, dtype };
    convert(blocks, place(from, from_dtype), place(handle, dtype), count, false).unwrap();
    (handle, dtype)
}

/// A request's values do not depend on the other requests.
fn values_of(name: &str, request: usize) -> Random {
    Random((u64::from(name.as_bytes()[0]) << 32) + request as u64 + 1)
}

/// The problem in blocks.
struct Layout {
    blocks: Registry,
    words: Vec<u32>,
    /// The tensors as f32, after rounding to their dtypes.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    out: (u32, usize),
    lse: u32,
}

impl Problem {
    fn heads(&self) -> usize {
        self.num_kv_heads * self.group
    }

    fn rows(&self) -> usize {
        self.lens.iter().map(|&(q_len, _)| q_len).sum()
    }

    fn page_size(&self) -> usize {
        self.page_size.unwrap_or_else(|| self.lens.iter().map(|&(_, kv_len)| kv_len).max().unwrap_or(0).max(1))
    }

    /// Page numbers of all requests; not in order, and page 0 is nobody's.
    fn pages(&self) -> Vec<u32> {
        let count: usize = self.lens.iter().map(|&(_, kv_len)| kv_len.div_ceil(self.page_size())).sum();
        (0..count).map(|i| (count - i) as u32).collect()
    }

    /// Logit scale, out scale, slope and sink of a head.
    fn head(&self, head: usize) -> [f32; 4] {
        let vary = if self.scales_vary { 1.0 + head as f32 / 8.0 } else { 1.0 };
        let slope = self.alibi.map_or(0.0, |first| first * 0.5f32.powi(head as i32));
        let sink = self.sink.map_or(f32::NEG_INFINITY, |first| first + head as f32);
        [vary / (self.head_dim as f32).sqrt(), self.out_scale / vary, slope, sink]
    }

    /// (page, token, head) strides.
    fn strides(&self, dim: usize) -> [usize; 3] {
        let page = self.page_size() * self.num_kv_heads * dim;
        if self.hnd { [page, dim, self.page_size() * dim] } else { [page, self.num_kv_heads * dim, dim] }
    }

    /// Where a key's row of `dim` begins.
    fn row(&self, request: usize, key: usize, head: usize, dim: usize) -> usize {
        let size = self.page_size();
        let first: usize = self.lens[..request].iter().map(|&(_, kv_len)| kv_len.div_ceil(size)).sum();
        let [page, token, head_stride] = self.strides(dim);
        self.pages()[first + key / size] as usize * page + key % size * token + head * head_stride
    }

    fn cache(&self, dim: usize, name: &str) -> Vec<f32> {
        let filler = if self.poison { f32::NAN } else { 0.25 };
        let mut cache = vec![filler; (self.pages().len() + 1) * self.page_size() * self.num_kv_heads * dim];
        let pages = self.pages();
        let [page, token, head_stride] = self.strides(dim);
        let mut first = 0;
        for (request, &(_, kv_len)) in self.lens.iter().enumerate() {
            let mut random = values_of(name, request);
            for key in 0..kv_len {
                let number = pages[first + key / self.page_size()] as usize;
                for head in 0..self.num_kv_heads {
                    let start = number * page + key % self.page_size() * token + head * head_stride;
                    let values = match self.constant_qk {
                        Some((_, k)) if name == "k" => vec![k; dim],
                        _ => random.units(dim),
                    };
                    cache[start..start + dim].copy_from_slice(&values);
                }
            }
            first += kv_len.div_ceil(self.page_size());
        }
        if let Some((_, value)) = self.spoil.filter(|(tensor, _)| *tensor == name) {
            let last = self.lens.len() - 1;
            cache[self.row(last, self.lens[last].1 / 2, self.num_kv_heads - 1, dim) + dim / 2] = value;
        }
        cache
    }

    /// The scale of a key, or of its value.
    fn token_scale(&self, part: usize, request: usize, key: usize, head: usize) -> f32 {
        if self.token_scales { 0.25 + ((request * 7 + key * 3 + head * 5 + part) % 11) as f32 / 8.0 } else { 1.0 }
    }

    /// [pages, heads, tokens, 2]
    fn token_scales(&self) -> Vec<f32> {
        let (size, heads) = (self.page_size(), self.num_kv_heads);
        let pages = self.pages();
        let mut scales = vec![f32::NAN; (pages.len() + 1) * 2 * heads * size];
        let mut first = 0;
        for (request, &(_, kv_len)) in self.lens.iter().enumerate() {
            for at in 0..kv_len * heads * 2 {
                let (key, head, part) = (at / (heads * 2), at / 2 % heads, at % 2);
                let page = pages[first + key / size] as usize;
                scales[((page * heads + head) * size + key % size) * 2 + part] =
                    self.token_scale(part, request, key, head);
            }
            first += kv_len.div_ceil(size);
        }
        scales
    }

    fn layout(&self) -> Layout {
        let mut blocks = Registry::new();
        let mut q_values = Vec::new();
        for (request, &(q_len, _)) in self.lens.iter().enumerate() {
            let count = q_len * self.heads() * self.head_dim;
            match self.constant_qk {
                Some((q, _)) => q_values.resize(q_values.len() + count, q),
                None => q_values.extend(values_of("q", request).units(count).iter().map(|x| x * self.scale_of_q)),
            }
        }
        let k_values = self.cache(self.head_dim, "k");
        let v_values = self.cache(self.head_dim_v, "v");
        let mut tensor = |values: &[f32], format| {
            let floats = put(&mut blocks, bytemuck::cast_slice(values));
            let (handle, dtype) = convert_all(&mut blocks, floats, 0, values.len(), format);
            let (back, _) = convert_all(&mut blocks, handle, dtype, values.len(), None);
            (handle, dtype, get(&blocks, back))
        };
        let (q_handle, q_dtype, q) = tensor(&q_values, self.q_format);
        let (k_handle, k_dtype, k) = tensor(&k_values, self.kv_format);
        let (v_handle, v_dtype, v) = tensor(&v_values, self.kv_format);
        let count = self.rows() * self.heads() * self.head_dim_v;
        let out_dtype = self.out_format.map_or(0, |format| format.dtype);
        let out = blocks.alloc((count * self.out_format.map_or(4, Format::bytes)) as u32);
        let lse = blocks.alloc((self.rows() * self.heads() * 4) as u32);
        let size = self.page_size();
        let (mut requests, mut q_start, mut first_page) = (Vec::new(), 0, 0);
        for &(q_len, kv_len) in &self.lens {
            requests.extend([q_start, q_len, kv_len, first_page].map(|x| x as u32));
            q_start += q_len;
            first_page += kv_len.div_ceil(size);
        }
        let requests = put(&mut blocks, bytemuck::cast_slice(&requests));
        let pages = put(&mut blocks, bytemuck::cast_slice(&self.pages()));
        let heads: Vec<_> = (0..self.heads()).flat_map(|head| self.head(head)).collect();
        let heads = put(&mut blocks, bytemuck::cast_slice(&heads));
        let number = |x: usize| x as u32;
        let mut words = vec![number(self.lens.len()), number(self.heads()), number(self.num_kv_heads)];
        let flags = [(self.causal, 1), (self.soft_cap.is_some(), 2), (self.rope.is_some(), 4)];
        let flags = flags.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum::<u32>();
        words.extend([number(self.head_dim), number(self.head_dim_v), flags]);
        words.extend([heads, 0, number(size)]);
        words.extend([q_handle, 0, q_dtype, number(self.heads() * self.head_dim), number(self.head_dim)]);
        words.extend([k_handle, 0, k_dtype]);
        words.extend(self.strides(self.head_dim).map(number));
        words.extend([v_handle, 0, v_dtype]);
        words.extend(self.strides(self.head_dim_v).map(number));
        words.extend([out, 0, out_dtype, number(self.heads() * self.head_dim_v), number(self.head_dim_v)]);
        words.extend([if self.with_lse { lse } else { 0 }, 0]);
        words.extend([requests, 0, pages, 0, number(self.pages().len())]);
        words.extend([self.window_left.unwrap_or(u32::MAX), self.soft_cap.unwrap_or(0.0).to_bits()]);
        let (scale, theta) = self.rope.unwrap_or((0.0, 0.0));
        words.extend(
            [scale, theta, self.lse_scale].map(f64::to_bits).iter().flat_map(|&x| [x as u32, (x >> 32) as u32]),
        );
        words.extend(match self.mask_words() {
            None => [0; 4],
            Some((mask, starts)) => {
                let mask = put(&mut blocks, bytemuck::cast_slice(&mask));
                [mask, 0, put(&mut blocks, bytemuck::cast_slice(&starts)), 0]
            }
        });
        if self.token_scales {
            let scales = put(&mut blocks, bytemuck::cast_slice(&self.token_scales()));
            let head = size * self.num_kv_heads;
            words.extend([scales, 0, number(head), number(size)]);
        } else {
            words.extend([0; 4]);
        }
        Layout { blocks, words, q, k, v, out: (out, count), lse }
    }

    pub fn is_hidden(&self, request: usize, query: usize, key: usize) -> bool {
        self.hides.is_some_and(|one_in| (request * 31 + query * 17 + key * key * 5 + key / 7).is_multiple_of(one_in))
    }

    /// The mask's words, and where each request's begins. One word lies unused before each.
    fn mask_words(&self) -> Option<(Vec<u32>, Vec<u32>)> {
        self.hides?;
        let (mut words, mut starts) = (Vec::new(), Vec::new());
        for (request, &(q_len, kv_len)) in self.lens.iter().enumerate() {
            words.push(0x5555_5555);
            starts.push(words.len() as u32);
            for query in 0..q_len {
                for first in (0..kv_len).step_by(32) {
                    let bits = (first..kv_len.min(first + 32)).map(|key| !self.is_hidden(request, query, key));
                    words.push(bits.enumerate().fold(0, |word, (bit, seen)| word | u32::from(seen) << bit));
                }
            }
        }
        Some((words, starts))
    }

    /// What a call says whose descriptor was changed.
    pub fn status(&self, change: impl FnOnce(&mut Vec<u32>)) -> Status {
        let mut layout = self.layout();
        change(&mut layout.words);
        let descriptor = put(&mut layout.blocks, bytemuck::cast_slice(&layout.words));
        attention::run(&mut layout.blocks, descriptor).into()
    }

    pub fn run(&self) -> Answer {
        self.run_layout(&mut self.layout())
    }

    fn run_layout(&self, layout: &mut Layout) -> Answer {
        let blocks = &mut layout.blocks;
        let descriptor = put(blocks, bytemuck::cast_slice(&layout.words));
        attention::run(blocks, descriptor).unwrap();
        let (out, count) = layout.out;
        let (floats, _) = convert_all(blocks, out, self.out_format.map_or(0, |format| format.dtype), count, None);
        Answer { out: get(blocks, floats), lse: get(blocks, layout.lse) }
    }
}

/// Every element within twice the error of plain f32, and 1e-6 (and a rounding of the output's dtype).
pub fn assert_near(problem: &Problem) {
    let mut layout = problem.layout();
    let answer = problem.run_layout(&mut layout);
    let (out, lse, worst, worst_lse) = problem.plain(&layout);
    let rounding = problem.out_format.map_or(0.0, |format| 2f64.powi(-(format.mantissa as i32 + 1)));
    assert_eq!(answer.out.len(), out.len());
    for (i, (&got, expected)) in answer.out.iter().zip(out).enumerate() {
        let bound = 2.0 * worst + 1e-6 + rounding * expected.abs() + if rounding > 0.0 { 2f64.powi(-10) } else { 0.0 };
        let error = (f64::from(got) - expected).abs();
        assert!(error <= bound, "out {i}: {got} is not {expected}, off by {error:e}, bound {bound:e}");
    }
    assert_eq!(answer.lse.len(), lse.len());
    for (i, (&got, expected)) in answer.lse.iter().zip(lse).enumerate() {
        // f32 itself may not hold the expected to more than 6e-8 of it.
        let near = (f64::from(got) - expected).abs() <= 2.0 * worst_lse + 1e-7 * expected.abs() + 1e-6;
        assert!(near || f64::from(got) == expected, "lse {i}: {got} is not {expected}");
    }
}
