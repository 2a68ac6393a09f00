"""`python -m bench`: runs cases, prints the table, and writes the documents after a full run."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from bench import forge_cases, git_cases, hook_cases, lfs_cases, memory_cases, other_cases
from bench.material import Material
from bench.peer import CACHE, Missing
from bench.report import as_json, chart, document, machine, table
from bench.stage import Row, Stage

# What a whole run writes, mostly to MinIO, which breaks off connections when its disk is full.
ROOM_BYTES = 32 * 10**9
ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "start": other_cases.start,
    "refs": git_cases.refs,
    "fetch": git_cases.incremental_fetch,
    "warm-clone": git_cases.warm_clone,
    "cold-clone": git_cases.cold_clone,
    "git-clone": git_cases.real_clone,
    "push": git_cases.pushes,
    "ssh": git_cases.ssh,
    "fairness": git_cases.fairness,
    "pipeline": hook_cases.pipeline,
    "memory": memory_cases.memory,
    "soft-serve": forge_cases.soft_serve,
    "gitea": forge_cases.gitea,
    "rest": other_cases.rest,
    "lfs-batch": lfs_cases.batches,
    "lfs-server": lfs_cases.through_the_server,
    "lfs-direct": lfs_cases.past_the_server,
}


def main() -> int:
    """Status 1 when a bar was missed or a peer is missing."""
    parser = argparse.ArgumentParser(prog="bench/run", description="Measure Modelyard beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases; all without")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--quick", action="store_true", help="one round of each, to try out")
    parser.add_argument("--keep", action="store_true", help="keep the servers' folders")
    options = parser.parse_args()
    if options.list:
        for name, case in CASES.items():
            print(f"{name:12} {(case.__doc__ or '').splitlines()[0]}")
        return 0
    if unknown := set(options.names) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    names = options.names or list(CASES)
    place = tempfile.gettempdir()
    free = shutil.disk_usage(place).free
    if not options.names and not options.quick and free < ROOM_BYTES:
        parser.error(
            f"a whole run needs {ROOM_BYTES / 1e9:.0f} GB in {place}, where {free / 1e9:.0f} GB are free;"
            " set TMPDIR, or name some cases"
        )
    folder = Path(tempfile.mkdtemp(prefix="modelyard-bench-"))
    folder.chmod(0o711)  # peers that drop their rights must get through
    stage = Stage(folder, Material(CACHE / "material"), quick=options.quick)
    rows: list[Row] = []
    missing = False
    try:
        for name in names:
            print(f"{name} …", file=sys.stderr, flush=True)
            try:
                stage.quiet()
                found = CASES[name](stage)
            except Missing as error:
                print(f"  left out: {error}", file=sys.stderr)
                missing = True
                continue
            print(table(found), file=sys.stderr, flush=True)
            rows += found
    finally:
        stage.close()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    about = machine()
    print(table(rows))
    results = CACHE / "results.json"
    results.write_text(as_json(rows, about))
    print(f"every sample: {results}", file=sys.stderr)
    if not options.names and not options.quick and not missing:
        (ROOT / "docs" / "performance.md").write_text(document(rows, about))
        (ROOT / "docs" / "images" / "performance.svg").write_text(chart(rows))
    return 1 if missing or any(one.met is False for one in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
