"""What the service says in the terminal."""


def say(text: str) -> None:
    """Print one step or note of the start or the end."""
    print(f"==> {text}", flush=True)
