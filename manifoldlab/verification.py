"""Runs theorems: draws cases from every family, judges them, and holds the controls to failing."""

import importlib
import pkgutil
import signal
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, is_dataclass
from functools import cache, partial
from math import inf, isfinite
from multiprocessing import get_context
from time import perf_counter
from typing import Any, NamedTuple

from manifoldlab.strategies import Found, search
from manifoldlab.theorem import Amount, Control, Curve, Judgement, Theorem, amount

SHRINK_BUDGET = 60  # judgements spent on finding a smaller failing case


class Profile(NamedTuple):
    cases: int  # a family
    controls: int  # cases a family for each control
    offset: int  # added to the seed: `thorough` draws other cases than `full`


PROFILES = {
    "quick": Profile(2, 1, 0),
    "full": Profile(10, 3, 0),
    "thorough": Profile(100, 30, 10**6),
}


@cache
def laws() -> dict[str, Theorem]:
    """Every law of theory_checks by its identifier, in their order."""
    package = importlib.import_module("theory_checks")
    modules = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    found = [importlib.import_module(f"theory_checks.{m}") for m in modules if m[:6] == "check_"]
    by_id = {module.LAW.id: module.LAW for module in found}
    if len(by_id) < len(found):
        raise ValueError(f"two laws with one identifier among {sorted(m.LAW.id for m in found)}")
    return dict(sorted(by_id.items()))


@dataclass
class Tally:
    """What has been seen of one law or of one of its controls."""

    judgements: list[Judgement] = field(default_factory=list)
    amounts: list[Amount] = field(default_factory=list)
    families: dict[str, int] = field(default_factory=dict)
    curves: dict[str, tuple[Judgement, Curve]] = field(default_factory=dict)  # each family's worst
    failure: str | None = None

    @property
    def worst(self) -> Judgement:
        return max(self.judgements, key=_share, default=Judgement(inf, 1))

    def keep(self, family: str, judgement: Judgement, curve: Curve | None) -> None:
        self.judgements.append(judgement)
        kept = self.curves.get(family)
        if curve and (kept is None or _share(judgement) > _share(kept[0])):
            self.curves[family] = judgement, curve


def _share(judgement: Judgement) -> float:
    return judgement.worst / judgement.tolerance


def check_family(
    law: Theorem, family: str, *, profile: Profile, seed: int, device: str, tally: Tally
) -> None:
    """Judges cases of one family of a law; a failing case is shrunk and kept as code."""
    families = law.cases()
    cases = max(1, round(law.effort * profile.cases))
    seen: dict[str, str] = {}  # failing cases, and why
    count = 0

    def visit(case: Any) -> None:
        nonlocal count
        if repr(case) in seen:
            raise Found
        if seen and len(seen) + count > cases + SHRINK_BUDGET:
            return
        judgement, why, measurement = _judged(law, case.on(device), cases * len(families))
        count += 1
        if not seen:
            curve = None if measurement is None else law.claim.curve(measurement)
            tally.keep(family, judgement, curve)
        if not judgement.holds:
            seen[repr(case)] = why
            raise Found

    name, first = f"{law.id}/{family}", tally.failure is None
    found, trouble = _searched(
        families[family], visit, cases, name, seed + profile.offset, shrink=first
    )
    tally.families[family] = min(count, cases)
    if trouble:
        tally.failure = tally.failure or f"{family}: {trouble}"
    elif found is not None and tally.failure is None:
        tally.failure = f"{family}: {seen[repr(found)]}\n{rebuild(found)}"


def check_control(
    law: Theorem, control: Control, *, profile: Profile, seed: int, device: str, tally: Tally
) -> None:
    """The law must be refuted on every case of the control, by the predicted amount."""
    families = (control.cases or law.cases)()
    cases = max(1, round(law.effort * profile.controls))
    stand_in = Theorem(
        law.id, law.title, law.statement, law.claim, law.cases, control.measure, law.controls
    )

    def visit(case: Any) -> None:
        case = case.on(device)
        judgement, why, measurement = _judged(stand_in, case, cases * len(families))
        tally.judgements.append(judgement)
        if why.startswith("error"):
            tally.failure = tally.failure or f"{why}\n{rebuild(case)}"
        elif not isfinite(judgement.worst):  # refuted, but not by the dropped assumption
            tally.failure = tally.failure or f"nothing finite is measured\n{rebuild(case)}"
        elif judgement.holds:
            tally.failure = tally.failure or f"the law holds still\n{rebuild(case)}"
        else:
            _compare(law, control, case, measurement, tally)

    for family, strategy in families.items():
        before = len(tally.judgements)
        name = f"{law.id}{control.name}/{family}"
        _, trouble = _searched(strategy, visit, cases, name, seed + profile.offset)
        tally.families[family] = len(tally.judgements) - before
        if trouble:
            tally.failure = tally.failure or f"{family}: {trouble}"


def _compare(law: Theorem, control: Control, case: Any, measurement: Any, tally: Tally) -> None:
    try:
        found = amount(law.claim, control, case, measurement)
    except Exception as error:  # as in _judged
        tally.failure = f"error: {type(error).__name__}: {error}\n{rebuild(case)}"
        return
    if found is None:
        return
    tally.amounts.append(found)
    if not found.deviation <= control.within:
        tally.failure = tally.failure or (
            f"off by {found.measured:.6g} where {found.predicted:.6g} is predicted "
            f"(fields {found.deviation:.2%} apart)\n{rebuild(case)}"
        )


def _searched(
    strategy: Any,
    visit: Callable[[Any], None],
    cases: int,
    name: str,
    seed: int,
    *,
    shrink: bool = True,
) -> tuple[Any, str]:
    """The failing case, and what keeps cases from being drawn: a family of none is not verified.

    The default seed begins with the simplest case of a family, which is also the cheapest. Others pass
    over it: laws and controls of one case a family would else see the same one at every seed.
    """
    number = zlib.crc32(f"{seed}/{name}".encode())
    how: dict[str, Any] = {"number": number, "simplest": seed == 0, "shrink": shrink}
    try:
        return search(strategy, visit, examples=cases, **how), ""
    except Exception as error:  # of a new member, say; the run goes on
        return None, f"no case could be drawn: {type(error).__name__}: {error}"


def _judged(law: Theorem, case: Any, cases: int) -> tuple[Judgement, str, Any]:
    """The judgement, why it fails, and what was measured."""
    try:
        measurement = law.measure(case)
        judgement = law.claim.judge(measurement, cases)
    except Exception as error:  # a law that cannot be measured is not verified; the run goes on
        return Judgement(inf, 1.0), f"error: {type(error).__name__}: {error}", None
    return judgement, f"{judgement.worst:.3g} against {judgement.tolerance:.3g}", measurement


def check_law(
    law: Theorem,
    *,
    profile: str,
    seed: int,
    device: str,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One row of laws.json; `advance` is called once for each family and control."""
    start = perf_counter()
    options: dict[str, Any] = {"profile": PROFILES[profile], "seed": seed, "device": device}
    tally = Tally()
    for family in law.cases():
        check_family(law, family, tally=tally, **options)
        advance()
    if not tally.families:
        tally.failure = "no family of the catalog fits this law"
    controls = [_control_row(law, control, options, advance) for control in law.controls]
    worst = tally.worst
    row: dict[str, Any] = {
        "id": law.id,
        "title": law.title,
        "statement": law.statement,
        "kind": law.claim.kind,
        "verdict": "refuted" if tally.failure else "verified",
        "worst": worst.worst,
        "tolerance": worst.tolerance,
        "cases": sum(tally.families.values()),
        "families": tally.families,
        "control": max(controls, key=_badness),
        "controls": controls,
        "seconds": perf_counter() - start,
        "seed": seed,
        "profile": profile,
        "device": device,
        "failure": tally.failure,
    }
    if law.claim.kind == "rate":
        row |= worst.fit()
        row["curves"] = {name: c._asdict() | j.fit() for name, (j, c) in tally.curves.items()}
    return row


def check_laws(
    chosen: Iterable[Theorem], *, profile: str, seed: int, device: str, jobs: int
) -> Iterator[dict[str, Any]]:
    """Rows of laws.json as they are done, by so many processes; the rates, which sweep, go first."""
    names = [law.id for law in sorted(chosen, key=lambda law: law.claim.kind != "rate")]
    check = partial(_row_of, profile=profile, seed=seed, device=device)
    # spawned, for a fork of a process that has used torch's threads may hang
    with get_context("spawn").Pool(min(jobs, len(names)), _leave_interrupts) as pool:
        yield from pool.imap_unordered(check, names)


def _row_of(name: str, *, profile: str, seed: int, device: str) -> dict[str, Any]:
    return check_law(laws()[name], profile=profile, seed=seed, device=device)


def _leave_interrupts() -> None:
    """To the parent, which ends its pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _control_row(
    law: Theorem, control: Control, options: dict[str, Any], advance: Callable[[], None]
) -> dict[str, Any]:
    tally = Tally()
    check_control(law, control, tally=tally, **options)
    if not tally.judgements:
        tally.failure = tally.failure or "no case was drawn"
    advance()
    worst = max(tally.amounts, key=lambda a: a.deviation, default=None)
    return {
        "name": control.name,
        "verdict": "not rejected" if tally.failure else "rejected",
        "predicted": worst.predicted if worst else None,
        "measured": worst.measured if worst else None,
        "deviation": worst.deviation if worst else None,
        "cases": len(tally.judgements),
        "families": tally.families,
        "failure": tally.failure,
    }


def _badness(control: dict[str, Any]) -> tuple[bool, float]:
    return control["verdict"] != "rejected", control["deviation"] or 0.0


def steps(law: Theorem) -> int:
    return len(law.cases()) + len(law.controls)


def rebuild(case: Any) -> str:
    """Python that rebuilds a case: the imports of all dataclasses in it, and its repr."""
    lines = sorted(
        {f"from {type(c).__module__} import {type(c).__qualname__}" for c in _inside(case)}
    )
    return "\n".join([*lines, f"case = {case!r}"])


def _inside(value: Any) -> Iterable[Any]:
    if is_dataclass(value) and not isinstance(value, type):
        yield value
        for name in value.__dataclass_fields__:
            yield from _inside(getattr(value, name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _inside(item)


def hold(law: Theorem, family: str) -> None:
    """As a test: the quick profile, the same cases every time; AssertionError with the failure."""
    tally = Tally()
    check_family(law, family, profile=PROFILES["quick"], seed=0, device="cpu", tally=tally)
    if tally.failure:
        raise AssertionError(f"law {law.id} is refuted: {tally.failure}")


def reject(law: Theorem, control: Control) -> None:
    tally = Tally()
    check_control(law, control, profile=PROFILES["quick"], seed=0, device="cpu", tally=tally)
    if tally.failure:
        raise AssertionError(
            f"law {law.id}, control {control.name!r} is not rejected: {tally.failure}"
        )
