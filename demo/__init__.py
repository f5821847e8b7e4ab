"""The main job on an empty machine, start to end: `make demo`, or `python -m demo`.

Stands at the top of the import arrow, beside `serve_apps`: it starts the runtime as a process and
then only speaks HTTP with it. What it reads back, it reads without the product's code.
"""
