"""Writes a model of a known shape with random fp16 weights, and random ids: config.json, model.safetensors, ids.npy.
usage: random_checkpoint.py [--shape llama-7b|opt-125m] [--blocks N] FOLDER        (llama-7b: 13 GB; needs torch)"""
import argparse
import json
import pathlib
import struct

import numpy
import torch

CONFIGS = {
    "llama-7b": dict(
        model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=32000, hidden_size=4096,
        intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, max_position_embeddings=4096,
        hidden_act="silu", rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, torch_dtype="float16"),
    "opt-125m": dict(
        model_type="opt", architectures=["OPTForCausalLM"], vocab_size=50272, hidden_size=768, word_embed_proj_dim=768,
        ffn_dim=3072, num_hidden_layers=12, num_attention_heads=12, max_position_embeddings=2048,
        activation_function="relu", do_layer_norm_before=True, torch_dtype="float16"),
}


def llama_tensors(c):
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


def opt_tensors(c):
    width, hidden = c["hidden_size"], c["ffn_dim"]
    yield "model.decoder.embed_tokens.weight", (c["vocab_size"], width)
    yield "model.decoder.embed_positions.weight", (c["max_position_embeddings"] + 2, width)
    shapes = {"fc1": (hidden, width), "fc2": (width, hidden), "self_attn_layer_norm": (width,), "final_layer_norm": (width,)}
    shapes.update({f"self_attn.{name}": (width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")})
    for i in range(c["num_hidden_layers"]):
        for name, shape in shapes.items():
            yield f"model.decoder.layers.{i}.{name}.weight", shape
            yield f"model.decoder.layers.{i}.{name}.bias", shape[:1]
    yield "model.decoder.final_layer_norm.weight", (width,)
    yield "model.decoder.final_layer_norm.bias", (width,)


def values(name, shape, device):
    """As transformers initialises: matrices normal with deviation 0.02, norms one, biases zero."""
    if len(shape) == 2:
        return torch.randn(shape, device=device).mul_(0.02).half().cpu()
    return (torch.zeros if name.endswith("bias") else torch.ones)(shape).half()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=CONFIGS, default="llama-7b")
    parser.add_argument("--blocks", type=int)
    parser.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()
    config, folder = CONFIGS[arguments.shape], arguments.folder
    config["num_hidden_layers"] = arguments.blocks or config["num_hidden_layers"]
    folder.mkdir(parents=True, exist_ok=True)
    tensors = list((opt_tensors if config["model_type"] == "opt" else llama_tensors)(config))
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
    numpy.save(folder / "ids.npy", torch.randint(4, config["vocab_size"], (1 << 17,)).numpy())
    print(f"{folder}: {at / 1e9:.1f} GB in {len(tensors)} tensors")


main()
