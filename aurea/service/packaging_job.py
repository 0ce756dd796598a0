"""The process that packages one archive; `aurea.service.packaging` starts it."""

import os
import sys
from pathlib import Path
from tempfile import gettempdir

from aurea.archive.build import PackagingError, package
from aurea.service.disk import trouble
from aurea.service.packaging import PackagingOrder, PackagingResult


def main() -> None:
    """Package what the first argument orders into the folder that the second one names."""
    order = PackagingOrder.model_validate_json(sys.argv[1])
    store = Path(sys.argv[2])
    # Whatever a library prints must not get between the lines of the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        report = package(order.model, **order.arguments(), store=store).report
        result = PackagingResult(report=report)
    except PackagingError as error:
        result = PackagingResult(error=str(error))
    except OSError as error:
        if (sentence := trouble(error, (store, Path(gettempdir())))) is None:
            raise
        result = PackagingResult(error=sentence)
    answer.write(result.model_dump_json())
    answer.close()


if __name__ == "__main__":
    main()
