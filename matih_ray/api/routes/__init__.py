"""Routes, one module per noun. Each is one use case of `control` in HTTP's words."""
