"""`make calibrate`"""

import sys

from aurea.lab.calibrate import main

if __name__ == "__main__":
    sys.exit(main())
