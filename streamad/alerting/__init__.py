"""The alerting file: what it may say, and what its matchers and calendars mean."""
