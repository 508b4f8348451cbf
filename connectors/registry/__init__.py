"""A schema registry over its REST API: ids of the schemas of our topics."""
