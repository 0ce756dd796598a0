"""`make serve`"""

from aurea.service.command import main

if __name__ == "__main__":
    main()
