"""`make mar`"""

from aurea.service.packaging import main

if __name__ == "__main__":
    main()
