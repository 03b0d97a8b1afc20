"""Kills, damaged files, full disks, several writers."""
