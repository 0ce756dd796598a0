"""An image that is built here, and containers of it: Debian's buildah, podman and crun, as root."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import httpx

from aurea.paths import ROOT
from tests.e2e.services import free_port

BASE: Final = "localhost/aurea-base:bookworm"
TOOLS: Final = ("buildah", "podman", "crun", "mmdebstrap", "unshare")
NO_DOCUMENTS: Final = tuple(
    f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale", "info")
)
# What the base needs beside the smallest Debian.
PACKAGES: Final = "python3,python3-venv,ca-certificates,libexpat1"


def missing() -> str:
    """Why no image can be built and run here; empty where it can."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    return "" if os.geteuid() == 0 else "buildah's chroot and private mounts need root"


def run(*command: str | Path, timeout_s: float = 600, **variables: str) -> str:
    done = subprocess.run(
        [str(each) for each in command],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()


def ensure_base(folder: Path) -> None:
    """Have a slim Debian with Python, of which the image is built: none can be pulled here."""
    if BASE in run("buildah", "images", "--format", "{{.Name}}:{{.Tag}}").splitlines():
        return
    archive = folder / "base.tar"
    run(
        "mmdebstrap",
        "--variant=minbase",
        *NO_DOCUMENTS,
        f"--include={PACKAGES}",
        "bookworm",
        archive,
    )
    container = run("buildah", "from", "scratch")
    run("buildah", "add", "-q", container, archive, "/")
    run("buildah", "commit", "-q", "--format", "docker", container, BASE)
    run("buildah", "rm", container)


def built(tag: str) -> str:
    """The image of this checkout under `tag`."""
    run("sh", "deploy/image/build.sh", timeout_s=3600, ENGINE="buildah", BASE=BASE, TAG=tag)
    return f"localhost/{tag}"


class Container:
    """The service in a container: uid 1000, a read-only root, no capability, the host's network."""

    def __init__(self, image: str, name: str, *options: str, model: Path | None = None) -> None:
        """`options` are the service's own; a `model` folder is mounted and packaged inside."""
        self.name = name
        port, metrics_port = free_port(), free_port()
        mounted = () if model is None else ("--volume", f"{model}:/model:ro")
        chosen = "embedded" if model is None else "/model"
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        self.metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        # The mounts of the host, cgroup2 among them, are no business of this test's.
        own_mounts = 'mount --make-rprivate / && mount -t cgroup2 none /sys/fs/cgroup; exec "$@"'
        self.process = subprocess.Popen(
            [
                *("unshare", "-m", "--", "sh", "-c", own_mounts, "sh", "podman", "run", "--rm"),
                *("--name", name, "--runtime", "crun", "--cgroups", "disabled"),
                *("--network", "host", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
                *("--read-only", "--read-only-tmpfs=false", "--no-healthcheck"),
                *("--tmpfs", "/run/aurea:rw,exec,nosuid,size=1g,mode=1777"),
                *("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096"),
                *("--env", f"AUREA_METRICS_PORT={metrics_port}", *mounted, image),
                *("--model", chosen, "--port", str(port), "--workers", "1", *options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def await_ready(self, timeout_s: float = 300) -> float:
        """Wait for /readyz; returns after how many seconds."""
        started = time.monotonic()
        while True:
            try:
                if self.client.get("/readyz").status_code == 200:
                    return time.monotonic() - started
            except httpx.TransportError:
                pass
            ended = self.process.poll() is not None
            assert not ended, self.process.stdout and self.process.stdout.read()[-3000:]
            assert time.monotonic() - started < timeout_s
            time.sleep(0.2)

    def inside(self, *arguments: str) -> str:
        """What Python prints in the running container."""
        return run("podman", "exec", self.name, "python", *arguments)

    def close(self) -> None:
        """End it, by force where it does not end."""
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
