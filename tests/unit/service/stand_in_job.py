"""In place of the packaging process: does what the order's `engine` says."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from aurea.service.packaging import PackagingOrder, PackagingResult

order, store = PackagingOrder.model_validate_json(sys.argv[1]), Path(sys.argv[2])
match order.engine:
    case "builds":
        (store / f"{order.name}.mar").write_bytes(b"an archive")
        print(PackagingResult(report="a table").model_dump_json())
    case "refuses":
        print(PackagingResult(error="no such engine").model_dump_json())
    case "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    case "hangs":
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as helper:
            (store.parent / "pids").write_text(f"{os.getpid()} {helper.pid} ")
            time.sleep(60)
