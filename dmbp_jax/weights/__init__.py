"""Where weights come from: the registry of named networks and the downloader."""
