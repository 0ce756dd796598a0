"""`make lock`"""

from aurea.environment.lock import main

if __name__ == "__main__":
    main()
