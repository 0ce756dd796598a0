"""`make train`"""

from aurea.lab.training.command import main

if __name__ == "__main__":
    main()
