"""`python -m proxy` serves the public contract."""

from proxy.processes.parent import serve_with_processes
from proxy.server import serve
from proxy.settings import Settings


def main() -> None:
    """Serve with as many processes as the settings say."""
    settings = Settings()
    if settings.processes > 1:
        serve_with_processes(settings)
    else:
        serve(settings)


if __name__ == "__main__":
    main()
