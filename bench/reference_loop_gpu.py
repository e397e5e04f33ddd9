"""Milliseconds a column of what a user would run today: torch.autograd.functional.hessian over the first t weights of
block 0's q_proj, one column after the other, with transformers' own model (random weights, true shapes), fp32 and TF32;
their error against the same loop in fp64.
usage: reference_loop_gpu.py opt-125m|llama-3.2-1b|smollm2 OUT.json...
Each OUT.json, if bench_gpu has written it, gets the rows as "reference" and each of its own rows a ratio to fp32's."""
import json
import os
import sys
import time

import torch
import torch.nn.functional as F
from torch.autograd.functional import hessian
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

shape, *outs = sys.argv[1:]
torch.backends.cuda.enable_flash_sdp(False)  # they have no double backward
torch.backends.cuda.enable_mem_efficient_sdp(False)
torch.backends.cuda.enable_cudnn_sdp(False)
torch.manual_seed(0)
if shape == "opt-125m":
    model = OPTForCausalLM(OPTConfig())
    layer = model.model.decoder.layers[0].self_attn.q_proj
else:
    sizes = {
        "llama-3.2-1b": dict(
            vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
            num_key_value_heads=8, head_dim=64, max_position_embeddings=131072),
        "smollm2": dict(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, head_dim=64, max_position_embeddings=8192)}[shape]
    model = LlamaForCausalLM(LlamaConfig(
        tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 500000.0}, **sizes))
    layer = model.model.layers[0].self_attn.q_proj
model = model.cuda().eval().requires_grad_(False)
vocab = model.config.vocab_size
ids = torch.randint(4, vocab, (1, 2048), generator=torch.Generator().manual_seed(0)).cuda()


def block(t):
    """The t x t block, and the seconds it took."""
    weight = layer.weight

    def loss(x):
        w = torch.cat((torch.cat((x, weight[0, t:])).unsqueeze(0), weight[1:]))
        layer.forward = lambda h: F.linear(h, w, layer.bias)
        logits = model(ids, use_cache=False).logits[:, :-1]
        return F.cross_entropy(logits.reshape(-1, vocab), ids[:, 1:].reshape(-1))

    torch.cuda.synchronize()
    begin = time.perf_counter()
    h = hessian(loss, weight[0, :t].clone())
    torch.cuda.synchronize()
    return h.double(), time.perf_counter() - begin


rows, blocks = {}, {}
for tf32 in (False, True):
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.cuda.reset_peak_memory_stats()
    name = "tf32" if tf32 else "fp32"
    blocks[name] = block(8)[0]
    few, many = min(block(4)[1] for _ in range(2)), min(block(16)[1] for _ in range(2))
    rows[name] = {"ms_a_column": (many - few) / 12 * 1e3, "peak_bytes": torch.cuda.max_memory_allocated()}
model = model.double()
exact = block(8)[0]
for name, row in rows.items():
    row["error"] = ((blocks[name] - exact).norm() / exact.norm()).item()
    print(f"reference loop {shape} {name}: {row['ms_a_column']:.1f} ms a column, error {row['error']:.1e}, "
          f"{row['peak_bytes'] / 2**30:.1f} GiB", flush=True)

for out in outs:
    result = {"shape": shape, "device": torch.cuda.get_device_name()}
    if os.path.exists(out):
        with open(out) as f:
            result = json.load(f)
    result["reference"] = rows
    for row in result.get("rows", []):
        row["times_the_reference"] = rows["fp32"]["ms_a_column"] / row["ms_a_direction"]
        print(f"{result.get('stored', '')} {row['row']:20} {row['ms_a_direction']:8.2f} ms, error {row['error']:.1e}: "
              f"{row['times_the_reference']:.1f} times the reference's fp32 loop")
    with open(out, "w") as f:
        json.dump(result, f, indent=1)
