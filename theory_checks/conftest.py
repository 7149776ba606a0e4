"""Every `check_*.py` is tested on each family of its law and on each of its controls."""

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", list(metafunc.module.LAW.cases()))
    if "control" in metafunc.fixturenames:
        controls = metafunc.module.LAW.controls
        metafunc.parametrize("control", controls, ids=lambda control: control.name)
