"""Runs the models of `transformers` in true float64.

`.double()` is not enough: RMS norm, the rotary table and the eager softmax of transformers name torch.float32 in their
code, whatever the dtype of the model. Here the modules that hold that code see a `torch` whose `float32` and `float`
are float64, and `x.float()` of a tensor is x in float64 (Gemma and LLaMA 4 write that), so the very same lines run in
float64: the inverse frequencies too, and the angles from them. The default dtype is float64 as well, because the base of
dynamic rope is computed in it. The loss is not taken from transformers
(ForCausalLMLoss calls logits.float()) but written below. `load` refuses a model in which any float32 is left.
"""
import importlib
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every model here is a local folder

import torch
import transformers
import transformers.modeling_rope_utils
from safetensors.torch import load_file

torch.set_default_dtype(torch.float64)


class TorchOfDoubles:
    float = float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


FAMILIES = {"opt": ("OPTConfig", "OPTForCausalLM"), "llama": ("LlamaConfig", "LlamaForCausalLM"),
            "mistral": ("MistralConfig", "MistralForCausalLM"), "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
            "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"), "gpt2": ("GPT2Config", "GPT2LMHeadModel"),
            "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM"), "gemma": ("GemmaConfig", "GemmaForCausalLM"),
            "gemma2": ("Gemma2Config", "Gemma2ForCausalLM"),
            "gemma3_text": ("Gemma3TextConfig", "Gemma3ForCausalLM"), "phi3": ("Phi3Config", "Phi3ForCausalLM"),
            "llama4_text": ("Llama4TextConfig", "Llama4ForCausalLM")}
torch.Tensor.float = torch.Tensor.double
transformers.modeling_rope_utils.torch = TorchOfDoubles()
for family in FAMILIES:
    package = {"gemma3_text": "gemma3", "llama4_text": "llama4"}.get(family, family)
    importlib.import_module(f"transformers.models.{package}.modeling_{package}").torch = TorchOfDoubles()


def fresh(folder):
    """The model of a folder's config.json, its weights not read."""
    raw = json.loads((Path(folder) / "config.json").read_text())
    raw.pop("torch_dtype", None), raw.pop("dtype", None)
    config_type, model_type = (getattr(transformers, name) for name in FAMILIES[raw["model_type"]])
    config = config_type.from_dict(raw)
    config._attn_implementation = "eager"
    return model_type(config).double().eval()


def load(folder):
    """The causal language model of a Hugging Face folder (one model.safetensors), in float64, every dropout off."""
    model = fresh(folder)
    weights = {name: tensor.double() for name, tensor in load_file(Path(folder) / "model.safetensors").items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    if set(missing) - tied or set(unexpected) - tied:
        raise ValueError(f"{folder}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    low = [name for name, t in (*model.named_parameters(), *model.named_buffers())
           if t.is_floating_point() and t.dtype != torch.float64]
    if low:
        raise ValueError(f"{folder}: not float64: {low}")
    return model


def logits_of(model, ids):
    """ids (b, T) -> logits (b, T, V); an error when a float32 operation crept in."""
    z = model(input_ids=ids, use_cache=False).logits
    if z.dtype != torch.float64:
        raise ValueError("logits are not float64")
    return z


def window_losses(z, labels):
    """z (b, T, V), labels (b, T) -> (b): each window's mean cross entropy of labels[t] under z[t - 1]; -100 is not counted."""
    return torch.stack([torch.nn.functional.cross_entropy(z[s, :-1], labels[s, 1:]) for s in range(len(labels))])


def versions():
    return {"torch": torch.__version__, "transformers": transformers.__version__}
