"""The soak: random maps under random faults for minutes, and an account of every item.

``python -m chaos --seconds 600 --seed 7``, or ``make soak``.
"""
