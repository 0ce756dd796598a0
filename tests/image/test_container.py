"""The image, built twice and run: what it holds, what it may do, how it answers and leaves."""

import hashlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from aurea.models.choice import EMBEDDED_ECAPA
from tests.clips import encode, voice
from tests.image.container import Container, built, ensure_base, missing, run

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

MAX_BYTES = 1_500_000_000


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    ensure_base(tmp_path_factory.mktemp("base"))
    return built("aureavoice-test:one")


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    container = Container(image, "aureavoice-test")
    container.await_ready()
    yield container
    container.close()


def contents(image: str) -> dict[str, str]:
    """The digest of each file of an image, by its path."""
    folder = Path(run("podman", "image", "mount", image))
    try:
        return {
            str(path.relative_to(folder)): str(path.readlink())
            if path.is_symlink()
            else hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_symlink() or path.is_file()
        }
    finally:
        run("podman", "image", "unmount", image)


def test_it_is_small_enough_and_its_parts_are_told(image: str) -> None:
    size = int(run("podman", "image", "inspect", "--format", "{{.Size}}", image))
    assert size <= MAX_BYTES, f"{size / 1e9:.2f} GB"
    labels = run("podman", "image", "inspect", "--format", "{{.Labels}}", image)
    assert "org.opencontainers.image.revision" in labels


def test_two_builds_have_the_same_files(image: str) -> None:
    run("buildah", "rmi", "--prune", "--force")
    first, second = contents(image), contents(built("aureavoice-test:two"))
    assert first.keys() == second.keys()
    assert [path for path in first if first[path] != second[path]] == []


def test_it_runs_as_nobody_in_particular_and_writes_to_two_places_alone(
    container: Container,
) -> None:
    said = container.inside(
        "-c",
        "import os\n"
        "print(os.getuid(), open('/proc/self/status').read().split('CapEff:')[1].split()[0])\n"
        "for folder in ('/', '/tmp', '/opt/aurea', '/run/aurea', '/var/lib/aurea/model_store'):\n"
        "    print(folder, os.access(folder, os.W_OK))",
    ).splitlines()
    assert said[0] == "1000 0000000000000000"
    writable = {line.split()[0] for line in said[1:] if line.endswith("True")}
    assert writable == {"/run/aurea", "/var/lib/aurea/model_store"}


def test_it_answers_as_the_contract_says(container: Container) -> None:
    clip = encode(voice(2.0, seed=1), 16_000, "flac")
    answer = container.client.post("/classify-us-accent", files={"file": clip})
    assert answer.status_code == 200, answer.text
    assert 0 <= answer.json()["us_confidence"] <= 100
    refused = container.client.post("/classify-us-accent", files={"file": b"no audio"})
    assert refused.headers["content-type"] == "application/problem+json"
    assert container.client.get("/healthz").status_code == 200
    assert "aurea_proxy_requests_total" in httpx.get(container.metrics_url, trust_env=False).text
    page = httpx.get(f"{container.metrics_url}/torchserve", trust_env=False)
    assert "accent_worker_starts_total" in page.text


def test_a_mounted_model_is_packaged_inside_and_its_versions_are_handled_there(
    image: str, tmp_path: Path
) -> None:
    """Whatever packaging needs of the environment was left in it."""
    # For uid 1000, whatever this checkout's folder allows.
    model = Path(shutil.copytree(EMBEDDED_ECAPA, tmp_path / "model"))
    for folder in (model, *model.parents[:3]):
        folder.chmod(0o755)
    container = Container(image, "aureavoice-packaging", "--name", "mounted", model=model)
    try:
        container.await_ready(900)
        clip = encode(voice(2.0, seed=3), 16_000, "webm-opus")
        answer = container.client.post("/classify-us-accent", files={"file": clip})
        assert (answer.status_code, answer.headers["X-Model"]) == (200, "mounted/1.0")
        models = ("-m", "scripts.models", "--run-dir", "/run/aurea/run")
        assert "1.0" in container.inside(*models, "list")
        container.inside(*models, "export", "/run/aurea/versions.yaml")
        declared = yaml.safe_load(
            container.inside("-c", "print(open('/run/aurea/versions.yaml').read())")
        )
        assert (declared["model"], declared["default"]) == ("mounted", "1.0")
        container.inside(*models, "scale", "1")
    finally:
        container.close()


def test_sigterm_drains_what_was_accepted(image: str) -> None:
    container = Container(image, "aureavoice-drained")
    try:
        container.await_ready()
        clip = encode(voice(10.0, seed=2), 16_000, "flac")
        answers: list[int] = []

        def classify() -> None:
            with httpx.Client(base_url=container.client.base_url, timeout=60) as client:
                answer = client.post("/classify-us-accent", files={"file": clip})
                answers.append(answer.status_code)

        clients = [threading.Thread(target=classify) for _ in range(3)]
        for each in clients:
            each.start()
        while "in_flight 3.0" not in httpx.get(container.metrics_url, trust_env=False).text:
            assert not answers
        container.process.terminate()
        for each in clients:
            each.join()
        assert answers == [200] * 3
        assert container.process.wait(30) == 0
    finally:
        container.close()
