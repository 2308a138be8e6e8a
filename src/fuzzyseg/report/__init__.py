"""Figures from plain numbers and arrays; imports no torch and no other room."""
