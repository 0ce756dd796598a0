"""`make speech`"""

from aurea.lab.speech import main

if __name__ == "__main__":
    main()
