"""The ops of views, beside the simplest ones in views.py."""
