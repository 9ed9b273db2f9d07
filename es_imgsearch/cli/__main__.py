"""`python -m es_imgsearch.cli`."""

from es_imgsearch.cli import main

# Reading workers import this module again under another name.
if __name__ == "__main__":
    main()
