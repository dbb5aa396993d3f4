"""Work beside the window: loading, runs, Live, comparison, export."""
