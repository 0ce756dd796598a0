"""`python -m scripts.deviations`"""

from aurea.lab.deviations import main

if __name__ == "__main__":
    main()
