"""OpenVINO reports nothing to anybody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONVERTS = """
import torch
import {module}
from accent.openvino_runtime import openvino

openvino.convert_model(torch.nn.Linear(2, 2), example_input=torch.zeros(1, 2))
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "aurea.archive.build",
        *(
            pytest.param(each, marks=pytest.mark.long)
            for each in ("accent.selection", "accent.ecapa.compiled", "bench.limits")
        ),
    ],
)
def test_an_import_and_a_conversion_leave_no_trace(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONVERTS.format(module=module)],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    # OpenVINO's stub, which sends nothing; its telemetry keeps files in the home folder.
    assert done.stdout.splitlines()[-1] == "openvino.tools.ovc.telemetry_stub"
    assert not list(tmp_path.iterdir())
