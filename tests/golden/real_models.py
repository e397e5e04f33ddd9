"""Losses of real models from transformers in float64, for tests/oracle/test_real_models.cpp.

    python real_models.py [--shared DIR] [--smollm2 DIR]      writes real_models.json beside this script

DIR of --shared holds models/ and text/ (default: ../shared/data beside the repository), that of --smollm2 is what
scripts/smollm2_folder.py made. Float64 as float64_transformers.py says. Each case stores the sha256 of its windows' ids
(int32, little-endian, all windows), so a wrong tokenizer and a wrong model are told apart. Ids come from the packages
`tokenizers` and `sentencepiece`; a document's BOS stands once, before the document.
"""
import argparse
import gzip
import hashlib
import json
import os
from pathlib import Path

import sentencepiece
import tokenizers
import torch

from float64_transformers import load, logits_of, versions, window_losses

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def wikitext(path):
    """A line of only whitespace is an empty row, every other row keeps its newline; rows joined with two newlines."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    return "\n\n".join("" if line.isspace() else line for line in lines)


def losses_of(folder, ids, b, T):
    windows = torch.tensor(ids[:b * T]).view(b, T)
    model = load(folder)
    with torch.no_grad():
        losses = [window_losses(logits_of(model, w[None]), w[None]).item() for w in windows]
    return windows, losses


def digits(x):
    return float(f"{x:.13g}")


def main():
    parser = argparse.ArgumentParser(description="Losses of real models, in float64, from transformers.")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--smollm2", type=Path,
                        default=Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hesper" / "smollm2-135m")
    args = parser.parse_args()
    models, text = args.shared / "models", args.shared / "text"

    wiki = wikitext(text / "wiki.test.raw.gz")
    opt = tokenizers.ByteLevelBPETokenizer(str(models / "opt-tiny" / "vocab.json"), str(models / "opt-tiny" / "merges.txt"),
                                           add_prefix_space=False)
    baby = sentencepiece.SentencePieceProcessor(model_file=str(models / "babyllama105" / "tokenizer.model"))
    smollm = tokenizers.Tokenizer.from_file(str(args.smollm2 / "tokenizer.json"))
    stories = (text / "tinystories_sample.txt").read_text(encoding="utf-8")
    greedy = [int(i) for i in (args.shared / "vectors" / "stories260K.greedy.txt").read_text().split()]
    sample = (ROOT / "examples" / "sample.txt").read_text(encoding="utf-8")

    cases = {  # name: folder, text, BOS, ids of the whole text, b, T
        "opt-tiny": (models / "opt-tiny", "wikitext2 test", "document", [2] + opt.encode(wiki).ids, 8, 512),
        "babyllama105": (models / "babyllama105", "tinystories_sample.txt", "document", [1] + baby.encode(stories), 4, 256),
        "stories260K": (models / "stories260K", "vectors/stories260K.greedy.txt (ids)", "none", greedy, 1, len(greedy)),
        "smollm2": (args.smollm2, "wikitext2 test", "none", smollm.encode(wiki, add_special_tokens=False).ids, 8, 512),
        "smollm2-sample": (args.smollm2, "examples/sample.txt", "none", smollm.encode(sample, add_special_tokens=False).ids, 4, 256),
    }
    result = {"versions": versions() | {"tokenizers": tokenizers.__version__, "sentencepiece": sentencepiece.__version__}, "cases": {}}
    for name, (folder, source, bos, ids, b, T) in cases.items():
        windows, losses = losses_of(folder, ids, b, T)
        loss = sum(losses) / b
        perplexity = torch.tensor(loss).exp().item()
        result["cases"][name] = {
            "text": source, "bos": bos, "windows": b, "seqlen": T, "ids_of_the_text": len(ids),
            "ids_sha256": hashlib.sha256(windows.numpy().astype("<i4").tobytes()).hexdigest(),
            "loss": digits(loss), "perplexity": digits(perplexity), "window_losses": [digits(x) for x in losses]}
        print(f"{name:15} {source:38} b {b} T {T} of {len(ids)} ids: loss {loss:.12f} perplexity {perplexity:.9f}", flush=True)
    (HERE / "real_models.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
