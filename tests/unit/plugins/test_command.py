"""`carpark plugins`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from carpark import __version__
from carpark.plugins.command import plugins
from carpark.settings.options import run_command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_command(plugins, arguments)
    output = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, output.out, output.err


def test_the_table_says_what_there_is_and_what_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "--sinks", "csv,sqlite", "--plates", "germany")
    assert (status, err) == (0, "")
    head, *lines = out.splitlines()
    assert head.split() == ["name", "kind", "in", "use", "version", "from", "what", "it", "does"]
    used = [line.split()[0] for line in lines if " yes " in line]
    assert used == ["csv", "sqlite", "germany"]
    [line] = [line for line in lines if line.startswith("sqlite ")]
    assert line.split()[:6] == ["sqlite", "sink", "yes", __version__, "built", "in"]


def test_json_says_the_same_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--json", "--sinks", "csv")
    rows = json.loads(out)
    assert status == 0
    assert rows[0] == {
        "name": "http-csv",
        "kind": "sink",
        "plugin": "carpark.plugins.sinks.http",
        "version": __version__,
        "source": "built in",
        "distribution": "carpark",
        "in_use": False,
        "help": "posts to the writer (CARPARK_WRITER_URL), which appends to its CSV file",
    }
    assert [row["name"] for row in rows if row["in_use"]] == ["csv", "alphanumeric"]
    assert {row["kind"] for row in rows} == {"sink", "plates"}


def test_environment_and_modules_count(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "listed_plates.py").write_text(
        "from carpark.plugins import PlatesType, hookimpl\n\n"
        "@hookimpl\ndef carpark_register_plates():\n"
        "    return [PlatesType('listed', lambda context, chance: None, 'one [b]of[/b] mine')]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CARPARK_PLUGINS", "listed_plates")
    monkeypatch.setenv("CARPARK_PLATES", "listed")
    status, out, _ = run(capsys)
    [line] = [line for line in out.splitlines() if line.startswith("listed ")]
    assert status == 0
    assert line.split()[:3] == ["listed", "plates", "yes"]
    assert "CARPARK_PLUGINS" in line
    assert "one [b]of[/b] mine" in line


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--sinks", "sqllite"], "carpark: CARPARK_SINKS='sqllite': there is no such plugin; did you mean 'sqlite'?"),
        (["--plates", "u-k"], "carpark: CARPARK_PLATES='u-k': there is no such plugin;"),
        (["--plugins", "not_there"], "carpark: plugin 'not_there': named in CARPARK_PLUGINS: there is no such module"),
    ],
)
def test_a_wrong_name_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert err.startswith(complaint)
    assert err.count("\n") == 1


def test_the_help_ends_in_examples(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert out.rstrip().endswith("CARPARK_PLUGINS=my_module carpark plugins")
