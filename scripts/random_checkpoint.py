"""Writes a model of a known shape with random fp16 weights: config.json and model.safetensors, tensor after tensor.
usage: random_checkpoint.py llama-7b|llama-13b|opt-6.7b FOLDER        (13, 26, 13 GB; needs torch)"""
import json
import pathlib
import struct
import sys

import torch

LLAMA = dict(model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=32000, max_position_embeddings=4096,
             hidden_act="silu", rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, torch_dtype="float16")
SHAPES = {
    "llama-7b": dict(LLAMA, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32),
    "llama-13b": dict(LLAMA, hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40),
    "opt-6.7b": dict(
        model_type="opt", architectures=["OPTForCausalLM"], vocab_size=50272, max_position_embeddings=2048,
        hidden_size=4096, word_embed_proj_dim=4096, ffn_dim=16384, num_hidden_layers=32, num_attention_heads=32,
        activation_function="relu", do_layer_norm_before=True, tie_word_embeddings=True, torch_dtype="float16"),
}


def llama(c):
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


def opt(c):
    width, hidden, root = c["hidden_size"], c["ffn_dim"], "model.decoder"

    def layer(name, rows, columns):
        yield f"{name}.weight", (rows, columns)
        yield f"{name}.bias", (rows,)

    def norm(name):
        yield f"{name}.weight", (width,)
        yield f"{name}.bias", (width,)

    yield f"{root}.embed_tokens.weight", (c["vocab_size"], width)
    yield f"{root}.embed_positions.weight", (c["max_position_embeddings"] + 2, width)
    for i in range(c["num_hidden_layers"]):
        block = f"{root}.layers.{i}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from layer(f"{block}.self_attn.{name}", width, width)
        yield from norm(f"{block}.self_attn_layer_norm")
        yield from layer(f"{block}.fc1", hidden, width)
        yield from layer(f"{block}.fc2", width, hidden)
        yield from norm(f"{block}.final_layer_norm")
    yield from norm(f"{root}.final_layer_norm")


def values(name, shape, device):
    """As transformers initialises: matrices normal with deviation 0.02, norms one, biases zero."""
    if len(shape) == 2:
        return torch.randn(shape, device=device).mul_(0.02).half().cpu()
    return torch.zeros(shape).half() if name.endswith(".bias") else torch.ones(shape).half()


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(__doc__)
    config, folder = SHAPES[sys.argv[1]], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    tensors = list((llama if config["model_type"] == "llama" else opt)(config))
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
            f.write(values(name, shape, device).numpy().tobytes())
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    print(f"{folder}: {at / 1e9:.1f} GB in {len(tensors)} tensors")


main()
