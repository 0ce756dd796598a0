"""Archives that differ from the packaged one in what a test is about, and run folders of them."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from accent.layout import REFERENCE_FILE

from aurea.archive.layout import CONFIG_FILE, MANIFEST_FILE
from aurea.service.packaging import PackagingOrder, build
from aurea.torchserve.addresses import ADDRESSES_FILE, Addresses
from aurea.torchserve.client import TorchServe
from aurea.versions.registry import STATE_FOLDER, Registry
from aurea.versions.state import State
from tests.e2e.services import RunningService

LABELS_FILE = "accent_encoder.txt"
QUICK_PACKAGING = Path(__file__).with_name("quick_packaging")
"""On Python's path, it has a packaging process judge engines by little speech."""


def quick_path() -> str:
    """The value of PYTHONPATH with which archives are packaged quickly."""
    path = os.pathsep.join([str(QUICK_PACKAGING), os.environ.get("PYTHONPATH", "")])
    return path.rstrip(os.pathsep)


def quickly_packaged(order: PackagingOrder, folder: Path) -> Path:
    """Package as the service does, judged by little speech; the archive is in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", quick_path())
        return build(order, folder).path


def altered(archive: Path, target: Path, changes: dict[str, bytes]) -> Path:
    """Copy an archive to `target` with other content in some files."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            copy.writestr(name, changes.get(name, source.read(name)))
    return target


def renumbered(archive: Path, target: Path, version: str, **changes: bytes) -> Path:
    """Copy an archive to `target` as another version of the same model."""
    manifest = json.loads(content(archive, MANIFEST_FILE))
    manifest["model"]["modelVersion"] = version
    return altered(archive, target, {MANIFEST_FILE: json.dumps(manifest).encode(), **changes})


def configured(archive: Path, target: Path, version: str, **settings: Any) -> Path:
    """Copy an archive to `target` as another version with other settings.

    Those of the key `accent` are added to the ones there; others take their place.
    """
    config = yaml.safe_load(content(archive, CONFIG_FILE))
    config["accent"] |= settings.pop("accent", {})
    changes = {CONFIG_FILE: yaml.safe_dump(config | settings).encode()}
    return renumbered(archive, target, version, **changes)


def relabelled(archive: Path, target: Path, version: str, torchserve: TorchServe) -> Path:
    """Copy an archive to `target` as a version in which `us` and another accent change places.

    `torchserve` serves the archive: what it says of the reference clips is, with the two labels
    exchanged, what the new version is going to say.
    """
    reference = json.loads(content(archive, REFERENCE_FILE))
    other = ""
    for clip in reference["clips"]:
        answer = torchserve.predict(content(archive, clip["file"]))
        scores = {each["label"]: 100 * each["score"] for each in answer["accents"]}
        other = other or next(label for label in scores if label != "us")
        clip["us_confidence"] = dict.fromkeys(clip["us_confidence"], scores[other])
        clip["top_accent"] = {"us": other, other: "us"}.get(clip["top_accent"], clip["top_accent"])
    labels = content(archive, LABELS_FILE).decode()
    swapped = labels.replace("'us'", "'\0'").replace(f"'{other}'", "'us'").replace("\0", other)
    assert swapped != labels
    changes = {LABELS_FILE: swapped.encode(), REFERENCE_FILE: json.dumps(reference).encode()}
    return renumbered(archive, target, version, **changes)


def content(archive: Path, name: str) -> bytes:
    """One file of an archive."""
    with zipfile.ZipFile(archive) as opened:
        return opened.read(name)


def registered(archive: Path, run_dir: Path, workers: int = 1) -> tuple[Registry, State]:
    """The registry of a run folder that serves the archive as its one version, 1.0."""
    registry = Registry(run_dir / STATE_FOLDER / "embedded-ecapa", "embedded-ecapa")
    registry.prepare()
    state, _ = registry.adopt(archive, "1.0", workers)
    registry.save(state)
    return registry, state


def registered_alone(archive: Path, run_dir: Path, version: str) -> None:
    """Let a run folder serve the archive as `version`, 1.0 being retired: nothing is packaged."""
    registry, state = registered(archive, run_dir)
    state.versions = {version: registry.place(archive, version)}
    state.default, state.retired = version, ["1.0"]
    registry.save(state)


def addresses_of(service: RunningService) -> Addresses:
    """Where the parts of a running service are found."""
    return Addresses.model_validate_json((service.run_dir / ADDRESSES_FILE).read_bytes())
