"""The starter history: thousands of small networks, trained by us, for those who have no runs of their own yet."""
