"""`make speech`"""

from aurea.lab.speech.command import main

if __name__ == "__main__":
    main()
