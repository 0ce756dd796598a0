"""The process that packages one archive; `aurea.service.packaging` starts it."""

import os
import sys
from pathlib import Path

from aurea.archive.build import PackagingError, package
from aurea.service.packaging import PackagingOrder, PackagingResult


def main() -> None:
    """Package what the first argument orders into the folder that the second one names."""
    order = PackagingOrder.model_validate_json(sys.argv[1])
    # Whatever a library prints must not get between the lines of the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        report = package(order.model, **order.arguments(), store=Path(sys.argv[2])).report
        result = PackagingResult(report=report)
    except PackagingError as error:
        result = PackagingResult(error=str(error))
    answer.write(result.model_dump_json())
    answer.close()


if __name__ == "__main__":
    main()
