"""`make train`"""

from aurea.lab.train import main

if __name__ == "__main__":
    main()
