"""Measure jetmap in pools of 1 to 1,000 agents: real agents, workers that only wait."""
