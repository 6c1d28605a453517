"""`steadyspike bench`: speed and memory of a training step, beside other libraries.

`run` is the command, `measure` has the frameworks of `frameworks` take turns, each in a process of
its own (`worker`), and `write` makes tables and figures of the JSON file described in `records`.
"""
