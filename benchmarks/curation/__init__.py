"""The curation engines against what they are measured by, on vectors whose duplicates were planted."""
