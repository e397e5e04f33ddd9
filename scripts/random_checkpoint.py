"""Writes a model of LLaMA-7B's shape with random fp16 weights: config.json and model.safetensors, tensor after tensor.
usage: random_checkpoint.py FOLDER [BLOCKS]        (32 blocks: 13 GB; needs torch)"""
import json
import pathlib
import struct
import sys

import torch

CONFIG = dict(
    model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=32000, hidden_size=4096, intermediate_size=11008,
    num_hidden_layers=32, num_attention_heads=32, max_position_embeddings=4096, hidden_act="silu", rms_norm_eps=1e-5,
    rope_theta=10000.0, tie_word_embeddings=False, torch_dtype="float16")


def tensors_of(c):
    width, hidden = c["hidden_size"], c["intermediate_size"]
    yield "model.embed_tokens.weight", (c["vocab_size"], width)
    for i in range(c["num_hidden_layers"]):
        block = f"model.layers.{i}"
        for name in "qkvo":
            yield f"{block}.self_attn.{name}_proj.weight", (width, width)
        for name in ("gate", "up"):
            yield f"{block}.mlp.{name}_proj.weight", (hidden, width)
        yield f"{block}.mlp.down_proj.weight", (width, hidden)
        for name in ("input", "post_attention"):
            yield f"{block}.{name}_layernorm.weight", (width,)
    yield "model.norm.weight", (width,)
    yield "lm_head.weight", (c["vocab_size"], width)


def values(shape, device):
    """As transformers initialises: matrices normal with deviation 0.02, norms one."""
    if len(shape) == 2:
        return torch.randn(shape, device=device).mul_(0.02).half().cpu()
    return torch.ones(shape).half()


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    if len(sys.argv) == 3:
        CONFIG["num_hidden_layers"] = int(sys.argv[2])
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    tensors = list(tensors_of(CONFIG))
    header, at = {}, 0
    for name, shape in tensors:
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors:
            f.write(values(shape, device).numpy().tobytes())
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    print(f"{folder}: {at / 1e9:.1f} GB in {len(tensors)} tensors")


main()
