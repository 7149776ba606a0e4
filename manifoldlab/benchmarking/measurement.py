"""A case measured: every contestant shown to be right, then all of them timed. A row of plain numbers."""

from collections.abc import Callable
from math import isnan
from typing import Any

import torch
from torch import Tensor

from manifoldlab.benchmarking import counts, race
from manifoldlab.benchmarking.case import Absent, Call, Case, Contest, Contestant, Setting
from manifoldlab.benchmarking.clock import Clock, Reading
from manifoldlab.benchmarking.race import FLOOR, Plan, Race

OWN = "own"
Row = dict[str, Any]


def measure(
    case: Case, setting: Setting, plan: Plan, advance: Callable[[float], None] = lambda done: None
) -> Row:
    return measure_ready(case, case.ready(setting), setting, plan, advance)


def measure_ready(
    case: Case,
    contest: Contest,
    setting: Setting,
    plan: Plan,
    advance: Callable[[float], None] = lambda done: None,
) -> Row:
    """A wrong contestant is not timed; where it is our own, nothing is."""
    clock = Clock(setting.device, torch.get_num_threads(), contest.waits)
    cold, errors = checked(contest, clock)
    peers = {
        name: _peer(peer, errors.get(name), contest.within) for name, peer in contest.peers.items()
    }
    row = _facts(case, contest, setting, clock) | _verdict(errors[OWN], contest.within)
    if not row["right"]:
        return row | {"peers": peers}
    timed = [name for name, peer in peers.items() if peer.get("right")]
    calls = {FLOOR: contest.floor.call, OWN: contest.own.call}
    calls |= {
        n: p.call for n, p in contest.peers.items() if n in timed and isinstance(p, Contestant)
    }
    seen = race.run(calls, clock, plan, cold, advance)
    for name in timed:
        peers[name] |= _times(seen, name)
    best = min(timed, key=lambda n: float(peers[n]["seconds"]), default=None)
    return row | {
        "own": _times(seen, OWN) | _work(contest.own.call, clock, seen.seconds(OWN)),
        "floor": {"name": contest.floor.name, **_times(seen, FLOOR)}
        | _work(contest.floor.call, clock, seen.seconds(FLOOR)),
        "peers": peers,
        "best_peer": None if best is None else {"name": best} | _ratio(seen, OWN, best),
        "rounds": len(seen.readings[OWN]),
        "redone": seen.redone,
        "disturbed": seen.disturbed,
    }


def checked(contest: Contest, clock: Clock) -> tuple[dict[str, Reading], dict[str, float | str]]:
    """The first call of each, and how wrong it is; or, of a peer that raises, in what way."""
    exact = contest.exact().double().cpu()
    cold = {FLOOR: clock.read(contest.floor.call)}
    errors = dict[str, float | str]()
    for name, contestant in ({OWN: contest.own} | dict(contest.peers)).items():
        if isinstance(contestant, Absent):
            continue
        try:
            cold[name], found = _first(contestant, clock)
        except Exception as error:
            if name == OWN:
                raise
            errors[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            continue
        if found.shape != exact.shape:
            what = f"{name} gives {tuple(found.shape)}, the exact result is {tuple(exact.shape)}"
            raise ValueError(f"{what}: a case compares unlike things")
        errors[name] = contest.error(found, exact)
    return cold, errors


def _first(contestant: Contestant, clock: Clock) -> tuple[Reading, Tensor]:
    kept = list[Any]()
    reading = clock.read(lambda: kept.append(contestant.call()))
    return reading, contestant.read(kept[0]).detach().double().cpu()


def _facts(case: Case, contest: Contest, setting: Setting, clock: Clock) -> Row:
    return {
        "name": case.name,
        "about": case.about,
        "sizes": dict(contest.sizes),
        "dtype": str(contest.dtype).removeprefix("torch."),
        "device": setting.device,
        "threads": clock.threads,
        "clock": "core" if clock.of_core else "wall",
        "within": contest.within,
        "reason": contest.reason,
    }


def _peer(peer: Contestant | Absent, error: float | str | None, within: float) -> Row:
    if isinstance(peer, Absent):
        return {"absent": peer.why}
    if not isinstance(error, float):
        return {"failed": error}
    return _verdict(error, within)


def _verdict(error: float | str, within: float) -> Row:
    return {"error": error, "right": isinstance(error, float) and error <= within}


def _times(seen: Race, name: str) -> Row:
    own = {
        "seconds": seen.seconds(name),
        "wall": seen.wall(name),
        "rounds": len(seen.readings[name]),
    }
    return own if name == FLOOR else own | _ratio(seen, name, FLOOR)


def _ratio(seen: Race, name: str, to: str) -> Row:
    ratio = seen.ratio(name, to)
    return {"ratio": ratio.value, "noise": None if isnan(ratio.noise) else ratio.noise}


def _work(call: Call, clock: Clock, seconds: float) -> Row:
    flop, moved = counts.work(call)
    return {
        "flop": flop,
        "bytes": moved,
        "flop_per_second": flop / seconds,
        "bytes_per_second": moved / seconds,
        "peak_bytes": counts.peak(call, clock.device),
    }
