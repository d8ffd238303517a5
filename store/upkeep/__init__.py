"""Care of a history: checked, compacted, merged, exported, corrected."""
