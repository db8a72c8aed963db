"""``python -m tests.chaos --seeds 20``: the whole chaos at length, a line for each seed."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from pathlib import Path

from tests.chaos.plan import Kind
from tests.chaos.run import Verdict, run
from tests.chaos.stage import Torture, servers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--builds", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=150.0, help="how long faults go on at most")
    parser.add_argument("--haste", type=float, default=1.0, help="so many times as many faults")
    parser.add_argument("--kinds", nargs="*", choices=[kind.name.lower() for kind in Kind])
    parser.add_argument("--store", choices=["both", "folder", "s3"], default="both", help="both: by turns")
    parser.add_argument("--rabbitmq", action="store_true", help="in place of Redis")
    parser.add_argument("--keep", type=Path, help="where logs and diaries go of runs in which something is wrong")
    given = parser.parse_args()
    # Asked to stop, it takes its servers and disks down first.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    kinds = frozenset(Kind[name.upper()] for name in given.kinds) if given.kinds is not None else frozenset(Kind)
    failed, total = [], Counter[str]()
    with servers(given.store != "folder", given.rabbitmq) as on:
        for seed in range(given.first, given.first + given.seeds):
            s3 = given.store == "s3" or (given.store == "both" and seed % 2 == 1)
            torture = Torture(seed, builds=given.builds, seconds=given.seconds, kinds=kinds, haste=given.haste, s3=s3)
            verdict = run(torture, on, given.keep)
            tell(seed, "S3" if s3 and on.s3 else "folder", verdict)
            total.update(verdict.figures)
            total.update({str(kind): count for kind, count in verdict.faults.items()})
            failed += [seed] if verdict.wrong else []
    print(json.dumps({"seeds": given.seeds, "wrong": failed, **total}), flush=True)
    return int(bool(failed))


def tell(seed: int, store: str, verdict: Verdict) -> None:
    state = "WRONG" if verdict.wrong else "right"
    faults = {str(kind): count for kind, count in sorted(verdict.faults.items())}
    told = {
        "seed": seed,
        "store": store,
        "seconds": [round(phase) for phase in verdict.phases],
        **verdict.figures,
        "faults": faults,
    }
    print(state, json.dumps(told), flush=True)
    for wrong in verdict.wrong:
        print("  ", wrong, flush=True)


if __name__ == "__main__":
    sys.exit(main())
