"""Settings that may hold a secret, from files: of the core and of the offers, by variable, flag and command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from carpark.errors import ConfigurationError
from carpark.ops.doctor.given import read_given
from carpark.plugins import Plugins
from carpark.plugins.loading import load
from carpark.plugins.manager import own_settings
from carpark.settings import Settings, fields, load_settings
from carpark.settings.fields import Option, options_of, read, shown
from tests.support.processes import Processes, RunHere

PLUGINS = Plugins(environ={})
SINKS = {"CARPARK_SINKS": "webhook", "CARPARK_WEBHOOK_URL": "http://there/"}
CORE = {option.variable: option for option in options_of(Settings).values() if option.file_variable}
WEBHOOK = {
    option.variable: option
    for option in options_of(PLUGINS.sinks["webhook"].offer.settings, "CARPARK_WEBHOOK_").values()
}
VALUES = {
    "CARPARK_BROKER_URL": "amqp://me:s3cret@there;amqp://me:s3cret@elsewhere",
    "CARPARK_MANAGEMENT_URL": "http://me:s3cret@there:15672",
    "CARPARK_REDIS_URL": "redis://:s3cret@there:6379/0",
    "CARPARK_WRITER_URL": "https://me:s3cret@there",
    "CARPARK_WRITER_TOKEN": "s3cret",
    "CARPARK_DASHBOARD_LOGIN": "me: s3cret ",
    "CARPARK_WEBHOOK_URL": "https://there/?key=s3cret",
    "CARPARK_WEBHOOK_SECRET": " s3cret",
}


def value_of(option: Option, environ: dict[str, str]) -> Any:
    settings, plugins = load({**SINKS, **environ})
    if option.variable in CORE:
        return getattr(settings, option.name)
    return getattr(own_settings(plugins.sinks["webhook"].offer, plugins.environ), option.name)


def refused(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load({**SINKS, **environ})
    return "\n".join(str(each) for each in caught.value.findings)


def test_every_setting_that_is_masked_has_a_file_and_no_other_has() -> None:
    assert {**CORE, **WEBHOOK}.keys() == VALUES.keys()
    for option in options_of(Settings).values():
        masked = option.text.shown(VALUES.get(option.variable, "plain:secret@x")) != VALUES.get(
            option.variable, "plain:secret@x"
        )
        assert bool(option.file_variable) == masked, option.variable


@pytest.mark.parametrize("option", [*CORE.values(), *WEBHOOK.values()], ids=lambda option: option.variable)
@pytest.mark.parametrize("written", ["{}", "{}\n", "{}\r\n", "\ufeff{}\n"])
def test_a_file_is_as_good_as_the_variable(tmp_path: Path, option: Option, written: str) -> None:
    file, text = tmp_path / "secret", VALUES[option.variable]
    file.write_bytes(written.format(text).encode())
    found = value_of(option, {option.variable: "", f"{option.variable}_FILE": str(file)})
    assert found == value_of(option, {option.variable: text})


@pytest.mark.parametrize("option", [*CORE.values(), *WEBHOOK.values()], ids=lambda option: option.variable)
def test_both_are_refused_and_so_is_a_file_that_is_none(tmp_path: Path, option: Option) -> None:
    name, file, folder = f"{option.variable}_FILE", tmp_path / "secret", str(tmp_path)
    file.write_text(VALUES[option.variable])
    said = refused({name: str(file), option.variable: VALUES[option.variable]})
    assert (
        said == f"{name}={str(file)!r}: wanted that or {option.variable}, not both"[: len(said)] or "not both" in said
    )
    assert said.startswith(f"{name}=")
    for content, wanted in ((b"", "it is empty"), (b"\n\n", "it is empty"), (b"\xff\xfe", "a file of UTF-8 text")):
        file.write_bytes(content)
        assert refused({option.variable: "", name: str(file)}).endswith(wanted)
    file.write_bytes(b"s" * (64 * 1024 + 1))
    assert refused({option.variable: "", name: str(file)}).endswith("it is too long")
    for path, wanted in ((folder, "is a directory"), (f"{folder}/none", "no such file or directory")):
        assert refused({option.variable: "", name: path}).endswith(f"a file that can be read ({wanted})")


@pytest.mark.parametrize(
    "option", [CORE["CARPARK_BROKER_URL"], WEBHOOK["CARPARK_WEBHOOK_SECRET"]], ids=lambda option: option.variable
)
@pytest.mark.parametrize("written", [None, b"", b"half a secr"], ids=["no writer", "a silent one", "one that hangs"])
def test_a_pipe_that_nobody_writes_to_its_end_is_not_waited_for_without_end(
    tmp_path: Path, option: Option, written: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "_READ_SECONDS", 0.2)
    pipe = tmp_path / "secret"
    os.mkfifo(pipe)
    writer = None if written is None else os.open(pipe, os.O_RDWR)
    try:
        if writer is not None:
            os.write(writer, written or b"")
        said = refused({option.variable: "", f"{option.variable}_FILE": str(pipe)})
    finally:
        if writer is not None:
            os.close(writer)
    assert said.endswith("a file that can be read (nobody has written it to its end within 0.2 s)")
    assert "secr'" not in said


@pytest.mark.parametrize("late", [0.0, 0.3])
def test_a_pipe_is_as_good_as_a_file(late: float, tmp_path: Path) -> None:
    option = CORE["CARPARK_WRITER_TOKEN"]
    script = f"sleep {late}; printf s3c; sleep {late}; printf 'ret\\n'"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    shell = subprocess.Popen(["bash", "-c", f"({script}) > '{pipe}'"])
    try:
        assert value_of(option, {f"{option.variable}_FILE": str(pipe)}) == "s3cret"
    finally:
        assert shell.wait(10) == 0
    show = "import os; from carpark.settings import load_settings; print(load_settings().writer_token)"
    command = f"exec 9< <({script}); {option.variable}_FILE=/dev/fd/9 '{sys.executable}' -c '{show}'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("s3cret\n", "")


def test_all_that_is_wrong_is_said_at_once_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret s3cret\n")
    environ = {f"CARPARK_{name}_FILE": str(file) for name in ("REDIS_URL", "WRITER_TOKEN", "DASHBOARD_LOGIN")}
    environ |= {"CARPARK_BROKER_URL_FILE": "/none", "CARPARK_RATE": "x", "CARPARK_WEBHOOK_SECRET_FILE": "/none"}
    said = refused(environ)
    assert "s3cret" not in said
    assert "REDIS_URL='***': wanted redis://" in said
    assert "or memory://, in the file that CARPARK_REDIS_URL_FILE names" in said
    assert [line.partition("=")[0].removeprefix("CARPARK_") for line in sorted(said.splitlines())] == [
        *("BROKER_URL_FILE", "DASHBOARD_LOGIN", "RATE", "REDIS_URL", "WEBHOOK_SECRET_FILE", "WRITER_TOKEN")
    ]


def test_a_flag_counts_more_than_a_file_and_is_handed_on_without_it() -> None:
    environ = {"CARPARK_REDIS_URL_FILE": "/none", "CARPARK_WEBHOOK_SECRET_FILE": "/none", "CARPARK_PLATES_FILE": "p"}
    flags = {"redis_url": "redis://there", "webhook_secret": "s", "plates": "uk"}
    settings, plugins = load({**SINKS, **environ}, flags)
    assert settings.redis_url == "redis://there"
    assert own_settings(plugins.sinks["webhook"].offer, plugins.environ).secret == "s"
    assert plugins.environ["CARPARK_PLATES_FILE"] == "p", "which is a setting of its own"
    assert "CARPARK_REDIS_URL_FILE" not in plugins.environ


class Siren(BaseModel, frozen=True):
    """A plugin's settings: pydantic's own secret, a plain text, and a field whose name ends as a file's does."""

    key: SecretStr = SecretStr("")
    colour: str = "red"
    tone: SecretStr = SecretStr("")
    tone_file: str = ""


def test_a_plugins_secret_has_a_file_without_further_ado(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("s3cret\n")
    environ = {f"SIREN_{name}_FILE": str(file) for name in ("KEY", "COLOUR", "TONE")}
    siren = read(Siren, environ, "SIREN_")
    assert siren.key.get_secret_value() == "s3cret"
    assert (siren.colour, siren.tone.get_secret_value(), siren.tone_file) == ("red", "", str(file))
    assert "s3cret" not in str(shown(siren, "SIREN_"))


def test_settings_alone_read_files_too(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("redis://:s3cret@there:6379/3\n")
    assert load_settings({"CARPARK_REDIS_URL_FILE": str(file)}).redis_url == "redis://:s3cret@there:6379/3"


NOWHERE = {f"CARPARK_{name}_FILE": "/none" for name in ("BROKER_URL", "REDIS_URL")}
SAID = [f"carpark: {name}='/none': wanted a file that can be read (no such file or directory)" for name in NOWHERE]


@pytest.mark.parametrize("command", ["writer", "queues", "worker"])
def test_a_command_ends_with_a_line_for_each_and_status_2(run_here: RunHere, command: str) -> None:
    ended = run_here([command], NOWHERE)
    assert (ended.returncode, ended.stdout, ended.stderr.splitlines()) == (2, "", SAID)


@pytest.mark.slow
def test_dramatiq_ends_with_a_line_for_each_and_status_2(processes: Processes) -> None:
    ended = processes.start(["dramatiq", "carpark.actors"], NOWHERE)
    assert ended.wait() == 2
    lines = dict.fromkeys(ended.output.splitlines())  # each of its processes says it
    assert [line for line in lines if line.startswith("carpark: ")] == SAID


def test_the_doctor_knows_files_and_tries_no_server_whose_file_is_none(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret")
    given = read_given({"CARPARK_REDIS_URL_FILE": "/none", "CARPARK_WRITER_TOKEN_FILE": str(file)}, {}, Plugins())
    assert given.unusable == {"redis_url"}
    assert given.settings.writer_token == "s3cret"
    assert [each.found for each in given.findings] == ["CARPARK_REDIS_URL_FILE='/none'"]
    given = read_given({"CARPARK_WRITER_TOKEN_FILE": str(file), "CARPARK_RATE_FILE": "x"}, {}, Plugins())
    assert [each.found for each in given.findings] == ["CARPARK_RATE_FILE is not a setting"]
