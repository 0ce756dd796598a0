import subprocess
import sys
from pathlib import Path

from aurea.torchserve.process import java_command, java_environment, without_own_variables
from tests.unit.torchserve.test_configuration import configured


def test_java_runs_torchserve_of_this_environment_with_the_configured_memory() -> None:
    command = java_command(configured(), Path("/run/config.properties"), Path("/run/logs"))
    assert Path(command[0]).is_file()
    classes = Path(command[command.index("-cp") + 1])
    assert list(classes.parent.glob("*.jar"))
    assert "-Xmx768m" in command
    assert command[command.index("-f") + 1] == "/run/config.properties"
    assert command[command.index("-s") + 1] == "/run/store"
    assert command[command.index("--python") + 1] == sys.executable
    assert "-Dlog.dir=/run/logs" in command
    (logging,) = [each for each in command if each.startswith("-Dlog4j.configurationFile=file://")]
    assert Path(logging.partition("file://")[2]).is_file()


def test_java_takes_its_second_compiler_for_digests_alone() -> None:
    command = java_command(configured(), Path("/run/config.properties"), Path("/run/logs"))
    options = [each for each in command if each.startswith("-XX:")]
    java = subprocess.run(
        [command[0], *options, "-XX:+CompilerDirectivesPrint", "-version"],
        capture_output=True,
        text=True,
        check=True,
    )
    # For each directive, what it says of the first compiler and then of the second.
    _, digests, rest, _ = java.stdout.split("Directive:")
    assert "sun/security/provider/SHA*.*" in digests
    assert "Exclude:false" in digests.partition("c2 directives:")[2]
    assert "matching: *.*" in rest
    assert "Enable:true Exclude:true" in rest.partition("c2 directives:")[2]


def test_a_strangers_shell_changes_neither_torchserve_nor_torchs_threads() -> None:
    shell = {"TS_CONFIG_FILE": "/other", "OMP_NUM_THREADS": "64", "LANG": "C", "PATH": "/bin"}
    environment = java_environment(
        without_own_variables(shell), threads_per_worker=3, cores_folder=Path("/run/cores")
    )
    assert "TS_CONFIG_FILE" not in environment
    assert environment["LANG"] == "C"
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/bin"
    assert environment["AUREA_CORES_FOLDER"] == "/run/cores"
