"""How a run grows in b, t, T, the model and the ranks: CPU time and peak memory of short runs at one thread, each beside
what its plan says. The table and the picture of docs/scaling.md.

    python scripts/bench_scaling.py run HESPER MODELS OUT.json     # MODELS: folder of opt-tiny, stories260K, smollm2, ..
    python scripts/bench_scaling.py draw OUT.json PICTURE.svg

Time is the user and system time of the process with all of its children: other work on the machine changes it by some
percent, where it would change the clock's by factors. Standard library alone."""
import json
import math
import os
import pathlib
import random
import resource
import struct
import subprocess
import sys
import tempfile

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
EXACT = ["exact", "--t", "16", "--pass", "two-pass", "--seqlen", "128", "--b", "4"]
# What varies, its values, and the run.
CURVES = {
    "b": ("opt-tiny", [2, 4, 8, 16], EXACT),
    "t": ("opt-tiny", [8, 16, 32, 64], EXACT),
    "seqlen": ("opt-tiny", [64, 128, 256, 512], EXACT),
    "directions": ("opt-tiny", [1, 4, 16], EXACT),
}
MODELS = ["stories260K", "opt-tiny", "babyllama105", "smollm2"]
RANKS = (1, 2)


def write_ids(path, count, vocabulary):
    """A .npy of int32."""
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({count},), }}"
    header += " " * (63 - (len(header) + 10) % 64) + "\n"
    numbers = random.Random(0)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() +
                     struct.pack(f"<{count}i", *(numbers.randrange(4, vocabulary) for _ in range(count))))


def with_flags(command, **flags):
    words = list(command)
    for name, value in flags.items():
        if f"--{name}" in words:
            words[words.index(f"--{name}") + 1] = str(value)
        else:
            words += [f"--{name}", str(value)]
    return words


def measure(hesper, model, command, folder, ranks=1):
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    write_ids(folder / "ids.npy", 20000, vocabulary)
    words = command + ["--model", str(model.resolve()), "--token-ids", "ids.npy", "--overwrite", "--json", "--out", "out"]
    launch = ["launch", "-n", str(ranks)] if ranks > 1 else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([hesper, *launch, *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: {done.stderr}")
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    result = [e for e in events if e["event"] == "result"][-1]
    point = {"command": " ".join(command), "model": model.name, "ranks": ranks,
             "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3),
             "peak_memory": result["peak_memory"], "planned_memory": result["planned_memory"],
             "products": result["products"]}
    print(point, flush=True)
    return point


def run(hesper, models, out):
    hesper, models = str(pathlib.Path(hesper).resolve()), pathlib.Path(models)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        results = {"load": os.getloadavg()[0], "curves": {}, "models": [], "ranks": []}
        for flag, (model, values, command) in CURVES.items():
            results["curves"][flag] = [
                {"at": v, **measure(hesper, models / model, with_flags(command, **{flag: v}), folder)} for v in values]
        for model in MODELS:
            parameters = sum(f.stat().st_size for f in (models / model).glob("*.safetensors")) // 4
            point = measure(hesper, models / model, with_flags(EXACT, b=1), folder)
            results["models"].append({"parameters": parameters, **point})
        for ranks in RANKS:
            results["ranks"].append(measure(hesper, models / "opt-tiny", with_flags(EXACT, b=32, t=32), folder, ranks))
        pathlib.Path(out).write_text(json.dumps(results, indent=1) + "\n")


def panel(points, x_of, title, measured, planned, say, x0, y0):
    """One quantity, the points measured and a line: of what was planned, where it was, else through the points. Both axes
    logarithmic, at least a factor of four high, so that what stays flat looks flat."""
    width, height = 140, 130
    xs = [math.log2(x_of(p)) for p in points]
    logs = [math.log2(p[key]) for p in points for key in (measured, planned)]
    bottom = min(logs) - 0.5
    top = max(max(logs) + 0.5, bottom + 2)
    place = lambda x: x0 + 18 + (x - min(xs)) / (max(xs) - min(xs)) * (width - 36)
    level = lambda value: y0 + height - (math.log2(value) - bottom) / (top - bottom) * height
    line = " ".join(f"{place(x):.1f},{level(p[planned]):.1f}" for p, x in zip(points, xs))
    out = [f'<rect x="{x0}" y="{y0}" width="{width}" height="{height}" fill="none" stroke="#999"/>',
           f'<text x="{x0 + width / 2}" y="{y0 - 7}" text-anchor="middle" font-weight="bold">{title}</text>',
           f'<polyline points="{line}" fill="none" stroke="#c0392b"/>']
    for i, (p, x) in enumerate(zip(points, xs)):
        out.append(f'<circle cx="{place(x):.1f}" cy="{level(p[measured]):.1f}" r="3" fill="#20639b"/>')
        out.append(f'<text x="{place(x):.1f}" y="{y0 + height + 14}" text-anchor="middle" font-size="9">{x_of(p):.2g}</text>'
                   if x_of(p) < 100 else
                   f'<text x="{place(x):.1f}" y="{y0 + height + 14}" text-anchor="middle" font-size="9">{x_of(p):.0f}</text>')
        if i in (0, len(points) - 1):
            out.append(f'<text x="{place(x):.1f}" y="{level(p[measured]) - 8:.1f}" text-anchor="middle">{say(p)}</text>')
    return out


def draw(results, picture):
    data = json.loads(pathlib.Path(results).read_text())
    titles = {"b": "windows b", "t": "weights t", "seqlen": "tokens T", "directions": "directions at once"}
    panels = [(data["curves"][key], lambda p: p["at"], title) for key, title in titles.items()]
    panels.append((sorted(data["models"], key=lambda p: p["parameters"]), lambda p: p["parameters"] / 1e6, "million parameters"))
    out = []
    for i, (points, x_of, title) in enumerate(panels):
        x0 = 80 + 160 * i
        out += panel(points, x_of, title, "cpu_seconds", "cpu_seconds", lambda p: f"{p['cpu_seconds']:.3g} s", x0, 30)
        out += panel(points, x_of, title, "peak_memory", "planned_memory", lambda p: f"{p['peak_memory'] / 2**20:.0f} MiB", x0, 220)
    for text, y in (("CPU", 90), ("seconds", 104), ("peak", 270), ("memory;", 284), ("line: plan", 298)):
        out.append(f'<text x="10" y="{y}">{text}</text>')
    pathlib.Path(picture).write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="880" height="385" font-family="sans-serif" font-size="11">\n'
        '<rect width="880" height="385" fill="white"/>\n' + "\n".join(out) + "\n</svg>\n")


if len(sys.argv) == 5 and sys.argv[1] == "run":
    run(*sys.argv[2:])
elif len(sys.argv) == 4 and sys.argv[1] == "draw":
    draw(*sys.argv[2:])
else:
    sys.exit(__doc__)
