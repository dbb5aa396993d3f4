"""`make demo`, screenshots, and what drives a window for them."""
