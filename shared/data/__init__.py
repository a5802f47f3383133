"""Input files of every form -> rows -> training pairs."""
