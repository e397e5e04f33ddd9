"""The table and the picture of docs/fishers.md: five Fishers beside the true Hessian diagonal of some rows of a layer.

    python scripts/fishers_page.py HESPER MODEL wiki.test.raw OUT [--layer v_proj] [--rows 0:8] [--b 8] [--seqlen 32]

Runs HESPER (the binary) for each diagonal into OUT, compares each with the exact one, prints the table and plots all of
them, each divided by its own mean, one above the other. Needs torch.
"""

import argparse
import json
import pathlib
import subprocess

import torch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hesper")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--layer", default="v_proj")
    parser.add_argument("--rows", default="0:8")
    parser.add_argument("--b", default="8")
    parser.add_argument("--seqlen", default="32")
    parser.add_argument("--probes", default="64")
    args = parser.parse_args()

    def run(*words):
        out = subprocess.run([args.hesper, *words], check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(out.splitlines()[-1])

    def diagonal(name, command, *words):
        result = run(
            command, "--model", args.model, "--dataset", "wikitext2", "--dataset-path", args.text,
            "--layer", args.layer, "--rows", args.rows, "--b", args.b, "--seqlen", args.seqlen,
            "--out", str(args.out / name), "--json", *words,
        )
        return result["file"] + ".pt", result

    batch = max(1, int(args.b) // 2)
    rows = [
        ("Hessian, exact", *diagonal("hessian", "diag", "--exact")),
        ("Gauss-Newton, exact", *diagonal("exact-gn", "diag", "--exact", "--curvature", "gauss-newton")),
        (f"gauss-newton, {args.probes} probes of signs",
         *diagonal("signs", "fisher", "--kind", "gauss-newton", "--probes", args.probes)),
        (f"gauss-newton, {args.probes} sampled labels",
         *diagonal("labels", "fisher", "--kind", "gauss-newton", "--draw", "labels", "--probes", args.probes)),
        (f"token, {args.probes} probes", *diagonal("token", "fisher", "--kind", "token", "--probes", args.probes)),
        ("sequence", *diagonal("sequence", "fisher", "--kind", "sequence")),
        (f"batch of {batch} windows",
         *diagonal("batch", "fisher", "--kind", "batch", "--model-input-bs", str(batch))),
        ("input-gram", *diagonal("gram", "fisher", "--kind", "input-gram")),
    ]
    truth = rows[0][1]

    def percent(bar):
        return f"{100 * bar:.0f}%" if isinstance(bar, (int, float)) else bar

    print("| diagonal | trace | error | error after the best factor | cosine | Spearman | probe bar | data bar |")
    print("|---|---|---|---|---|---|---|---|")
    for name, file, result in rows:
        c = run("compare", file, truth, "--json")
        tensor = result["tensors"][0]
        print(
            f"| {name} | {tensor['trace']:.3g} | {c['error']:.2f} | {c['error_after_scale']:.2f} | {c['cosine']:.3f} "
            f"| {c['diagonal_spearman']:.3f} | {percent(tensor['probe_error'])} | {percent(tensor['data_error'])} |"
        )

    bands = []
    for _, file, _ in rows:
        d = torch.load(file, weights_only=True)
        gap = torch.full((2, d.shape[1]), float("nan"))
        bands += [d / d.mean(), gap]
    torch.save(torch.cat(bands[:-1]), args.out / "fishers.pt")
    title = f"{args.layer} of block 0, rows {args.rows}, each over its mean, from the top: " + ", ".join(
        name for name, _, _ in rows
    )
    subprocess.run([args.hesper, "plot", str(args.out / "fishers.pt"), "--out", str(args.out / "fishers.png"),
                    "--title", title], check=True)


if __name__ == "__main__":
    main()
