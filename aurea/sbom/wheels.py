"""The wheels of an environment -> components of a bill of materials."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import License
from packageurl import PackageURL
from packaging.requirements import Requirement

_LICENCE_CLASSIFIER: Final = "License :: OSI Approved :: "
_LONGEST_LICENCE_CHARS: Final = 200
_HASH_OF: Final = Property(
    name="aurea:hash-of", value="RECORD, which has the SHA-256 of each installed file"
)


def plain_name(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, Distribution]:
    """Every distribution of this environment, by its plain name; the first on the path counts."""
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        found.setdefault(plain_name(distribution.metadata["Name"]), distribution)
    return found


def needed(root: str, found: Mapping[str, Distribution]) -> set[str]:
    """The plain names of `root` and of all that it needs here, without its extras."""
    known: set[tuple[str, str]] = set()
    waiting = [(root, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in known or name not in found:
            continue
        known.add((name, extra))
        for each in map(Requirement, found[name].requires or ()):
            if each.marker is None or each.marker.evaluate({"extra": extra}):
                waiting += [(plain_name(each.name), more) for more in ("", *each.extras)]
    return {name for name, _ in known}


def wheel_components(found: Mapping[str, Distribution], required: Iterable[str]) -> list[Component]:
    """A component a distribution, in order of their names; all but `required` are excluded."""
    service = set(required)
    return [
        _component(distribution, name, name in service)
        for name, distribution in sorted(found.items())
    ]


def _component(distribution: Distribution, name: str, required: bool) -> Component:
    record = distribution.read_text("RECORD")
    digest = hashlib.sha256(record.encode()).hexdigest() if record else None
    purl = PackageURL("pypi", None, name, distribution.version)
    return Component(
        name=distribution.metadata["Name"],
        version=distribution.version,
        type=ComponentType.LIBRARY,
        scope=ComponentScope.REQUIRED if required else ComponentScope.EXCLUDED,
        bom_ref=str(purl),
        purl=purl,
        licenses=_licences(distribution),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else [],
        properties=[_HASH_OF] if digest else [],
        external_references=[
            ExternalReference(
                type=ExternalReferenceType.DISTRIBUTION,
                url=XsUri(f"https://pypi.org/project/{name}/{distribution.version}/"),
            )
        ],
    )


def _licences(distribution: Distribution) -> list[License]:
    """An SPDX expression where the wheel has one, else its classifiers, else its first line."""
    told = distribution.metadata
    if expression := told["License-Expression"]:
        return [LicenseFactory().make_from_string(expression)]
    names = [
        each.removeprefix(_LICENCE_CLASSIFIER)
        for each in told.get_all("Classifier") or ()
        if each.startswith(_LICENCE_CLASSIFIER)
    ]
    first_line = (told["License"] or "").strip().split("\n")[0][:_LONGEST_LICENCE_CHARS]
    names = names or [first_line] * bool(first_line)
    return [LicenseFactory().make_with_name(each) for each in dict.fromkeys(names)]
