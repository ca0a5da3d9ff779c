from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from falaj.kernel.errors import Invalid
from falaj.kernel.settings import Settings, load_settings

EVERYWHERE = "0.0.0.0"  # noqa: S104  # it is what must be refused


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "falaj.toml").write_text(text, "utf-8")
    return folder


def test_defaults_lie_below_the_folder(tmp_path: Path) -> None:
    found = load_settings({}, tmp_path)
    assert (found.home, found.project) == (tmp_path / ".falaj", tmp_path)
    assert (found.host, found.port, found.approvals, found.principal) == ("127.0.0.1", 0, 1, "")


def test_the_file_of_a_parent_folder_counts_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    write(tmp_path, '[falaj]\nhome = "state"\nproject = "flights"\nport = 8123\n')
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    found = load_settings({}, deep)
    assert (found.home, found.project, found.port) == (tmp_path / "state", tmp_path / "flights", 8123)


def test_the_nearest_file_counts(tmp_path: Path) -> None:
    write(tmp_path, "[falaj]\nport = 1\n")
    inner = write(tmp_path / "inner", "[falaj]\nport = 2\n")
    assert load_settings({}, inner).port == 2


def test_a_call_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    write(tmp_path, "[falaj]\nport = 1\napprovals = 2\nstep_seconds = 7\n")
    environ = {"FALAJ_PORT": "3", "FALAJ_APPROVALS": "4", "OTHER": "x"}
    found = load_settings(environ, tmp_path, port=5, approvals=None)
    assert (found.port, found.approvals, found.step_seconds) == (5, 4, 7)


def test_an_empty_variable_is_no_variable(tmp_path: Path) -> None:
    assert load_settings({"FALAJ_PRINCIPAL": ""}, tmp_path).principal == ""


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_every_setting_can_come_from_the_environment(tmp_path: Path, name: str) -> None:
    values = {
        "host": "localhost",
        "log_level": "debug",
        "audit_shards": "year",
        "home": "h",
        "project": "p",
        "server": "http://h:1",
        "witnesses": "/etc/p",
        "oidc_client_secret_file": "/etc/s",
        "tls": "/etc/t",
    }
    numbers = {
        "port",
        "plane_port",
        "plane_workers",
        "approvals",
        "staging_approvals",
        "step_memory_mb",
        "step_seconds",
        "evaluator_seconds",
        "waiver_days",
        "approval_days",
        "oidc_session_hours",
    }
    given = "4321" if name in numbers else values.get(name, "something")
    found = getattr(load_settings({f"FALAJ_{name.upper()}": given}, tmp_path), name)
    assert found == (tmp_path / given if isinstance(found, Path) else type(found)(given))


def test_what_was_read_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        load_settings({}, tmp_path).port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "text",
    [
        "[falaj]\naprovals = 2",
        "[falaj]\nport = 'eighty'",
        "[falaj]\nport = true",
        "[falaj]\nport = 70000",
        "[falaj]\nhost = 3",
        "[falaj]\nhome = 5",
        "[falaj]\nproject = ['a']",
        "[falaj]\nlog_level = 'loud'",
        "[falaj]\naudit_shards = 'week'",
        "[falaj]\napprovals = 0",
        "[falaj]\nstep_memory_mb = 255",
        "falaj = 3",
        "[falaj",
        "\x00",
    ],
)
def test_a_wrong_file_is_refused_with_advice(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    with pytest.raises(Invalid) as refused:
        load_settings({}, tmp_path)
    assert refused.value.hint


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "falaj.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid) as refused:
        load_settings({}, tmp_path)
    assert refused.value.code == "bad_settings_file"


@pytest.mark.parametrize(
    "environ",
    [{"FALAJ_APROVALS": "2"}, {"FALAJ_": "x"}, {"FALAJ_PORT": "x"}, {"FALAJ_PORT": "-1"}, {"FALAJ_PLANE_WORKERS": "0"}],
)
def test_a_wrong_variable_is_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        load_settings(environ, tmp_path)


def test_the_data_planes_own_variables_disturb_nothing(tmp_path: Path) -> None:
    load_settings({"FALAJ_PLANE_DIR": "/x", "FALAJ_PLANE_BLOBS": "/y", "FALAJ_PLANE_ONLINE": "/z"}, tmp_path)


@pytest.mark.parametrize(
    "host", [EVERYWHERE, "::", "192.168.0.1", "example.com", "", "127.0.0.2", "localhost.example.com", " 127.0.0.1"]
)
def test_only_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(Invalid) as refused:
        Settings(host=host)
    assert refused.value.code == "not_loopback"


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.168.0.1", "example.com"])
def test_with_certificates_any_address_may_be_listened_on(host: str, tmp_path: Path) -> None:
    found = load_settings({"FALAJ_HOST": host, "FALAJ_TLS": "certs"}, tmp_path)
    assert (found.host, found.tls) == (host, str(tmp_path / "certs"))
    with pytest.raises(Invalid):
        Settings(host="", tls="certs")


def test_a_copy_cannot_leave_loopback_either(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        load_settings({"FALAJ_HOST": EVERYWHERE}, tmp_path)
    with pytest.raises(Invalid):
        msgspec.structs.replace(load_settings({}, tmp_path), host=EVERYWHERE)


def test_the_witness_policy_is_found_from_the_project(tmp_path: Path) -> None:
    assert load_settings({}, tmp_path).witnesses == ""
    assert load_settings({"FALAJ_WITNESSES": "w"}, tmp_path).witnesses == str(tmp_path / "w")
    (tmp_path / "falaj.toml").write_text('[falaj]\nwitnesses = "w"\n', "utf-8")
    (tmp_path / "below").mkdir()
    assert load_settings({}, tmp_path / "below").witnesses == str(tmp_path / "w")
