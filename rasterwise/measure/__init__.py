"""Metrics, FLOPs, time, memory and figures."""
