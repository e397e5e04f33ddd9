#!/usr/bin/env python3
"""Make examples/sample.perplexity.json: the perplexity of examples/sample.txt by transformers, in true float64.

    .venv-oracle/bin/python scripts/sample_perplexity.py        (`make oracle` installs that environment)

`make demo` holds hesper's answer against this file.
"""
import hashlib
import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "golden"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from float64_transformers import load, logits_of, versions, window_losses

SEQLEN, WINDOWS = 256, 4


def main():
    made = subprocess.run([sys.executable, ROOT / "scripts" / "smollm2_folder.py"], check=True, stdout=subprocess.PIPE, text=True)
    folder = Path(made.stdout.strip())
    sample = ROOT / "examples" / "sample.txt"
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(sample.read_text(encoding="utf-8")).ids
    windows = torch.tensor(ids[: SEQLEN * WINDOWS]).view(WINDOWS, SEQLEN)
    with torch.no_grad():
        losses = window_losses(logits_of(load(folder), windows), windows)
        loss = losses.mean().item()
        z32 = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(windows).logits
        loss32 = window_losses(z32, windows).mean().item()
    record = {
        "command": "python scripts/sample_perplexity.py",
        "made_with": {**versions(), "arithmetic": "float64"},
        "model": "SmolLM2-135M-Instruct, float32 weights dequantised by scripts/smollm2_folder.py",
        "model_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "text": "examples/sample.txt",
        "text_sha256": hashlib.sha256(sample.read_bytes()).hexdigest(),
        "tokens": len(ids),
        "windows": WINDOWS,
        "seqlen": SEQLEN,
        "ids_sha256": hashlib.sha256(struct.pack(f"<{windows.numel()}i", *windows.flatten().tolist())).hexdigest(),
        "window_losses": losses.tolist(),
        "loss": loss,
        "perplexity": math.exp(loss),
        "float32_relative_difference": math.exp(loss32 - loss) - 1,
        "relative_tolerance": 1e-8,
        "tolerance_reason": "both sides in float64 from the same float32 weights: sums of 1e5 terms round to about 1e-13, so 1e-8 "
                            "leaves room for another order of sums and still rejects any float32 step (float32_relative_difference)",
    }
    path = ROOT / "examples" / "sample.perplexity.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{path}: perplexity {record['perplexity']:.10g}, float32 differs by {record['float32_relative_difference']:.1e}")


if __name__ == "__main__":
    main()
