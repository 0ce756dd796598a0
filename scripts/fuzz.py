"""`make fuzz`"""

from fuzz.command import main

if __name__ == "__main__":
    main()
