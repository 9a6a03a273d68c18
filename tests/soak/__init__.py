"""The soak: random maps under random faults for minutes, and an account of every item.

``python -m tests.soak --seconds 600 --seed 7``, or ``make soak``.
"""
