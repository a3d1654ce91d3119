"""Run the benchmarks one after another and record them under benchmarks/results/, with commit and machine.

At the end stands a table of all figures that have a floor.

python benchmarks/run.py            # all
python benchmarks/run.py rollout    # some
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from floors import held, table

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
    floors: dict[str, list[dict[str, Any]]] = {}
    failed = []
    for name in names:
        print(f"\n=== {name}", flush=True)
        file = results / f"{name}.json"
        before = file.stat().st_mtime_ns if file.exists() else 0
        subprocess.run([sys.executable, str(BENCHMARKS[name]), "--json", str(file)], check=False)
        if file.exists() and file.stat().st_mtime_ns > before:
            floors[name] = json.loads(file.read_text())["floors"]
        else:
            failed.append(name)
    print(f"\n{table(floors)}")
    if failed:
        print(f"failed before the end: {', '.join(failed)}")
    return int(bool(failed) or not all(held(floor) for of_one in floors.values() for floor in of_one))


if __name__ == "__main__":
    sys.exit(main())
