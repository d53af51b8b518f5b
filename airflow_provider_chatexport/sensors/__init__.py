"""Sensors for exports that other systems start."""
