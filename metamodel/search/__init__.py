"""From a posterior to the next configuration."""
