"""A survey: a cheap look everywhere, closer looks at some places, and what they say of all.

`scouting` is the cheap look, `leaves` are the places that a closer look may be taken at, `closer`
takes it, and corrects by it what was guessed of the others (`regression`); `sampling` draws some
and estimates the total without bias, `intervals` say how sure that is. Families share it.
"""
