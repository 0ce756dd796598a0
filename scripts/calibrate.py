"""`make calibrate`"""

import sys

from aurea.lab.calibration.command import main

if __name__ == "__main__":
    sys.exit(main())
