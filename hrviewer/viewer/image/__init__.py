"""The lazy base image: tiles, levels, its layer and how it refreshes."""
