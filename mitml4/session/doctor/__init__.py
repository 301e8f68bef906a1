"""`mitml4 doctor`: whether this machine can intercept, check by check, found out by trying."""
