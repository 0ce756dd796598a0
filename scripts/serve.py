"""`make serve`"""

from aurea.service.serve import main

if __name__ == "__main__":
    main()
