"""`python -m scripts.reference_speech`"""

from aurea.lab.reference_speech import main

if __name__ == "__main__":
    main()
