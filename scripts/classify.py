"""`make classify`"""

import sys

from aurea.client.command import main

if __name__ == "__main__":
    sys.exit(main())
