"""Sans-IO protocols: detection, conversation and facts of each. See conversation.py.

socks5, smtp, …   a protocol each
tls/, http/       a protocol and a family that take several files
named/            families of protocols that are named, and not followed
parts/            what all of these are built from
registry          all of them in one list: what is it now?
"""
