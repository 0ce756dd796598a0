"""Takes out of the image what the service never reads, and compiles what is left.

Compiled files carry no time, so that two builds of one commit have the same content.
"""

import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

from elf import cut_unloaded

# Headers, test suites, tools to build with, engines of processors that the image has no drivers
# for, readers of other formats of graphs, copies for other runtimes. Not numpy's tests, which
# numpy.testing imports.
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
    "openvino/libs/cache.json",  # what the GPU's plugin was tuned to
    "openvino/libs/libopenvino_gguf_frontend.so*",
    "openvino/libs/libopenvino_jax_frontend.so*",
    "openvino/libs/libopenvino_onnx_frontend.so*",
    "openvino/libs/libopenvino_paddle_frontend.so*",
    "openvino/libs/libopenvino_pytorch_frontend.so*",
    "openvino/libs/libopenvino_tensorflow_frontend.so*",
    "openvino/libs/libopenvino_tensorflow_lite_frontend.so*",
    "openvino/cmake",
    "onnxruntime/capi/libonnxruntime.so*",  # the binding for Python has all of it within
    "onnxruntime/transformers",
    "silero_vad/data/*.onnx",  # silero_vad.jit is read
    "silero_vad/data/*.safetensors",
    "scipy/**/tests",
    "sympy/**/tests",
    "networkx/**/tests",
    "pip",
    "pip-*.dist-info",
    "hatchling*",
    "setuptools/tests",
)

# The processes of the service and of packaging: of libraries, what these load is compiled.
ROOTS = (
    "accent_handler",
    "aurea.archive.engines",
    "aurea.service.command",
    "aurea.service.packaging_job",
    "aurea.versions.command",
    "proxy.__main__",
    "ts.model_service_worker",
)
LOADED_FILES = f"""
import importlib, sys
for name in {ROOTS!r}:
    importlib.import_module(name)
for module in list(sys.modules.values()):
    # Not by getattr: some modules load more when they are asked.
    print(getattr(module, "__dict__", {{}}).get("__file__"))
"""


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
    for path in sorted(site.rglob("*.so*")):
        if path.is_file() and not path.is_symlink():
            cut_unloaded(path)
    for path in [*loaded_files(root, site), *own_files(root)]:
        py_compile.compile(
            str(path), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )


def loaded_files(root: Path, site: Path) -> list[Path]:
    """The modules of installed packages that the service's processes import."""
    answer = subprocess.run(
        [sys.executable, "-c", LOADED_FILES], cwd=root, stdout=subprocess.PIPE, check=True
    )
    found = sorted({Path(line) for line in answer.stdout.decode().splitlines()})
    return [path for path in found if path.suffix == ".py" and path.is_relative_to(site)]


def own_files(root: Path) -> list[Path]:
    """The project's own modules."""
    found = sorted(root.rglob("*.py"))
    return [path for path in found if not path.is_relative_to(root / ".venv")]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
