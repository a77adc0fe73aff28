"""PyTorch's scaled_dot_product_attention on a CUDA device, by its FlashAttention-2 and cuDNN backends.

bench/peers/torch.ts runs it and reads its lines. Times are medians of 20 calls by CUDA events.
"""
import statistics

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

DEVICE = "cuda"
HALF = {"device": DEVICE, "dtype": torch.float16}
BACKENDS = [("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)]


def bench(work, calls=20):
    for _ in range(5):
        work()
    torch.cuda.synchronize()
    times = []
    for _ in range(calls):
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times)


def attend(kind, q, k, v, flops_or_bytes, unit, **options):
    shape = (q.shape[0], q.shape[1], k.shape[1], q.shape[3], k.shape[2])
    gqa = q.shape[1] != k.shape[1]
    for name, backend in BACKENDS:
        try:
            with sdpa_kernel(backend):
                us = bench(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=gqa, **options))
            print(kind, name, shape, f"{us:.1f}us {flops_or_bytes / us / unit[0]:.1f} {unit[1]}")
        except Exception as error:
            print(kind, name, shape, "ERR", str(error).split("\n")[0][:100])


torch.manual_seed(0)
print("torch", torch.__version__, torch.cuda.get_device_name())
for heads, kv_heads, tokens in [(32, 8, 1024), (32, 8, 4096), (32, 32, 4096), (24, 8, 4096), (32, 8, 8192)]:
    q = torch.randn(1, heads, tokens, 128, **HALF)
    k = torch.randn(1, kv_heads, tokens, 128, **HALF)
    v = torch.randn_like(k)
    attend("prefill", q, k, v, 2 * heads * tokens * tokens * 128, (1e6, "TFLOP/s"), is_causal=True)
for batch, heads, kv_heads, keys in [
    (64, 8, 8, 4096),
    (64, 16, 8, 4096),
    (64, 24, 8, 4096),
    (64, 32, 8, 4096),
    (64, 64, 8, 4096),
    (16, 32, 32, 1024),
    (64, 32, 8, 1024),
    (256, 32, 8, 1024),
    (1, 32, 8, 8192),
    (1, 32, 8, 131072),
]:
    q = torch.randn(batch, heads, 1, 128, **HALF)
    k = torch.randn(batch, kv_heads, keys, 128, **HALF)
    v = torch.randn_like(k)
    attend("decode", q, k, v, 2 * batch * kv_heads * keys * 128 * 2, (1e3, "GB/s"))
    del q, k, v
