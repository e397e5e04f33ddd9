"""Losses of real models from transformers in float64, for tests/oracle/test_real_models.cpp.

    python real_models.py [--shared DIR] [--smollm2 DIR]      writes real_models.json beside this script

DIR of --shared holds models/ and text/ (default: ../shared/data beside the repository), that of --smollm2 is what
scripts/smollm2_folder.py made. Float64 as float64_transformers.py says. Each case stores the sha256 of its windows' ids
(int32, little-endian, all windows), so a wrong tokenizer and a wrong model are told apart. Ids come from the packages
`tokenizers` and `sentencepiece`; a document's BOS stands once, before the document. "block" holds the gradient, Hessian and
Gauss-Newton matrix of the loss of the first tokens of window 0 at a few weights of the first, middle and last block.
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
from make_goldens import second_order

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def wikitext(path):
    """A line of only whitespace is an empty row, every other row keeps its newline; rows joined with two newlines."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    return "\n\n".join("" if line.isspace() else line for line in lines)


def losses_of(model, windows):
    with torch.no_grad():
        return [window_losses(logits_of(model, w[None]), w[None]).item() for w in windows]


def block_of(model, windows, tokens):
    """Double backward at 9 weights, all cross terms."""
    names = [n for n, _ in model.named_parameters()]
    last = model.config.num_hidden_layers - 1
    of = lambda block, part: next(n for n in names if f".layers.{block}." in n and part in n)
    opt = model.config.model_type == "opt"
    entries = [(of(0, "q_proj.weight"), [0, 1, 2, 3]), (of(last // 2, "v_proj.weight"), [5, 700]),
               (of(last, "fc2.weight" if opt else "down_proj.weight"), [0, 1001]),
               ("model.decoder.final_layer_norm.weight" if opt else "model.norm.weight", [3])]
    w = windows[:1, :tokens]
    g, H, G = second_order(model, w, w, entries)
    rows = lambda m: [[digits(x) for x in row] for row in m.tolist()]
    return {"tokens": w.shape[1], "entries": [{"tensor": n, "indices": i} for n, i in entries],
            "gradient": [digits(x) for x in g.tolist()], "hessian": rows(H), "gauss_newton": rows(G)}


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
        windows = torch.tensor(ids[:b * T]).view(b, T)
        model = load(folder)
        losses = losses_of(model, windows)
        loss = sum(losses) / b
        perplexity = torch.tensor(loss).exp().item()
        result["cases"][name] = {
            "text": source, "bos": bos, "windows": b, "seqlen": T, "ids_of_the_text": len(ids),
            "ids_sha256": hashlib.sha256(windows.numpy().astype("<i4").tobytes()).hexdigest(),
            "loss": digits(loss), "perplexity": digits(perplexity), "window_losses": [digits(x) for x in losses],
            "block": block_of(model, windows, 64 if folder == args.smollm2 else 192)}
        print(f"{name:15} {source:38} b {b} T {T} of {len(ids)} ids: loss {loss:.12f} perplexity {perplexity:.9f}", flush=True)
    (HERE / "real_models.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
