"""For tests, ours and plugin authors': contract suites, real servers, checksums.

May import anything but `serve_apps`, `jobs` and `cli`; nothing in the product imports it.
"""
