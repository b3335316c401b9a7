"""The HTTP server and the demo page, over one pipeline each. Needs the `web` extra."""
