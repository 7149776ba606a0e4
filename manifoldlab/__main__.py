"""python -m manifoldlab"""

from manifoldlab.app import main

if __name__ == "__main__":
    main()
