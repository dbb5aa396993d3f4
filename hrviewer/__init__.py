"""hrviewer (being built)."""
