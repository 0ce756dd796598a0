"""How a service starts that is to serve what `versions.yaml` declares, and nothing else."""

import tempfile
from pathlib import Path

from aurea.archive.errors import ArchiveRefused
from aurea.archive.vetting import archive_labels, vet
from aurea.service.errors import ServiceFailed
from aurea.versions.declared import Declaration, checked_copy, share_of
from aurea.versions.outcome import CommandRefused
from aurea.versions.registry import Registry, RegistryUnwritable


def default_archive(declaration: Declaration, folder: Path, registry: Registry) -> Path:
    """The archive of the declared default, checked and vetted; paths count from `folder`.

    What an earlier start remembered and is not declared is forgotten, so that no clip is scored
    by it. Raises `ServiceFailed` where the default cannot be had.
    """
    state = registry.load()
    for version, record in list(state.versions.items()):
        declared = declaration.versions.get(version)
        if declared is None or declared.sha256 != record.sha256:
            if state.default == version:
                state.default = ""
            state.forget(version)
    if declaration.default in state.versions:
        state.make_default(declaration.default)
    if share_of(state.canary) != share_of(declaration.canary):
        state.canary = None
    registry.save(state)
    registered = registry.unchanged(declaration.default)
    if registered is not None:
        return registered
    declared = declaration.versions[declaration.default]
    with tempfile.TemporaryDirectory(dir=registry.store.parent) as scratch:
        copy = Path(scratch) / "given.mar"
        try:
            checked_copy(folder / declared.archive, copy, declared.sha256)
            vetted = vet(
                copy,
                Path(scratch) / f"{declaration.default}.mar",
                served_name=declaration.model,
                served_labels=archive_labels(copy),
                trust=declared.trust,
            )
            if vetted.version != declaration.default:
                raise CommandRefused(
                    f"the archive is of version {vetted.version}, declared is "
                    f"{declaration.default}."
                )
            state.may_delete(registry.place(vetted.path, vetted.version).archive)
            registry.save(state)
            return registry.store / state.leftovers[-1]
        except (ArchiveRefused, CommandRefused, RegistryUnwritable) as error:
            raise ServiceFailed(
                f"{declaration.model}/{declaration.default}, the declared default, is not "
                f"served: {error}"
            ) from None
