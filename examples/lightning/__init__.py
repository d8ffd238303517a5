"""Lightning and metahp: an example that runs offline in a minute, or on larger images with one flag."""
