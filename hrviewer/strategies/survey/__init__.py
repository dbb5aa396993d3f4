"""A survey: closer looks at some places, and what they say of all.

`leaves` are the places that a closer look may be taken at, `sampling` draws some of them and
estimates the total, `intervals` say how sure that is. Families that look closer share it.
"""
