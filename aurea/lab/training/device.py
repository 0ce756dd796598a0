"""What training computes on."""

import platform

import torch


def device_called(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one.

    Raises `SystemExit` for one that torch does not have here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SystemExit(f"--device {name}: cannot be used here: {reason}") from None
    return device


def device_text(device: torch.device) -> str:
    """What a card says of a device."""
    if device.type == "cuda":
        return f"a GPU ({torch.cuda.get_device_name(device)})"
    return f"{torch.get_num_threads()} thread(s) of an {platform.machine()} CPU"
