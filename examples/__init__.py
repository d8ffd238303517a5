"""Scripts to read and to run; not part of the package."""
