"""What is chosen, shown and going on, without any front end: state, maps and services."""
