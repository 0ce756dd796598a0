import os
import re
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from aurea.archive.build import PackagingError
from aurea.command_line import read
from aurea.paths import MODEL_STORE, ROOT
from aurea.service import packaging
from aurea.service.packaging import PackageSettings, PackagingOrder, archive_to_serve, build, shown
from aurea.versions.registry import Registry


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "_JOB_MODULE", "tests.unit.service.stand_in_job")


def order(
    model: Path, engine: str = "", *, name: str = "small", version: str = "1.0"
) -> PackagingOrder:
    return PackagingOrder(model=model, name=name, version=version, engine=engine)


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
def test_an_archive_comes_out_of_a_process_of_its_own_with_its_report(
    small_folder: Path, tmp_path: Path
) -> None:
    archive = build(order(small_folder, "builds"), tmp_path / "store")
    assert archive.path == tmp_path / "store" / "small.mar"
    assert archive.path.read_bytes() == b"an archive"
    assert (archive.name, archive.version, archive.rebuilt) == ("small", "1.0", True)
    assert archive.report == "a table"
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["small.mar"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "message"),
    [("refuses", "no such engine"), ("dies", f"by itself (status -{signal.SIGSEGV.value})")],
)
@pytest.mark.usefixtures("stand_in")
def test_a_process_that_packages_nothing_says_why_and_leaves_nothing(
    small_folder: Path, tmp_path: Path, what: str, message: str
) -> None:
    with pytest.raises(PackagingError, match=re.escape(message)):
        build(order(small_folder, what), tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


class Signalled(Exception):
    pass


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in", "ordinary_signal_stack")
def test_a_signal_ends_the_packaging_at_once_with_all_that_it_has_started(
    small_folder: Path, tmp_path: Path
) -> None:
    pid_file = tmp_path / "store" / "pids"

    def send() -> None:
        while not (pid_file.exists() and pid_file.read_text().endswith(" ")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    def stop(*_: object) -> None:
        raise Signalled

    before = signal.signal(signal.SIGUSR1, stop)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(Signalled):
            build(order(small_folder, "hangs"), tmp_path / "store")
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    pids = [int(pid) for pid in pid_file.read_text().split()]
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["pids"]


@pytest.mark.parametrize("change", [{"version": "1.0+cpu"}, {"name": "a b"}, {"name": "../up"}])
def test_a_name_or_version_that_cannot_be_served_is_not_packaged(
    small_folder: Path, tmp_path: Path, change: dict[str, str]
) -> None:
    with pytest.raises(PackagingError, match="letters, digits"):
        build(order(small_folder, **change), tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("option", "value"), [("--version", "1.0+cpu"), ("--name", "a b")])
def test_make_mar_refuses_them_at_once_with_what_is_allowed(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read(PackageSettings, ["embedded", option, value])
    assert ended.value.code == 2
    assert "letters, digits, '.', '_' and '-' are taken" in capsys.readouterr().err


def test_make_mar_is_told_the_model_and_the_rest_by_options() -> None:
    settings = read(
        PackageSettings,
        ["embedded", "--name", "", "--version", "2.0", "--engine", "torch", "--precision", ""],
    )
    assert (settings.model, settings.name, settings.version) == ("embedded", "", "2.0")
    assert (settings.engine, settings.precision) == ("torch", "")
    assert settings.model_store == MODEL_STORE
    assert not settings.portable
    assert read(PackageSettings, ["embedded", "--portable"]).portable


def test_the_packaging_process_is_told_whether_an_archive_is_to_be_portable(tmp_path: Path) -> None:
    wanted = PackagingOrder(model=tmp_path, name="small", version="1.0", portable=True)
    read_back = PackagingOrder.model_validate_json(wanted.model_dump_json())
    assert read_back.arguments()["portable"] is True


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
def test_make_mar_says_what_it_built_and_that_it_is_up_to_date_the_next_time(
    small_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packaging, "is_built_from", lambda archive, *_, **__: archive.exists())
    arguments = ["package", str(small_folder), "--name", "small", "--engine", "builds"]
    monkeypatch.setattr("sys.argv", [*arguments, "--model-store", str(tmp_path)])
    packaging.main()
    assert capsys.readouterr().out == f"a table\n{tmp_path / 'small.mar'} (small 1.0): built\n"
    packaging.main()
    assert capsys.readouterr().out == f"{tmp_path / 'small.mar'} (small 1.0): up to date\n"


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
def test_make_mar_ends_with_why_there_is_no_archive(
    small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["package", str(small_folder), "--engine", "refuses"]
    monkeypatch.setattr("sys.argv", [*arguments, "--model-store", str(tmp_path)])
    with pytest.raises(SystemExit, match="no such engine"):
        packaging.main()


def test_a_folder_that_is_no_model_is_refused_without_another_process(tmp_path: Path) -> None:
    with pytest.raises(
        PackagingError,
        match=r"cannot be packaged: a model is .*hyperparams\.yaml.* or .*probe\.json",
    ):
        build(order(tmp_path), tmp_path / "store")


@pytest.mark.slow
def test_what_the_packaging_process_finds_wrong_comes_back_as_a_message(
    small_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(PackagingError, match="engine"):
        build(order(small_folder, "abacus"), tmp_path / "store")


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
def test_what_is_packaged_is_up_to_date_for_the_next_start_and_registered_as_it_is(
    small_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packaging, "is_built_from", lambda archive, *_, **__: archive.exists())
    wanted = order(small_folder, "builds")
    registry = Registry(tmp_path / "state", "small")
    registry.prepare()
    built = archive_to_serve(wanted, registry, tmp_path / "store")
    assert built == tmp_path / "store" / "small.mar"
    said = capfd.readouterr().out
    assert f"==> Archive {tmp_path / 'store' / 'small.mar'}" in said
    assert "a table" in said
    # Up to date in the store, whether or not it is registered.
    again = build(wanted, tmp_path / "store")
    assert (again.path, again.rebuilt, again.report) == (built, False, "")
    state, _ = registry.adopt(built, "1.0", 0)
    registry.save(state)
    registered = registry.store / "small-1.0.mar"
    assert archive_to_serve(wanted, registry, tmp_path / "other") == registered
    state.versions["2.0"] = state.versions["1.0"]
    state.make_default("2.0")
    state.forget("1.0")
    registry.save(state)
    assert archive_to_serve(wanted, registry, tmp_path / "other") is None
    assert not (tmp_path / "other").exists()
    assert capfd.readouterr().out == ""


def test_paths_of_the_project_are_shown_from_its_folder_on(tmp_path: Path) -> None:
    assert shown(ROOT / "model_store" / "a.mar") == "model_store/a.mar"
    assert shown(tmp_path) == str(tmp_path)
