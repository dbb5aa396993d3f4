"""A survey: closer looks at some places, and what they say of all.

`leaves` are the places that a closer look may be taken at, `closer` takes it, and corrects by it
what was guessed of the others (`regression`); `sampling` draws some and estimates the total without
bias, `intervals` say how sure that is. Families that look closer share it.
"""
