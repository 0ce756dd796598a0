"""A step that was broken off between its first change and its last: what is left, put in order.

A step notes what it is about to change before it does, and forgets the note once state and
server agree. Whoever finds a note makes the server what the state says: the step itself where it
fails or is interrupted, the next command where it was killed. A start begins from the state anyway.
"""

from aurea.torchserve.client import TorchServe
from aurea.versions.registry import Registry


def settle(torchserve: TorchServe, registry: Registry) -> None:
    """Make the server agree with the state where a step has left a note; else do nothing.

    Call it under the registry's lock. Raises `ManagementError` where TorchServe does not do it:
    then the note stays.
    """
    step = registry.begun()
    if step is None:
        return
    state = registry.load()
    registered = torchserve.versions()
    default = torchserve.default().version
    if state.default in registered and default != state.default:
        torchserve.set_default(state.default)
    version, record = registered.get(step.version), state.versions.get(step.version)
    if version is not None and (record is None or record.archive != version.archive):
        if step.version != torchserve.default().version:
            torchserve.unregister(step.version)
    elif version is not None and record is not None and step.workers_before is not None:
        is_saved = record.workers == step.workers_after
        wanted = step.workers_after if is_saved else step.workers_before
        if wanted is not None and version.wanted != wanted:
            torchserve.ask_workers(step.version, wanted)
    registry.route(state)
    registry.delete_leftovers(state)
    registry.end()
