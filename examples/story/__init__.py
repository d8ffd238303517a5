"""One script that is edited and run thirty times: what a user lives through, as a test and as a transcript."""
