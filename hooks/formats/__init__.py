"""Parsers, one module for each format. They read headers, never weights, and trust nothing."""
