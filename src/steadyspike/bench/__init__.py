"""How fast the training step is and how much memory it takes, beside other libraries' steps.

Each framework runs in a process of its own (`worker`), all take turns (`turns`), and what they
measured becomes one JSON file, from which every table and figure is made (`summary`, `write`).
Nothing here loads torch before a measurement needs it.
"""
