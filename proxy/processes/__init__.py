"""Several proxies on one port: a parent that keeps what they share, and the processes that serve.

The parent opens the port, starts the processes and starts again what dies, writes the log, and
holds the one `Turns`, `HeldBytes`, `Pulse`, `Suspects` and allowances that all of them ask, each
over a socket of its own. Clips go from the processes to TorchServe, never through the parent.
A job is kept by the process that took it; the others ask that one over a socket of its own.
"""
