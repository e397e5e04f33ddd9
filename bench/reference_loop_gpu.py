"""Milliseconds a column of what a user would run today: torch.autograd.functional.hessian over the first t weights of
block 0's q_proj, one column after the other, with transformers' own model (random weights, true shapes), fp32 and TF32.
usage: reference_loop_gpu.py opt-125m|llama-3.2-1b OUT.json"""
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch.autograd.functional import hessian
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

shape, out = sys.argv[1:]
torch.backends.cuda.enable_flash_sdp(False)  # they have no double backward
torch.backends.cuda.enable_mem_efficient_sdp(False)
torch.backends.cuda.enable_cudnn_sdp(False)
if shape == "opt-125m":
    model = OPTForCausalLM(OPTConfig())
    layer = model.model.decoder.layers[0].self_attn.q_proj
else:
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, head_dim=64, max_position_embeddings=131072, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0}))
    layer = model.model.layers[0].self_attn.q_proj
model = model.cuda().eval().requires_grad_(False)
vocab, weight = model.config.vocab_size, layer.weight
ids = torch.randint(4, vocab, (1, 2048), generator=torch.Generator().manual_seed(0)).cuda()


def seconds(t):
    def loss(x):
        w = torch.cat((torch.cat((x, weight[0, t:])).unsqueeze(0), weight[1:]))
        layer.forward = lambda h: F.linear(h, w, layer.bias)
        logits = model(ids, use_cache=False).logits[:, :-1]
        return F.cross_entropy(logits.reshape(-1, vocab), ids[:, 1:].reshape(-1))

    torch.cuda.synchronize()
    begin = time.perf_counter()
    hessian(loss, weight[0, :t].clone())
    torch.cuda.synchronize()
    return time.perf_counter() - begin


rows = {}
for tf32 in (False, True):
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.cuda.reset_peak_memory_stats()
    seconds(2)
    few, many = min(seconds(4) for _ in range(2)), min(seconds(16) for _ in range(2))
    name = "tf32" if tf32 else "fp32"
    rows[name] = {"ms_a_column": (many - few) / 12 * 1e3, "peak_bytes": torch.cuda.max_memory_allocated()}
    print(f"reference loop {shape} {name}: {rows[name]['ms_a_column']:.1f} ms a column, "
          f"{rows[name]['peak_bytes'] / 2**30:.1f} GiB", flush=True)
json.dump({"shape": shape, "device": torch.cuda.get_device_name(), "rows": rows}, open(out, "w"), indent=1)
