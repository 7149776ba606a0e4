"""How tests call the command: in this process, for an import of torch takes seconds."""

from collections.abc import Callable

import pytest

from manifoldlab import app

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit status, output and errors of a command."""

    def called(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            app.main(arguments)
        shown = capsys.readouterr()
        status = left.value.code
        assert isinstance(status, int)
        return status, shown.out, shown.err

    return called


@pytest.fixture
def refused() -> Callable[[tuple[int, str, str]], str]:
    """The one line of a command that was refused."""

    def line(result: tuple[int, str, str]) -> str:
        status, out, err = result
        assert status == 2 and out == "" and err.startswith("manifoldlab: ")
        assert err.count("\n") == 1 and "Traceback" not in err
        return err

    return line
