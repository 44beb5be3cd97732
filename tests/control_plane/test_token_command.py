from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.token_command import CommandToken
from octogen_dagster.errors import OctogenMCPAuthenticationError

PYTHON = shlex.quote(sys.executable)
ACCESS = "access-0123456789"


@pytest.mark.parametrize(
    "printed",
    [
        ACCESS,
        f'{{"access_token": "{ACCESS}"}}',
        f'\n{{\n  "access_token": "{ACCESS}"\n}}',
        f"\n{ACCESS}\n",
        f"{ACCESS} \r\nvalid for five minutes\n",
    ],
)
def test_a_token_may_be_printed_as_the_first_line_or_as_json(printed: str) -> None:
    tokens = CommandToken(f"printf %s {shlex.quote(printed)}")
    assert tokens.token() == SecretStr(ACCESS)


def test_a_command_runs_again_when_its_token_is_refused(tmp_path: Path) -> None:
    counter = tmp_path / "runs"
    program = f"import os; open({str(counter)!r}, 'a').write('x'); print('token', end='-'); "
    program += f"print(os.path.getsize({str(counter)!r}))"
    tokens = CommandToken(f"{PYTHON} -c {shlex.quote(program)}")
    assert tokens.token() == tokens.token() == SecretStr("token-1")
    assert tokens.token(refused=SecretStr("token-1")) == SecretStr("token-2")
    assert tokens.token() == SecretStr("token-2")


def test_a_command_that_prints_the_refused_token_again_is_an_error() -> None:
    tokens = CommandToken(f"echo {ACCESS}")
    with pytest.raises(OctogenMCPAuthenticationError, match="printed the access token that was"):
        tokens.token(refused=tokens.token())


def test_a_command_that_only_a_shell_understands_does_not_show_its_secret() -> None:
    with pytest.raises(ValueError, match=r"begins with an assignment to 'VAULT_TOKEN'") as caught:
        CommandToken("VAULT_TOKEN=hvs.SECRET vault read octogen")
    assert "let it begin with `env VAULT_TOKEN=…`, or name a script." in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("true", "What the token command 'true' printed is not a token: a token is one word"),
        ("echo", "What the token command 'echo' printed is not a token: a token is one word"),
        ("echo two words", "What the token command 'echo' printed is not a token"),
        ("printf 'two words\ntoken'", "What the token command 'printf' printed is not a token"),
        ("echo '{\"token\": 1}'", "What the token command 'echo' printed is not a token"),
        ("echo '{\"access_token\":1}'", "What the token command 'echo' printed is not a token"),
        ("echo '{\"access_token\":'", "What the token command 'echo' printed is not a token"),
        ("false", "The token command 'false' failed with exit status 1: run it by hand."),
        ("/no/such --thing", "'/no/such' cannot be started (No such file or directory): run it"),
    ],
)
def test_a_command_that_gives_no_token_is_an_error(command: str, message: str) -> None:
    with pytest.raises(OctogenMCPAuthenticationError) as caught:
        CommandToken(command).token()
    assert message in str(caught.value)


@pytest.mark.parametrize("command", ["", " ", "echo 'x"])
def test_a_command_that_is_empty_or_has_an_open_quote_is_an_error(command: str) -> None:
    with pytest.raises(ValueError, match=r"The token command (is empty|cannot be split)"):
        CommandToken(command)


def test_a_command_that_hangs_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    command = f"sh -c 'sleep 100 & echo $! > {child}; wait'"
    with pytest.raises(OctogenMCPAuthenticationError, match=r"printed no token within 0\.5 s and"):
        CommandToken(command, timeout=0.5).token()
    wait_until(lambda: has_ended(int(child.read_text())))


@pytest.mark.timeout(20)
def test_a_command_whose_output_something_else_holds_open_is_not_waited_for(
    tmp_path: Path,
) -> None:
    escaped = tmp_path / "escaped"
    command = f"sh -c 'setsid sh -c \"echo \\$\\$ > {escaped}; exec sleep 100\" & wait'"
    with pytest.raises(OctogenMCPAuthenticationError, match=r"printed no token within 0\.5 s and"):
        CommandToken(command, timeout=0.5).token()
    escaped_pid = int(escaped.read_text())
    assert not has_ended(escaped_pid)
    os.kill(escaped_pid, signal.SIGKILL)


@pytest.mark.timeout(20)
def test_a_command_that_closes_its_output_and_goes_on_is_stopped() -> None:
    with pytest.raises(OctogenMCPAuthenticationError, match=r"printed no token within 0\.5 s and"):
        CommandToken("sh -c 'exec >&-; sleep 100'", timeout=0.5).token()


@pytest.mark.timeout(20)
def test_a_command_that_prints_without_end_is_stopped() -> None:
    with pytest.raises(OctogenMCPAuthenticationError, match="printed more than 100,000 bytes and"):
        CommandToken("yes").token()


def test_the_error_output_of_a_command_is_shown_in_the_error_and_nowhere_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    said = r"\033[31mlogin required\033[0m\ntoken=hunter2 eyJhbGciOiJFZERTQSJ9.e30.c2ln"
    shown = r"'\x1b[31mlogin required\x1b[0m token=[masked] [masked]'"
    for end, problem in (
        ("exit 3", "The token command 'sh' failed with exit status 3: run it by hand."),
        (
            "echo two words",
            "What the token command 'sh' printed is not a token: a token is one word, without "
            "blanks.",
        ),
    ):
        program = f"printf '{said}' >&2; {end}"
        with pytest.raises(OctogenMCPAuthenticationError) as caught:
            CommandToken(f"sh -c {shlex.quote(program)}").token()
        assert str(caught.value) == f"{problem} Its error output: {shown}"
    assert CommandToken(f"sh -c 'echo progress >&2; echo {ACCESS}'").token()
    assert capfd.readouterr() == ("", "")


@pytest.mark.timeout(20)
def test_error_output_that_is_long_or_never_ends_stops_no_command(tmp_path: Path) -> None:
    left = tmp_path / "left"
    keeps_it_open = f'setsid sh -c "echo \\$\\$ > {left}; exec sleep 100 >&-"'
    program = f"{keeps_it_open} & seq 100000 >&2; echo {ACCESS}"
    assert CommandToken(f"sh -c {shlex.quote(program)}").token() == SecretStr(ACCESS)
    wait_until(left.exists)
    os.kill(int(left.read_text()), signal.SIGKILL)


def test_the_output_of_a_command_that_fails_is_not_quoted() -> None:
    secret = "sk-" + "s" * 30
    command = CommandToken(f"sh -c 'echo {secret}; exit 3'")
    with pytest.raises(OctogenMCPAuthenticationError, match="exit status 3") as caught:
        command.token()
    assert secret not in str(caught.value)


def test_a_token_that_is_refused_does_not_show_in_the_error() -> None:
    words = f"printf %s {shlex.quote(ACCESS + ' and more')}"
    with pytest.raises(OctogenMCPAuthenticationError, match="is not a token") as caught:
        CommandToken(words).token()
    assert ACCESS not in str(caught.value)


def has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")
