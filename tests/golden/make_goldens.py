"""Makes the golden models: python make_goldens.py [--check] [NAME ...]

One folder a model beside this script, each a Hugging Face folder (config.json, model.safetensors in float64) and a
golden.safetensors recorded from transformers and PyTorch's double backward in float64 (float64_transformers.py says how;
the files were made with transformers 5.23.0 and torch 2.11.0):
  ids           (b, T) int64
  labels        (b, T) int64, only where they differ from ids; -100 is not counted
  loss          ()     the objective: mean over windows of each window's mean cross entropy over its counted tokens
  window_losses (b)
  logits        (T, V) of window 0
and for each selection S of n entries
  S.gradient    (n)    of the objective
  S.hessian     (n, n)
  S.gauss_newton(n, n) J^T Lambda J, J the Jacobian of all logits, Lambda the Hessian of the objective in the logits
The selections are in the metadata of golden.safetensors as JSON under "selections":
  [{"name": S, "entries": [{"tensor": Hugging Face name, "indices": [flat, ...]}, ...]}, ...]
and row i of a matrix is entry i of the concatenated lists. A tied head has one name, embed_tokens, and counts both uses.
A stacked tensor of experts (E, in, out) is named expert by expert, as hesper does: experts.3.gate_proj.weight (out, in).
--check makes everything again in memory and compares with the files: bytes of the configs, ids and selections, 1e-13 for numbers.
"""
import argparse
import json
import math
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from float64_transformers import fresh, load, logits_of, window_losses

HERE = Path(__file__).resolve().parent


def opt(**changes):
    return {"architectures": ["OPTForCausalLM"], "model_type": "opt", "torch_dtype": "float64", "vocab_size": 48,
            "hidden_size": 16, "word_embed_proj_dim": changes.get("hidden_size", 16), "ffn_dim": 36, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 12, "activation_function": "relu",
            "do_layer_norm_before": True, "dropout": 0.1, "attention_dropout": 0.0, "layerdrop": 0.0, "init_std": 0.02,
            "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "prefix": "</s>", "use_cache": True, **changes}


def llama(**changes):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float64", "vocab_size": 44,
            "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 4, "max_position_embeddings": 32, "hidden_act": "silu", "rms_norm_eps": 1e-5,
            "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False, "initializer_range": 0.02,
            "bos_token_id": 1, "eos_token_id": 2, "use_cache": True, **changes}


def gpt2(**changes):
    return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "torch_dtype": "float64", "vocab_size": 41, "n_embd": 16,
            "n_head": 2, "n_layer": 2, "n_positions": 12, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
            "resid_pdrop": 0.1, "attn_pdrop": 0.1, "embd_pdrop": 0.1, "bos_token_id": 40, "eos_token_id": 40, **changes}


def neox(**changes):
    return {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "torch_dtype": "float64", "vocab_size": 43,
            "hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 32, "hidden_act": "gelu", "layer_norm_eps": 1e-5, "rotary_pct": 0.25, "rotary_emb_base": 100,
            "use_parallel_residual": True, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0, **changes}


def phi3(**changes):
    return {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "torch_dtype": "float64", "vocab_size": 42,
            "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 32, "original_max_position_embeddings": 32, "hidden_act": "silu", "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "rope_scaling": None, "sliding_window": None, "tie_word_embeddings": False, "bos_token_id": 1,
            "eos_token_id": 2, "pad_token_id": None, **changes}


def gemma(model_type, **changes):
    name = {"gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM"}[model_type]
    caps = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0} if model_type == "gemma2" else {}
    return {"architectures": [name], "model_type": model_type, "torch_dtype": "float64", "vocab_size": 40, "hidden_size": 16,
            "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
            "max_position_embeddings": 32, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-5,
            "query_pre_attn_scalar": 10, "sliding_window": 4, "tie_word_embeddings": True, "bos_token_id": 2, "eos_token_id": 1,
            "pad_token_id": 0, **caps, **changes}


def llama4(**changes):
    return {"architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "torch_dtype": "float64", "vocab_size": 45,
            "hidden_size": 16, "intermediate_size": 12, "intermediate_size_mlp": 20, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "num_local_experts": 3, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1,
            "use_qk_norm": True, "no_rope_layer_interval": 4, "attention_chunk_size": 4, "attn_temperature_tuning": True,
            "floor_scale": 4, "attn_scale": 0.4, "rope_theta": 500.0, "rope_scaling": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32},
            "attention_bias": False, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, **changes}


# name -> (config, windows b, tokens T, labels that differ from ids); config spellings old and new on purpose
MODELS = {
    "opt-pre": (opt(), 3, 10, False),
    "llama-gqa": (llama(num_key_value_heads=2, head_dim=6, rope_theta=10000.0, rope_scaling=None), 3, 10, False),
    "opt-gelu": (opt(activation_function="gelu", num_attention_heads=2), 3, 9, True),
    "opt-post-proj": (opt(do_layer_norm_before=False, hidden_size=20, word_embed_proj_dim=12, ffn_dim=24), 2, 11, False),
    "llama-llama3rope": (llama(num_key_value_heads=2, num_attention_heads=2, max_position_embeddings=128, rope_theta=500.0, rope_scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}), 2, 12, False),
    "llama-bias": (llama(attention_bias=True, mlp_bias=True, num_key_value_heads=2, rms_norm_eps=1e-6,
                         rope_theta=10000.0), 3, 9, True),
    "llama-linear": (llama(num_hidden_layers=3, intermediate_size=20, rope_theta=10000.0,
                           rope_scaling={"type": "linear", "factor": 4.0}), 2, 10, False),
    "llama-dynamic": (llama(max_position_embeddings=8, num_attention_heads=2, num_key_value_heads=1, rope_parameters={
        "rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}), 2, 12, False),
    "llama-mqa-tied": (llama(num_key_value_heads=1, tie_word_embeddings=True, rope_theta=100.0), 3, 8, False),
    "opt-bare": (opt(activation_function="gelu_new", enable_bias=False, layer_norm_elementwise_affine=False,
                     _remove_final_layer_norm=True), 2, 9, False),
    "mistral": (llama(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=None, head_dim=8,
                      num_attention_heads=2, num_key_value_heads=1, rope_theta=10000.0), 2, 8, False),
    "qwen2": ({k: v for k, v in llama(architectures=["Qwen2ForCausalLM"], model_type="qwen2", num_key_value_heads=2, rope_theta=1e4,
                                      use_sliding_window=False, sliding_window=16, max_window_layers=1, tie_word_embeddings=True).items()
               if k not in ("attention_bias", "mlp_bias")}, 2, 9, False),
    "mistral-window": (llama(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=4, head_dim=4,
                             num_key_value_heads=2, rope_theta=10000.0), 2, 11, False),
    "qwen2-window": ({k: v for k, v in llama(architectures=["Qwen2ForCausalLM"], model_type="qwen2", num_key_value_heads=2,
                                             rope_theta=1e4, use_sliding_window=True, sliding_window=3, max_window_layers=1,
                                             num_hidden_layers=2).items() if k not in ("attention_bias", "mlp_bias")}, 2, 9, True),
    "qwen3": (llama(architectures=["Qwen3ForCausalLM"], model_type="qwen3", num_key_value_heads=2, head_dim=6, rope_theta=1e4,
                    tie_word_embeddings=True), 2, 9, False),
    "qwen3-bias": (llama(architectures=["Qwen3ForCausalLM"], model_type="qwen3", num_attention_heads=2, num_key_value_heads=1,
                         head_dim=8, attention_bias=True, rope_parameters={"rope_type": "default", "rope_theta": 100.0}), 2, 8, True),
    "gpt2": (gpt2(), 3, 9, False),
    "gpt2-options": (gpt2(n_inner=20, activation_function="gelu", scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False,
                          layer_norm_epsilon=1e-3), 2, 9, True),
    "gpt2-unscaled": (gpt2(scale_attn_weights=False, n_head=4, activation_function="relu"), 2, 8, False),
    "neox": (neox(), 3, 9, False),
    "neox-serial": (neox(use_parallel_residual=False, num_attention_heads=4, rotary_pct=1.0, attention_bias=False,
                         tie_word_embeddings=True, hidden_act="gelu_new"), 2, 9, True),
    "phi3": (phi3(), 2, 9, False),
    "phi3-window": (phi3(sliding_window=4, num_attention_heads=2, num_key_value_heads=1, partial_rotary_factor=0.5,
                         tie_word_embeddings=True), 2, 10, True),
    "phi3-longrope": (phi3(original_max_position_embeddings=8, num_attention_heads=2, num_key_value_heads=1, rope_scaling={
        "type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.0, 1.5, 3.0, 4.5]}), 2, 10, False),
    "phi3-short": (phi3(original_max_position_embeddings=9, partial_rotary_factor=0.5, num_attention_heads=2, rope_scaling={
        "type": "su", "short_factor": [1.2, 1.9], "long_factor": [2.0, 3.0], "original_max_position_embeddings": 9}), 2, 9, True),
    "qwen2-yarn": ({k: v for k, v in llama(architectures=["Qwen2ForCausalLM"], model_type="qwen2", num_attention_heads=2,
                                           num_key_value_heads=1, rope_theta=20.0, max_position_embeddings=256, rope_scaling={
                                               "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
                                               "beta_fast": 4.0}).items() if k not in ("attention_bias", "mlp_bias")}, 2, 11, False),
    "llama-yarn": (llama(num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=256, rope_parameters={
        "rope_type": "yarn", "rope_theta": 30.0, "factor": 6.0, "original_max_position_embeddings": 50, "beta_fast": 3.0,
        "beta_slow": 0.5, "mscale": 0.7, "mscale_all_dim": 0.3, "truncate": False}), 2, 10, True),
    "gemma": (llama(architectures=["GemmaForCausalLM"], model_type="gemma", hidden_act="gelu", head_dim=6, num_key_value_heads=1,
                    rope_theta=10000.0, tie_word_embeddings=True), 2, 10, True),
    "gemma2": (gemma("gemma2"), 2, 11, False),
    "gemma2-options": (gemma("gemma2", attn_logit_softcapping=1.5, final_logit_softcapping=None, attention_bias=True,
                             tie_word_embeddings=False, query_pre_attn_scalar=7, num_key_value_heads=1), 2, 9, True),
    "gemma3": (gemma("gemma3_text", sliding_window_pattern=2, rope_local_base_freq=100.0, rope_theta=1e5,
                     rope_scaling={"rope_type": "linear", "factor": 4.0}), 2, 11, False),
    "gemma3-newer": (gemma("gemma3_text", layer_types=["full_attention", "sliding_attention"], tie_word_embeddings=False,
                           rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 5000.0},
                                            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}), 2, 9, True),
    "llama4": (llama4(), 2, 11, False),
    "llama4-interleaved": (llama4(interleave_moe_layer_step=2, num_local_experts=4, use_qk_norm=False, no_rope_layer_interval=2,
                                  num_hidden_layers=2, floor_scale=3, attn_scale=0.7, rope_scaling={
                                      "rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0,
                                      "original_max_position_embeddings": 16}), 2, 10, True),
    "llama4-all-options": (llama4(moe_layers=[0], no_rope_layers=[0, 1], attention_bias=True, attn_temperature_tuning=False,
                                  num_experts_per_tok=2, tie_word_embeddings=True, attention_chunk_size=3,
                                  rope_parameters={"rope_type": "default", "rope_theta": 300.0}), 2, 9, False),
}


def random_weights(config, shapes, gen):
    """Attention that is far from uniform, gains that are not 1, biases that are not 0, no symmetry left."""
    weights = {}
    one = 0.0 if config["model_type"].startswith("gemma") else 1.0  # Gemma stores gains less one
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=gen)
        norm = any(part in name for part in ("norm", "ln_"))
        if len(shape) == 1:
            weights[name] = 0.3 * noise + (one if norm and name.endswith("weight") else 0.0)
        elif is_embedding(name) or is_head(name):
            weights[name] = 0.5 * noise
        elif "embed_positions" in name or "wpe" in name:
            weights[name] = 0.3 * noise
        elif len(shape) == 3:  # experts: (E, in, out)
            weights[name] = 1.5 * noise / math.sqrt(shape[1])
        else:
            into = shape[0] if "h." in name and config["model_type"] == "gpt2" else shape[1]
            sharp = any(part in name for part in ("q_proj", "k_proj", "c_attn", "query_key_value", "qkv_proj", "router"))
            weights[name] = (1.4 if sharp else 1.0) * noise / math.sqrt(into)
    return weights


def is_embedding(name):
    return any(part in name for part in ("embed_tokens", "wte", "embed_in"))


def is_head(name):
    return name == "lm_head.weight"


def pieces(shapes):
    """hesper's own names: a stack of experts is one matrix (out, in) an expert and layer."""
    result = {}
    for name, shape in shapes.items():
        if len(shape) != 3:
            result[name] = shape
            continue
        experts, wide, columns = shape
        root = name.rsplit(".", 1)[0]
        for e in range(experts):
            for layer in ("gate_proj", "up_proj") if name.endswith("gate_up_proj") else ("down_proj",):
                result[f"{root}.{e}.{layer}.weight"] = [columns // 2 if layer != "down_proj" else columns, wide]
    return result


def stored(shapes, name, indices):
    """Where entries of a tensor of `pieces` are stored: name, flat indices."""
    if name in shapes:
        return name, indices
    root, e, layer, _ = name.rsplit(".", 3)
    tensor = f"{root}.{'down_proj' if layer == 'down_proj' else 'gate_up_proj'}"
    _, wide, columns = shapes[tensor]
    first = columns // 2 if layer == "up_proj" else 0
    return tensor, [int(e) * wide * columns + i % wide * columns + first + i // wide for i in indices]


def window_ids(config, b, T, labelled, gen):
    # 1 is the padding id of OPT: nn.Embedding drops the gradient of that row, hesper does not, so it never occurs here.
    ids = torch.randint(3, config["vocab_size"], (b, T), generator=gen)
    ids[:, 0] = config["bos_token_id"]
    if not labelled:
        return ids, None
    labels = ids.clone()
    labels[0, :4] = -100             # the first tokens of a window are context alone
    labels[1, T // 2] = -100         # a hole
    labels[b - 1, T - 1] = 5         # a target that is not the next id
    return ids, labels


def pick(names, shapes, count, gen):
    """`count` distinct random entries of each tensor."""
    return [(n, torch.randperm(math.prod(shapes[n]), generator=gen)[:count].tolist()) for n in names]


def rows(name, shapes, words, columns):
    return name, [w * shapes[name][1] + c for w in words for c in columns]


def block_of(name):
    part = next((p for p in (".layers.", ".h.") if p in name), None)
    return -1 if part is None else int(name.split(part)[1].split(".")[0])


def selections(shapes, ids, gen):
    by_block = sorted((n for n in shapes if block_of(n) >= 0), key=block_of)  # stable: block, then checkpoint order
    linear = [n for n in by_block if len(shapes[n]) == 2]
    vectors = [n for n in shapes if len(shapes[n]) == 1]
    of = lambda parts, b=0: next(n for n in linear if any(part in n for part in parts) and block_of(n) == b)
    queries, keys, values = ("q_proj", "c_attn", "query_key_value", "qkv_proj"), ("k_proj", "o_proj", "attn.c_proj", "dense"), ("v_proj", "mlp")
    embed = next(n for n in shapes if is_embedding(n))
    read, target = ids[0, 2].item(), ids[1, 3].item()
    unused = next(w for w in range(3, shapes[embed][0]) if not (ids == w).any())
    second = {}
    for name, entries in ((of(keys, 1), range(4)), (of(values, 1), range(4)), (of(queries, 1), (17, 3))):
        second[name] = second.get(name, []) + [e for e in entries if e not in second.get(name, [])]
    result = {"q_row": [(of(queries), list(range(8)))],
              "second_block": list(second.items()),
              "linear_cross": pick(linear, shapes, 2 if len(linear) < 20 else 1, gen),
              **({"vectors": pick(vectors, shapes, 1 if len(vectors) > 16 else 4, gen)} if vectors else {}),
              "embeddings": [rows(embed, shapes, dict.fromkeys((read, target, unused, 2 if embed.startswith("model.decoder") else 1)), (0, 3, 7))]}
    for table, offset in (("model.decoder.embed_positions.weight", 2), ("transformer.wpe.weight", 0)):
        if table in shapes:  # row of position p is p + offset
            result["embeddings"].append(rows(table, shapes, (offset, offset + 3, offset + 5), (1, 4)))
    for name in ("lm_head.weight", "model.decoder.project_out.weight"):
        if name in shapes:
            result["head"] = [rows(name, shapes, dict.fromkeys((read, target, unused)) if is_head(name) else (0, 5), (0, 5, 9))]
    if "model.decoder.project_in.weight" in shapes:
        result["head"].append(rows("model.decoder.project_in.weight", shapes, (1, 6), (2, 3, 8)))
    names = sorted(shapes)
    chosen = [names[i] for i in torch.randint(0, len(names), (24,), generator=gen).tolist()]
    mix = {}
    for n in chosen:
        low = ids[0, 1].item() * shapes[n][1] if n == embed else 0  # an id that occurs
        mix.setdefault(n, []).append(torch.randint(low, min(low + 16, math.prod(shapes[n])), (1,), generator=gen).item())
    result["mix"] = [(n, sorted(set(i))) for n, i in mix.items()]
    return result


def second_order(model, ids, labels, entries):
    """gradient (n), Hessian (n, n), Gauss-Newton (n, n) of the objective in the selected entries of stored tensors."""
    params = {n: p.detach() for n, p in model.named_parameters()}
    at = torch.cat([params[n].flatten()[i] for n, i in entries]).requires_grad_()
    here, first = dict(params), 0
    for n, i in entries:
        here[n] = here[n].flatten().index_put((torch.tensor(i),), at[first:first + len(i)]).view_as(params[n])
        first += len(i)
    if model.config.tie_word_embeddings:  # the head reads the embedding's entries
        embed = next(n for n in params if is_embedding(n))
        here["lm_head.weight"] = here[embed]
    z = torch.func.functional_call(model, here, kwargs=dict(input_ids=ids, use_cache=False), tie_weights=False).logits
    assert z.dtype == torch.float64
    grad = lambda y, x, **kw: torch.autograd.grad(y, x, retain_graph=True, **kw)[0]
    g = grad(window_losses(z, labels).mean(), at, create_graph=True)
    plain = torch.autograd.grad(window_losses(logits_of(model, ids), labels).mean(), [model.get_parameter(n) for n, _ in entries],
                                allow_unused=True, materialize_grads=True)
    plain = torch.cat([p.flatten()[i] for p, (_, i) in zip(plain, entries)])
    assert (g - plain).norm() < 1e-13 * plain.norm(), "the selected entries do not stand for all uses of their tensors"
    hessian = torch.stack([grad(gi, at) for gi in g])
    u = torch.zeros_like(z, requires_grad=True)  # J v = d/du (J^T u) . v: no finite step, no rounding of its own
    pulled = grad(z, at, grad_outputs=u, create_graph=True)
    J = torch.stack([grad(pulled[i], u) for i in range(len(at))])  # (n, b, T, V)
    p = z.detach().softmax(-1)
    counted = (labels[:, 1:] != -100).to(p.dtype)
    weight = torch.zeros_like(p[..., 0])
    weight[:, :-1] = counted / counted.sum(1, keepdim=True) / len(labels)
    centred = (J - (p * J).sum(-1, keepdim=True)) * (p * weight[..., None]).sqrt()
    gauss_newton = centred.flatten(1) @ centred.flatten(1).T
    return g.detach(), hessian, gauss_newton


def make(name, seed, folder):
    config, b, T, labelled = MODELS[name]
    folder.mkdir(exist_ok=True)
    gen = torch.Generator().manual_seed(1000 + seed)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    shapes = shapes_of(folder)
    weights = random_weights(config, shapes, gen)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = load(folder)
    ids, labels = window_ids(config, b, T, labelled, gen)
    target = ids if labels is None else labels
    with torch.no_grad():
        z = logits_of(model, ids)
        losses = window_losses(z, target)
    record = {"ids": ids, "loss": losses.mean(), "window_losses": losses, "logits": z[0].clone()}
    if labels is not None:
        record["labels"] = labels
    chosen = selections(pieces(shapes), ids, gen)
    for s, entries in chosen.items():
        g, H, G = second_order(model, ids, target, [stored(shapes, n, i) for n, i in entries])
        asymmetry = ((H - H.T).norm() / H.norm()).item()
        assert H.isfinite().all() and asymmetry < 1e-13, (name, s, asymmetry)
        record |= {f"{s}.gradient": g, f"{s}.hessian": H, f"{s}.gauss_newton": G}
        print(f"{name:17} {s:13} n {len(g):3}  |g| {g.norm():.3e}  |H| {H.norm():.3e}  |G| {G.norm():.3e}  "
              f"|H - G|/|H| {(H - G).norm() / H.norm():.2f}  asymmetry {asymmetry:.1e}")
    listed = [{"name": s, "entries": [{"tensor": n, "indices": i} for n, i in e]} for s, e in chosen.items()]
    save_file({k: v.contiguous() for k, v in record.items()}, folder / "golden.safetensors",
              metadata={"selections": json.dumps(listed)})  # one key: the writer does not keep an order


def shapes_of(folder):
    """Hugging Face name -> shape, without a tied head."""
    return {n: list(p.shape) for n, p in fresh(folder).named_parameters()}  # a shared parameter is listed once


def compare(made, kept):
    worst = 0.0
    assert (made / "config.json").read_bytes() == (kept / "config.json").read_bytes(), f"{kept}: config differs"
    for file in ("model.safetensors", "golden.safetensors"):
        a, b = load_file(made / file), load_file(kept / file)
        assert a.keys() == b.keys(), f"{kept / file}: other tensors"
        for n in a:
            if a[n].is_floating_point():
                worst = max(worst, ((a[n] - b[n]).norm() / b[n].norm().clamp_min(1e-300)).item())
            else:
                assert a[n].equal(b[n]), f"{kept / file}: {n} differs"
    with safe_open(made / "golden.safetensors", "pt") as a, safe_open(kept / "golden.safetensors", "pt") as b:
        assert a.metadata()["selections"] == b.metadata()["selections"], f"{kept}: selections differ"
    # 1e-13: some 100 roundings of fp64; another CPU or PyTorch sums in another order
    assert worst < 1e-13, f"{kept}: differs by {worst:.1e}"
    print(f"{kept.name}: as stored, {worst:.1e}")


def main():
    parser = argparse.ArgumentParser(description="Makes the golden models, or checks them.")
    parser.add_argument("--check", action="store_true", help="make again and compare with the files")
    parser.add_argument("names", nargs="*", help="these alone")
    arguments = parser.parse_args()
    check = arguments.check
    torch.set_num_threads(1)
    for seed, name in enumerate(MODELS):
        if arguments.names and name not in arguments.names:
            continue
        if check:
            with tempfile.TemporaryDirectory() as made:
                make(name, seed, Path(made))
                compare(Path(made), HERE / name)
        else:
            make(name, seed, HERE / name)


if __name__ == "__main__":
    main()
