"""OpenVINO without its telemetry. Everybody takes it from here.

By itself it reports each import and conversion to its makers, and keeps a number for this machine
in the home folder, unless somebody has declined beforehand.
"""

import sys

# What is None here cannot be imported, and OpenVINO then goes on with a stub that sends nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
import openvino.opset15 as ops  # noqa: E402
import openvino.properties as properties  # noqa: E402
import openvino.properties.hint as hints  # noqa: E402

__all__ = ["hints", "openvino", "ops", "properties"]
