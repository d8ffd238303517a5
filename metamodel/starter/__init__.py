"""The starter history: a prior for those who have no runs of their own yet."""
