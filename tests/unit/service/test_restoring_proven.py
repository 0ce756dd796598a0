"""A declared version answers once it scores its reference clips as its packager measured."""

from pathlib import Path

import pytest

from aurea.service.errors import ServiceFailed
from aurea.service.restoring import Restoring
from tests.unit.versions.service import Service


def restoring(service: Service) -> Restoring:
    return Restoring(
        "small",
        service.registry,
        service.state,
        service.torchserve,
        workers=lambda _: 1,
        model_log=service.folder / "model.log",
        ready_timeout_s=5,
        check_alive=lambda: None,
        proven=True,
    )


def test_a_default_that_scores_as_measured_answers(tmp_path: Path) -> None:
    service = Service(tmp_path)
    assert restoring(service).load_default() == "1.0"


def test_a_default_that_scores_otherwise_ends_the_start_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = Service(tmp_path)
    service.torchserve.scores["1.0"] = 60.0
    with pytest.raises(ServiceFailed):
        restoring(service).load_default()
    assert "does not score the reference clips" in capsys.readouterr().out


def test_another_that_scores_otherwise_is_left_out(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.registered("2.0")
    service.torchserve.scores["2.0"] = 12.0
    versions = restoring(service)
    versions.load_default()
    versions.load_others()
    assert list(service.torchserve.workers) == ["1.0"]
    assert "does not score" in service.state.versions["2.0"].failed
