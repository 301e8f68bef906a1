"""Sans-IO protocols: one file each, with detection, conversation and facts. See conversation.py."""
