"""How much load when: each shape is a table of stages with a rate in requests per second."""
