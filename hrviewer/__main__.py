"""``python -m hrviewer`` is ``hrviewer``."""

from hrviewer.cli import main

if __name__ == "__main__":
    main()
