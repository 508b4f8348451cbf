"""What makes models: seeded data, training loops, exports. Serving never imports it."""
