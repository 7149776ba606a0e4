"""`manifoldlab figures`: the scripts paper_figs/fig_*.py, each of which reads records and draws.

A script takes --results and --out, prints the files that it drew, and where records are missing
ends with one line that says how to make them.
"""

import os
import subprocess
import sys

from manifoldlab import catalog, files, listing, options


def draw(command: options.Figures) -> int:
    known = listing.figures()
    for name in command.names:
        if name not in known:
            raise ValueError(catalog.unknown("figure", name, list(known)))
    files.check_writable(command.out)
    failed = False
    for name in command.names or known:
        drawn = _run(name, command)
        if drawn.returncode == 0:
            print(f"{name}: {', '.join(drawn.stdout.split())}")
            continue
        broken = "Traceback" in drawn.stderr
        print(f"{name}: {drawn.stderr.strip()}", file=sys.stderr if broken else sys.stdout)
        failed |= broken or bool(command.names)
    return 1 if failed else 0


def _run(name: str, command: options.Figures) -> subprocess.CompletedProcess[str]:
    """In a process of its own, so that a script can set up matplotlib as it likes."""
    script = listing.figure(name)
    words = [str(script), "--results", str(command.results), "--out", str(command.out)]
    beside = os.pathsep.join([str(script.parents[1]), os.environ.get("PYTHONPATH", "")])
    surroundings = os.environ | {"PYTHONPATH": beside.strip(os.pathsep)}
    return subprocess.run(
        [sys.executable, *words], env=surroundings, capture_output=True, text=True
    )
