#!/usr/bin/env python3
"""Round the linear layers of a Hugging Face folder to B bits in groups of G input channels, and write them back dequantised.

    python scripts/round_checkpoint.py FOLDER OUT [--bits 4] [--group-size 128]

Round to nearest, asymmetric: a group of G consecutive weights of a row spans [min, max] in 2^B - 1 steps. Embeddings,
norms, biases and the head stay as they are. OUT gets the config and tokenizer files too: it is a model folder like any
other, a second checkpoint for `hesper quadratic --against OUT`. Needs numpy and safetensors.
"""
import argparse
import shutil
from pathlib import Path

import numpy
from safetensors.numpy import load_file, save_file


def round_to_nearest(weight, bits, group):
    rows, columns = weight.shape
    pad = -columns % group
    groups = numpy.pad(weight.astype(numpy.float64), ((0, 0), (0, pad)), mode="edge").reshape(rows, -1, group)
    low = groups.min(-1, keepdims=True)
    step = (groups.max(-1, keepdims=True) - low) / (2**bits - 1)
    step[step == 0] = 1
    rounded = low + step * numpy.round((groups - low) / step)
    return rounded.reshape(rows, -1)[:, :columns].astype(weight.dtype)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bits", type=int, default=4, choices=range(1, 17), metavar="B")
    parser.add_argument("--group-size", type=int, default=128, metavar="G")
    arguments = parser.parse_args()
    if arguments.group_size < 1:
        parser.error(f"--group-size {arguments.group_size}: at least 1")
    if arguments.out.resolve() == arguments.folder.resolve():
        parser.error(f"{arguments.out}: would replace the checkpoint that is read")
    shards = sorted(arguments.folder.glob("*.safetensors"))
    if not shards:
        parser.error(f"{arguments.folder}: no .safetensors file")
    arguments.out.mkdir(parents=True, exist_ok=True)
    count = 0
    for shard in shards:
        tensors = load_file(shard)
        for name, value in tensors.items():
            inside = ".layers." in name or name.startswith("layers.")
            if inside and name.endswith(".weight") and value.ndim == 2:
                tensors[name] = round_to_nearest(value, arguments.bits, arguments.group_size)
                count += 1
        save_file(tensors, arguments.out / shard.name, metadata={"format": "pt"})
    for file in arguments.folder.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and file.name != "SHA256SUMS":
            shutil.copy(file, arguments.out / file.name)
    print(f"{arguments.out}: {count} matrices rounded to {arguments.bits} bits in groups of {arguments.group_size}")


if __name__ == "__main__":
    main()
