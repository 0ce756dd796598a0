"""`make setup`"""

from aurea.environment.set_up import main

if __name__ == "__main__":
    main()
