"""`make soak`: everything at once for minutes, and then nothing may be wrong.

Live traffic, creates at the limit of the table, flushes in every way, storms, filtered deletes,
dumps of every kind and resizes of the hash table, from threads of one long-running process and
from others that are killed in the middle, each with a mirror, while two streams of events listen.
Now and then all of them pause, and what is there is held against what must be there.
"""
