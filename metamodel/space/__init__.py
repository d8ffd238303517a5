"""Search spaces and configurations as numbers."""
