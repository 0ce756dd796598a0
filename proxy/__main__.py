"""`python -m proxy` serves the public contract."""

from proxy.server import serve
from proxy.settings import Settings

if __name__ == "__main__":
    serve(Settings())
