"""Run the benchmarks one after another and record them under benchmarks/results/, with commit and machine.

python benchmarks/run.py            # all
python benchmarks/run.py rollout    # some
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(BENCHMARKS)}; default: all")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    below = []
    for name in names:
        print(f"\n=== {name}", flush=True)
        command = [sys.executable, str(BENCHMARKS[name]), "--json", str(results / f"{name}.json")]
        if subprocess.run(command, check=False).returncode:
            below.append(name)
    print(f"\nbelow a floor, or failed: {', '.join(below)}" if below else "\nall floors held")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
