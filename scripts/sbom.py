"""`make sbom`"""

from aurea.sbom.command import main

if __name__ == "__main__":
    main()
