"""Where bytes come from: HTTP servers, local files, and what Pooch can download."""
