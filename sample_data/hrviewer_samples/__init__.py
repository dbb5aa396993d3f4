"""Scenes that are rendered where they are looked at; each file is one recipe."""
