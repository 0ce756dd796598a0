import os
import subprocess
import sys
from pathlib import Path

import pytest

from aurea.command_line import read
from aurea.paths import MODEL_STORE, ROOT
from aurea.service.errors import ServiceFailed
from aurea.service.settings import ServeSettings, SharedSettings, read_shared_settings
from proxy.settings import Settings as ProxySettings


def test_make_serve_is_told_everything_by_options(tmp_path: Path) -> None:
    arguments = [
        *("--model", "embedded", "--name", "", "--version", "2.0"),
        *("--engine", "", "--precision", "fp32", "--host", "0.0.0.0", "--port", "8123"),
        *("--workers", "3", "--management-port", "8181", "--metrics-port", "8182"),
        *("--hub-url", "http://here", "--model-cache", "cache", "--run-dir", "run"),
    ]
    settings = read(ServeSettings, arguments)
    assert (settings.model, settings.name, settings.version) == ("embedded", "", "2.0")
    assert (settings.engine, settings.precision) == ("", "fp32")
    assert (settings.host, settings.port, settings.workers) == ("0.0.0.0", 8123, 3)
    assert (settings.management_port, settings.metrics_port) == (8181, 8182)
    assert (settings.hub_url, settings.model_cache) == ("http://here", Path("cache"))
    # Its processes work in folders of their own.
    assert settings.run_dir == Path("run").absolute()
    assert not settings.stop
    assert read(ServeSettings, ["--stop", "--run-dir", str(tmp_path)]).stop


def test_what_is_not_told_is_as_the_documents_say() -> None:
    settings = read(ServeSettings, [])
    assert (settings.model, settings.version, settings.port) == ("auto", "1.0", 8000)
    assert (settings.run_dir, settings.model_store) == (ROOT / "run", MODEL_STORE)
    assert (settings.management_port, settings.metrics_port) == (8081, 8082)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--version", "1.0+cpu"),
        ("--version", ""),
        ("--version", "../1.0"),
        ("--version", "v" * 33),
        ("--name", "two words"),
        ("--name", "a/b"),
        ("--name", "-first"),
        ("--name", "n" * 129),
    ],
)
def test_a_name_or_version_that_cannot_be_served_is_refused_at_once_with_what_is_allowed(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read(ServeSettings, [f"{option}={value}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{option}: ")
    assert "letters, digits, '.', '_' and '-' are taken" in said


@pytest.mark.parametrize("field", SharedSettings.model_fields)
def test_what_the_proxy_and_torchserve_share_has_one_default(field: str) -> None:
    default = ProxySettings.model_fields[field].default
    assert SharedSettings.model_fields[field].default == default


def test_the_proxy_is_passed_what_the_supervisor_has_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUREA_MAX_UPLOAD_BYTES", "1234567")
    monkeypatch.setenv("AUREA_METRICS_PORT", "")
    shared = read_shared_settings()
    passed = shared.environment()
    for name in [name for name in os.environ if name.startswith("AUREA_")]:
        monkeypatch.delenv(name)
    for name, value in passed.items():
        monkeypatch.setenv(name, value)
    proxy = ProxySettings()
    assert proxy.max_upload_bytes == shared.max_upload_bytes == 1_234_567
    assert proxy.max_held_bytes == shared.max_held_bytes
    assert proxy.metrics_port == shared.metrics_port == 8083


def test_files_are_found_from_the_proxys_own_folder_too(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"AUREA_TLS_CERTIFICATE": "c.pem", "AUREA_TLS_KEY": "k.pem", "AUREA_KEYS_FILE": "keys"}
    for name, file in names.items():
        monkeypatch.setenv(name, file)
    shared = read_shared_settings()
    passed = shared.environment()
    for name, file in names.items():
        assert passed[name] == str(Path(file).absolute())
    assert shared.scheme == "https"


@pytest.mark.parametrize("value", ["0", "-1", "25 MB"])
def test_an_upload_limit_that_is_none_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("AUREA_MAX_UPLOAD_BYTES", value)
    with pytest.raises(ServiceFailed, match=f"AUREA_MAX_UPLOAD_BYTES={value}: "):
        read_shared_settings()


@pytest.mark.slow
def test_the_supervisor_brings_neither_torch_nor_the_graph_compiler_along() -> None:
    code = (
        "import sys, aurea.service.command;"
        "print(sorted({'torch', 'openvino', 'speechbrain', 'numpy', 'av'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout.strip() == "[]"
