"""The file system is the registry, and another installed package can add to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from manifoldlab import catalog, records

KINDS = ["densities", "manifolds", "probes", "problems"]
MEMBERS = [
    (kind, name)
    for kind in catalog.kinds()
    for name in catalog.names(kind)
    if kind != "experiments"  # whose files define Config, FAST and main
]


def test_kinds_are_the_packages_of_members() -> None:
    assert set(KINDS) <= set(catalog.kinds())
    assert "report" not in catalog.kinds()


@pytest.mark.parametrize("kind", catalog.kinds())
def test_names_are_the_files(kind: str) -> None:
    files = Path(catalog.__file__).parent.joinpath(kind).glob("*.py")
    assert catalog.names(kind) == sorted({f.stem for f in files} - {"__init__", "base"})


@pytest.mark.parametrize(("kind", "name"), MEMBERS, ids=map("-".join, MEMBERS))
def test_every_file_defines_its_name(kind: str, name: str) -> None:
    found = catalog.find(kind, name)
    assert callable(found)
    assert found.__module__ == catalog.module(kind, name).__name__ == f"manifoldlab.{kind}.{name}"
    assert catalog.module(kind, name).__doc__


def test_every_experiment_has_a_claim_and_configurations() -> None:
    for name in catalog.names("experiments"):
        experiment = catalog.module("experiments", name)
        assert experiment.__doc__ and callable(experiment.main), name
        assert type(experiment.FAST) is experiment.Config and records.plain(experiment.Config())


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_gives_examples(kind: str) -> None:
    wanted = "example" if kind == "probes" else "examples"
    for name in catalog.names(kind):
        assert callable(vars(catalog.module(kind, name))[wanted])


@pytest.mark.parametrize("look_up", [catalog.find, catalog.module])
def test_an_unknown_name_lists_the_known_ones_in_one_line(look_up) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="no manifolds called 'spere'") as refused:
        look_up("manifolds", "spere")
    line = str(refused.value)
    assert "(did you mean sphere?)" in line and line.endswith(", ".join(catalog.names("manifolds")))
    assert "\n" not in line
    with pytest.raises(ValueError, match=r"no manifolds called 'qqq'; there are clifford_torus, "):
        look_up("manifolds", "qqq")


def test_an_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(ValueError, match=r"no kind called 'probe' \(did you mean probes\?\)"):
        catalog.names("probe")


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package as importlib.metadata sees it, with one good member and one bad."""
    (tmp_path / "acme_spiral.py").write_text("class GrowingSpiral:\n    pass\n")
    (tmp_path / "acme_empty.py").write_text("")
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[manifoldlab.manifolds]\ngrowing_spiral = acme_spiral\nempty = acme_empty\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    catalog._modules.cache_clear()
    yield tmp_path
    catalog._modules.cache_clear()


def test_another_package_adds_members(other_package: Path) -> None:
    del other_package
    assert {"growing_spiral", "sphere"} <= set(catalog.names("manifolds"))
    assert "growing_spiral" not in catalog.names("probes")
    assert catalog.find("manifolds", "growing_spiral").__module__ == "acme_spiral"


def test_a_file_that_does_not_define_its_name_is_refused(other_package: Path) -> None:
    with pytest.raises(ValueError, match="acme_empty.py must define empty or Empty"):
        catalog.find("manifolds", "empty")
    assert other_package.exists()
