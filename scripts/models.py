"""`make models`"""

from aurea.versions.command import main

if __name__ == "__main__":
    main()
