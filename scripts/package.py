"""`make mar`"""

from aurea.archive.build import main

if __name__ == "__main__":
    main()
