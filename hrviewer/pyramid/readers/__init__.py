"""One module for each family of formats; each says what it supports and opens it."""
