"""Sans-IO protocols: detection, conversation and details of each. See conversation.py.

socks5, smtp, …   a protocol each
tls/, http/       a protocol and a family that need several files
named/            families of protocols that are named, but not followed
parts/            what all of these are built from
registry          all of them in one list, and detection
"""
