"""Takes out of the image what the service never reads, and compiles what is left.

Compiled files carry no time, so that two builds of one commit have the same content.
"""

import compileall
import py_compile
import re
import shutil
import sys
from pathlib import Path

# Headers, test suites, tools to build with, engines of processors that the image has no drivers
# for. Not numpy's tests, which numpy.testing imports.
UNUSED = (
    "torch/test",
    "torch/include",
    "torch/share",
    "torch/bin/protoc*",
    "torch/bin/test_*",
    "torch/bin/*Test",
    "torch/bin/*.pt*",
    "torch/bin/upgrader_models",
    "torch/lib/*.a",
    "torch/**/*.pyi",
    "openvino/include",
    "openvino/libs/libopenvino_intel_gpu_plugin.so",
    "openvino/libs/libopenvino_intel_npu_plugin.so",
    "openvino/cmake",
    "scipy/**/tests",
    "sympy/**/tests",
    "networkx/**/tests",
    "pip",
    "pip-*.dist-info",
    "hatchling*",
    "setuptools/tests",
)

# What no worker, proxy or supervisor imports: it stays, and is compiled if somebody does.
NOT_COMPILED = re.compile(r"/(sympy|networkx|setuptools|torch/_inductor|torch/_dynamo)/")


def main(root: Path) -> None:
    """Trim the environment and the checkout in `root`."""
    (site,) = (root / ".venv" / "lib").glob("python3*/site-packages")
    for pattern in UNUSED:
        for path in sorted(site.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    for path in sorted(root.rglob("__pycache__")):
        shutil.rmtree(path)
    for name in (".cache", ".venv/torch.txt"):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    compileall.compile_dir(
        root,
        quiet=2,
        workers=1,
        rx=NOT_COMPILED,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
