"""`make evaluate`"""

import sys

from aurea.lab.evaluation.command import main

if __name__ == "__main__":
    sys.exit(main())
