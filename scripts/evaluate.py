"""`make evaluate`"""

import sys

from aurea.lab.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
