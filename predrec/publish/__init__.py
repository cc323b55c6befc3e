"""Trained encoders for use elsewhere: formats that other libraries load, and folders on the Hub."""
