"""Every stage of the demo held against what is true of its scenes."""
