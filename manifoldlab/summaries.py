"""`manifoldlab summarize`: the records of experiments as JSON small enough to commit, without samples.

    EXPERIMENT.json   {"experiment", "runs": [{"config", "metrics", "agrees", "seconds", "sources",
                       "command"}], "environments"}

Runs are in the order of their configurations, so that the same records make the same bytes. A command is
the one that made the record, without the folder in which it was put; an environment is without command
and date, so that runs of one machine and commit share it.
"""

import json
import sys
from typing import Any

from manifoldlab import catalog, files, options, records
from manifoldlab.report.commands import command as typed

KEPT = ("config", "metrics", "agrees", "seconds", "sources")
OWN = ("command", "date")  # of each run


def write(command: options.Summarize) -> int:
    known = catalog.names("experiments")
    for name in command.names:
        if name not in known:
            raise ValueError(catalog.unknown("experiment", name, known))
    found = {name: records.load(name, command.results) for name in command.names or known}
    files.check_writable(command.out)
    for name, runs in found.items():
        if runs:
            file = command.out / f"{name}.json"
            files.write_json(file, summary(name, runs))
            print(f"{file}: {records.note(runs)}")
        elif command.names:
            where = command.results / name
            print(f"manifoldlab: there are no records in {where}", file=sys.stderr)
    return int(any(not found[name] for name in command.names) or not any(found.values()))


def summary(experiment: str, runs: list[records.Run]) -> dict[str, Any]:
    rows = [
        {key: getattr(run, key) for key in KEPT} | {"command": typed(run.environment)}
        for run in runs
    ]
    rows.sort(key=lambda row: json.dumps(row["config"], sort_keys=True))
    shared = [{k: v for k, v in run.environment.items() if k not in OWN} for run in runs]
    made_with = {json.dumps(environment, sort_keys=True) for environment in shared}
    return {
        "experiment": experiment,
        "runs": rows,
        "environments": [json.loads(text) for text in sorted(made_with)],
    }
