#!/usr/bin/env python3
"""compare_perplexity.py EVENTS STORED: the perplexity in `hesper perplexity --json`'s events against a stored value."""
import json
import sys
from pathlib import Path


def main():
    events, stored = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    values = [event["perplexity"] for event in map(json.loads, events.read_text().splitlines()) if "perplexity" in event]
    if not values:
        sys.exit(f"compare_perplexity: {events}: no event has a perplexity")
    error = abs(values[-1] / stored["perplexity"] - 1)
    print(f"perplexity {values[-1]:.10g}, stored {stored['perplexity']:.10g}: relative difference {error:.1e}, "
          f"tolerance {stored['relative_tolerance']:.0e}")
    if not error <= stored["relative_tolerance"]:
        sys.exit(f"compare_perplexity: {events}: perplexity {values[-1]:.10g} is not the stored {stored['perplexity']:.10g}")


if __name__ == "__main__":
    main()
