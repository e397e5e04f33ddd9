"""Makes the golden models: python make_goldens.py [--check]

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
}


def random_weights(config, shapes, gen):
    """Attention that is far from uniform, gains that are not 1, biases that are not 0, no symmetry left."""
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=gen)
        if len(shape) == 1:
            weights[name] = 0.3 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        elif "embed_tokens" in name or name == "lm_head.weight":
            weights[name] = 0.5 * noise
        elif "embed_positions" in name:
            weights[name] = 0.3 * noise
        else:
            weights[name] = (1.4 if "q_proj" in name or "k_proj" in name else 1.0) * noise / math.sqrt(shape[1])
    return weights


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


def selections(shapes, ids, gen):
    block = lambda name: int(name.split(".layers.")[1].split(".")[0])
    by_block = sorted((n for n in shapes if ".layers." in n), key=block)  # stable: block, then checkpoint order
    linear = [n for n in by_block if len(shapes[n]) == 2]
    vectors = [n for n in shapes if len(shapes[n]) == 1]
    of = lambda part, b=0: next(n for n in linear if part in n and block(n) == b)
    embed = next(n for n in shapes if "embed_tokens" in n)
    read, target = ids[0, 2].item(), ids[1, 3].item()
    unused = next(w for w in range(3, shapes[embed][0]) if not (ids == w).any())
    result = {"q_row": [(of("q_proj"), list(range(8)))],
              "second_block": [(of("k_proj", 1), list(range(4))), (of("v_proj", 1), list(range(4))), (of("q_proj", 1), [17, 3])],
              "linear_cross": pick(linear, shapes, 2, gen),
              **({"vectors": pick(vectors, shapes, 1 if len(vectors) > 16 else 4, gen)} if vectors else {}),
              "embeddings": [rows(embed, shapes, (read, target, unused, 2 if embed.startswith("model.decoder") else 1), (0, 3, 7))]}
    if "model.decoder.embed_positions.weight" in shapes:  # row of position p is p + 2
        result["embeddings"].append(rows("model.decoder.embed_positions.weight", shapes, (2, 5, 7), (1, 4)))
    for name in ("lm_head.weight", "model.decoder.project_out.weight"):
        if name in shapes:
            result["head"] = [rows(name, shapes, (read, target, unused) if name == "lm_head.weight" else (0, 5), (0, 5, 9))]
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
    """gradient (n), Hessian (n, n), Gauss-Newton (n, n) of the objective in the selected entries."""
    params = {n: p.detach() for n, p in model.named_parameters()}
    at = torch.cat([params[n].flatten()[i] for n, i in entries]).requires_grad_()
    here, first = dict(params), 0
    for n, i in entries:
        here[n] = params[n].flatten().index_put((torch.tensor(i),), at[first:first + len(i)]).view_as(params[n])
        first += len(i)
    if model.config.tie_word_embeddings:  # the head reads the embedding's entries
        embed = next(n for n in params if "embed_tokens" in n)
        here["lm_head.weight"] = here[embed]
    z = torch.func.functional_call(model, here, kwargs=dict(input_ids=ids, use_cache=False), tie_weights=False).logits
    assert z.dtype == torch.float64
    grad = lambda y, x, **kw: torch.autograd.grad(y, x, retain_graph=True, **kw)[0]
    g = grad(window_losses(z, labels).mean(), at, create_graph=True)
    plain = torch.autograd.grad(window_losses(logits_of(model, ids), labels).mean(), [model.get_parameter(n) for n, _ in entries])
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
    chosen = selections(shapes, ids, gen)
    for s, entries in chosen.items():
        g, H, G = second_order(model, ids, target, entries)
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
    check = parser.parse_args().check
    torch.set_num_threads(1)
    for seed, name in enumerate(MODELS):
        if check:
            with tempfile.TemporaryDirectory() as made:
                make(name, seed, Path(made))
                compare(Path(made), HERE / name)
        else:
            make(name, seed, HERE / name)


if __name__ == "__main__":
    main()
