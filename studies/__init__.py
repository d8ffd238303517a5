"""Not in the wheel: starter training, writers of pages and tables, the demo."""
